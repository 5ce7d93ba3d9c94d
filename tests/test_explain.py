"""A plan explained before anything is bought: by the rules alone, and by a server that has them."""

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import yaml
from click.testing import CliRunner

from proxy.cli import reelay
from proxy.core.errors import ReelayError
from tests.whole.company import Company, open_company
from tests.whole.stage import KEY, PLAY_KEYS, ROOT

aside = asyncio.to_thread
"""The verb runs a loop of its own."""

RULES = ROOT / "routing_rules.yaml"
AT_THE_SHOP = pytest.mark.asyncio(loop_scope="module")
REQUESTS: list[tuple[list[str], dict[str, Any]]] = [
    ([], {}),
    (["--seconds", "8", "--resolution", "1080p"], {"seconds": "8", "resolution": "1080p"}),
    (
        ["--metadata", "stage=preview", "--metadata", "note=a=b", "--seconds", "auto", "--seed", "7"],
        {"metadata": {"stage": "preview", "note": "a=b"}, "seconds": "auto", "seed": 7},
    ),
    (
        ["--model", "seedance-2.0:fastest", "--size", "720x1280", "--no-audio", "--no-content-filter", "--web-search"],
        {
            "model": "seedance-2.0:fastest", "size": "720x1280", "generate_audio": False, "content_filter": False,
            "web_search": True,
        },
    ),
    (
        ["--sort", "price", "--only", "fal", "--only", "evolink", "--max-price-usd", "9.5", "--no-fallbacks",
         "--max-wait-s", "900", "--ignore", "runflow", "--tier", "fast", "--end-user-id", "ann"],
        {"tier": "fast", "end_user_id": "ann",
         "routing": {"sort": "price", "only": ["fal", "evolink"], "max_price_usd": "9.5", "allow_fallbacks": False,
                     "max_wait_s": 900, "ignore": ["runflow"]}},
    ),
    (["--order", "runflow", "--order", "fal", "--aspect-ratio", "1:1"],
     {"aspect_ratio": "1:1", "routing": {"order": ["runflow", "fal"]}}),
]  # fmt: skip


THEIRS = """
  - {name: theirs, when: {tenant: [acme]}, resolution_at_most: 480p, downgrade: true}
  - {name: broke, when: {any: [{budget_used: {min: 0.9}}, {not: {tier: standard}}]}}
"""


class Desk:
    """The verb in a folder, with an environment of its own."""

    def __init__(self, folder: Path, **env: str) -> None:
        rules = {"REELAY_RULES": str(RULES), "OPENAI_BASE_URL": "", "OPENAI_API_KEY": "", "COLUMNS": "100"}
        keys = {f"{name}_FILE": "" for name in PLAY_KEYS} | PLAY_KEYS
        self._env = rules | keys | {"NO_PROXY": "*", "REELAY_DATABASE_URL": f"sqlite:///{folder}/none.db"} | env
        self.folder = folder

    def says(self, *arguments: str, stdin: bytes = b"") -> str:
        done = CliRunner().invoke(
            reelay, ["explain", *arguments], env=self._env, input=io.BytesIO(stdin), catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
        return done.stdout

    def quotes(self, *arguments: str, stdin: bytes = b"") -> dict[str, Any]:
        quote: dict[str, Any] = json.loads(self.says(*arguments, "--json", stdin=stdin))
        return quote

    def refuses(self, *arguments: str) -> str:
        with pytest.raises(ReelayError) as caught:
            CliRunner().invoke(reelay, ["explain", *arguments], env=self._env, catch_exceptions=False)
        assert "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    def shipped(rules: dict[str, Any]) -> None:
        rules["rules"] = yaml.safe_load(RULES.read_text())["rules"]

    async with open_company(tmp_path_factory.mktemp("explained"), shipped) as company:
        yield company


def test_plan_is_told_with_the_rules_that_were_passed_over(desk: Desk) -> None:
    lines = desk.says("--seconds", "8", "--tenant", "acme", "--metadata", "stage=preview").splitlines()
    assert lines[0] == f"By {RULES}, for the tenant acme:"
    assert lines[1] == "seedance-2.0, 8 s, 720p, 16:9 (1280x720), standard, with audio, filtered"
    assert [line.strip() for line in lines[3:7]] == [
        "full-hd does not match: resolution",
        "relaxed-filter does not match: content_filter",
        "previews does not match: seconds",
        "default matches; its strategy is cheapest",
    ]
    first = next(line for line in lines if line.split()[:1] == ["1"])
    assert first.split()[1:5] == ["evolink/seedance-2.0/standard/text-to-video", "$1.588000", "225.0", "s"]
    assert "number 1 by price" in first
    assert next(line for line in lines if line.split()[:1] == ["4"]).rstrip().endswith("; not tried: 3 are enough")
    assert any(line.split()[:2] == ["evolink/seedance-2.0/mini/text-to-video", "tier"] for line in lines)
    assert "$2.427200 would be held until the cost is known." in lines
    assert not list(desk.folder.iterdir()), "no database is made for it"


def test_tenant_is_one_that_the_rules_may_know(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(RULES.read_text().replace("\nrules:\n", f"\nrules:\n{THEIRS}"))
    desk = Desk(tmp_path)
    theirs = desk.quotes("--rules", str(path), "--tenant", "acme", "--resolution", "720p", "--markup", "0.5")
    assert (theirs["rule"], theirs["passed_over"]) == ("theirs", [])
    assert theirs["changed"] == {"resolution": {"asked": "720p", "given": "480p"}}
    assert "it changes resolution from 720p to 480p" in desk.says(
        "--rules", str(path), "--tenant", "acme", "--resolution", "720p"
    )
    plain = desk.quotes("--rules", str(path), "--tenant", "acme", "--resolution", "480p")
    assert float(theirs["hold_usd"]) == pytest.approx(1.5 * float(plain["hold_usd"]), abs=1e-6)
    assert desk.quotes("--rules", str(path), "--budget-used", "0.95")["rule"] == "broke"
    default = desk.quotes("--rules", str(path))
    assert [(one["rule"], one["unmet"]) for one in default["passed_over"][:2]] == [
        ("theirs", ["tenant"]),
        ("broke", ["any"]),
    ]


@pytest.mark.parametrize(("arguments", "fields"), REQUESTS)
@AT_THE_SHOP
async def test_rules_and_server_give_the_same_answer(
    desk: Desk, shop: Company, arguments: list[str], fields: dict[str, Any]
) -> None:
    body = {"prompt": "a film", **fields}
    answer = await shop.client.post("/v1/videos/quote", json=body)
    by_server = await aside(desk.quotes, *arguments, "--server", shop.server.origin, "--key", KEY)
    assert by_server == answer.raise_for_status().json()
    rules = str(shop.folder / "routing_rules.yaml")
    assert await aside(desk.quotes, *arguments, "--rules", rules) == by_server
    (desk.folder / "body.json").write_bytes(msgspec.json.encode(body))
    assert await aside(desk.quotes, "--body", str(desk.folder / "body.json"), "--rules", rules) == by_server
    assert await aside(desk.quotes, "--body", "-", "--rules", rules, stdin=msgspec.json.encode(body)) == by_server


@AT_THE_SHOP
async def test_server_of_the_sdks_variables_is_asked_unless_rules_are_named(desk: Desk, shop: Company) -> None:
    variables = {"OPENAI_BASE_URL": f"{shop.server.origin}/v1", "OPENAI_API_KEY": KEY}
    asked = Desk(desk.folder, **variables)
    assert (await aside(asked.says)).startswith(f"By {shop.server.origin}/v1:\n")
    assert (await aside(asked.says, "--rules", str(RULES))).startswith(f"By {RULES}, for the tenant default:\n")
    assert (await aside(asked.says, "--sandbox")).startswith(f"By {RULES}, ")


@AT_THE_SHOP
async def test_explaining_keeps_nothing_and_asks_nobody(desk: Desk, shop: Company) -> None:
    before = await shop.kept()
    await aside(desk.says, "--server", shop.server.origin, "--key", KEY, "--end-user-id", "somebody new")
    assert await shop.kept() == before


@AT_THE_SHOP
async def test_refusal_of_the_server_is_one_line(desk: Desk, shop: Company) -> None:
    server = ("--server", shop.server.origin, "--key", KEY)
    by_rules = ("--rules", str(shop.folder / "routing_rules.yaml"))
    for wrong in (["--model", "kino-9"], ["--resolution", "9p"], ["--resolution", "1080p", "--tier", "fast"]):
        assert await aside(desk.refuses, *wrong, *server) == await aside(desk.refuses, *wrong, *by_rules)
    assert "Incorrect API key" in await aside(desk.refuses, "--server", shop.server.origin, "--key", "rly_nobodys")
    assert "cannot be asked: ConnectError" in await aside(desk.refuses, "--server", "http://127.0.0.1:9", "--key", KEY)
    assert "cannot be asked" in await aside(desk.refuses, "--server", "nonsense", "--key", KEY)
    elsewhere = await aside(desk.refuses, "--server", f"{shop.sellers.origin}/nowhere", "--key", KEY)
    assert elsewhere.endswith("answers with status 404; is it Reelay?")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--server", "http://127.0.0.1:9"], "a server wants a key: --key, or OPENAI_API_KEY"),
        (["--server", "x", "--key", "k", "--tenant", "acme"], "--tenant means nothing to a server: it has rules"),
        (["--server", "x", "--key", "k", "--rules", "r.yaml"], "--rules means nothing to a server: it has rules"),
        (["--server", "x", "--key", "k", "--sandbox"], "--sandbox means nothing to a server: it has rules"),
        (["--server", "x", "--key", "k", "--no-filter-off"], "--allow-filter-off means nothing to a server"),
        (["--body", "/nowhere"], "/nowhere cannot be read: No such file or directory"),
        (["--body", "-", "--end-user-id", "x"], "--body says it all; --end-user-id cannot stand beside it"),
        (["--metadata", "stage"], "--metadata 'stage' is not KEY=VALUE"),
        (["--markup", "much"], "--markup 'much' is no ratio such as \"0.15\""),
        (["--markup", "-1"], "--markup '-1' is no ratio such as \"0.15\""),
        (["--rules", "/nowhere.yaml"], "/nowhere.yaml: the rules cannot be read: No such file or directory"),
        (["--seconds", "16"], "seconds must be a whole number from 4 to 15, or auto"),
        (["--no-content-filter", "--tenant", "acme"], "this tenant may not switch the content filter off"),
    ],
)
def test_mistake_is_told_in_one_line(desk: Desk, arguments: list[str], line: str) -> None:
    assert desk.refuses(*arguments).startswith(line)


def test_without_any_key_the_sandbox_explains(tmp_path: Path) -> None:
    desk = Desk(tmp_path, **dict.fromkeys(PLAY_KEYS, ""))
    why = desk.refuses()
    assert why.endswith("; set the key of one, or explain with --sandbox")
    assert len(desk.quotes("--sandbox")["candidates"]) == 4


def test_whoever_types_it_gets_exit_2_for_a_mistake(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT), "REELAY_RULES": str(RULES), "OPENAI_BASE_URL": ""}
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "explain", "--sandbox", "--tier", "slow"],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "reelay: 'tier' must be one of standard, fast, mini.\n"
