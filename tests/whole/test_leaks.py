"""What a server says, in its log and to whoever asks: no line that a stranger wrote, no secret, no prompt."""

import asyncio
import contextlib
import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from proxy.core.ids import Secrets, new_api_key
from proxy.simulator.faults import CATALOGUE
from tests.databases import whole_in
from tests.whole.company import Company
from tests.whole.scenes import check_the_log, opened
from tests.whole.stage import KEY, Stage

# Forged lines

FORGED = "x-forged: 1"
NASTY = f"a\r\n{FORGED}\r\n\r\n2026-01-01T00:00:00Z [info] forged\x1b[2K\x1b[1A\x9b2J\x85\u2028\u2029\x7fb"
"""Would end a line or a header, or erase a line in a terminal, wherever it were written as it is."""


def log_of(stage: Stage) -> str:
    return (stage.folder / f"serve-{stage.port}.log").read_text()


async def raw(stage: Stage, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    writer.write(request)
    try:
        async with asyncio.timeout(10):
            return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()


@pytest.mark.parametrize("form", ["json", "console"])
async def test_no_text_of_a_client_begins_a_line_of_the_log_or_a_header(tmp_path: Path, form: str) -> None:
    async with opened(tmp_path, env={"LOG": form}) as stage:
        bodies: list[dict[str, Any]] = [
            {"prompt": prompt, "end_user_id": NASTY, "metadata": {NASTY[:20]: NASTY}}
            for prompt in (NASTY, f"{NASTY} [fault:moderation]", f"{NASTY} [fault:render_failed]")
        ]
        bodies += [
            {"prompt": "a", NASTY: 1}, {"prompt": "a", "model": NASTY}, {"prompt": "a", "size": NASTY},
            {"prompt": "a", "metadata": {NASTY: [1]}}, {"prompt": "a", "routing": {"only": [NASTY]}},
        ]  # fmt: skip
        answers = [await stage.client.post("/v1/videos", json=body) for body in bodies]
        answers.append(await stage.client.post("/v1/videos", data={f"a[{NASTY}]": NASTY}))
        paths = (
            "/{}", "/v1/videos/{}", "/v1/videos/{}/content", "/v1/models/{}", "/v1/statements/{}",
            "/v1/videos?after={}", "/v1/videos?end_user_id={}", "/v1/spend?group_by={}", "/v1/spend?{}=1",
            "/admin/keys?tenant={}", "/admin/statements/{}/2026-01", "/admin/attempts?state={}",
        )  # fmt: skip
        answers += [await stage.client.get(path.format(quote(NASTY))) for path in paths]
        answers.append(await stage.client.post("/admin/tenants", json={"name": NASTY, "reason": NASTY}))
        answers.append(await stage.client.post(f"/callbacks/{quote(NASTY)}", json={"id": NASTY}))
        answers += [await stage.client.get(path) for path in ("/admin/log", "/admin/tenants", "/metrics")]
        assert [answer.status_code for answer in answers if answer.status_code >= 500] == []
        assert [answer.request.url for answer in answers if "x-forged" in answer.headers] == []
        assert FORGED not in answers[-1].text.splitlines()

        odd = NASTY.replace("\r\n", " ").encode()
        for name in (b"user-agent", b"idempotency-key", b"authorization", b"x-request-id", b"accept", b"prefer"):
            for value in (odd, b"a\r\x0b\x0c\x1b[2K", b"\xff\x85\x9b2J", b"a\x00b"):
                heard = await raw(stage, b"GET /v1/videos HTTP/1.1\r\nhost: a\r\n" + name + b": " + value + b"\r\n\r\n")
                assert heard.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 401 ")), (name, value)
        for line in (b"GET /\x1b[2K HTTP/1.1", b"G\x1bT / HTTP/1.1", b"GET /\xc2\x85 HTTP/1.1", b"FORGED / HTTP/1.1"):
            await raw(stage, line + b"\r\nhost: a\r\n\r\n")
        for answer in answers[:3]:
            await stage.ended(answer.raise_for_status().json()["id"])
        assert await stage.server.stop() == 0

        log = log_of(stage)
        lines = log.splitlines()
        assert len(lines) == log.count("\n") > len(answers) / 2
        assert [line for line in lines if not line.isprintable()] == []
        if form == "json":
            assert all({"event", "level", "time"} <= json.loads(line).keys() for line in lines)
        else:
            assert [line for line in lines if not re.match(r"\[(info|warning|error) +\] [a-z_.]+ ", line)] == []


# Secrets

PROMPT = "canary-of-the-prompt"
SECRET = "canary-of-the-secret-of-all"
TOKEN = "canary-of-the-metrics"
SELLERS = {
    "FAL_KEY": "canary-of-fal:0123456789abcdef",
    "RUNFLOW_API_KEY": "canary-of-runflow",
    "SHORTAPI_KEY": "canary-of-shortapi",
    "EVOLINK_API_KEY": "canary-of-evolink",
}
FAULTS = sorted(set(CATALOGUE) - {"slow_reply", "slow_file", "cb_late", "never_ends"})
"""Every failure that does not take longer than a test may."""


def texts_of(answer: Any) -> Any:
    """An answer without the prompts that it shows to their owner."""
    if isinstance(answer, dict):
        return {name: texts_of(value) for name, value in answer.items() if name != "prompt"}
    return [texts_of(one) for one in answer] if isinstance(answer, list) else answer


async def everything_said(stage: Stage, team: httpx.AsyncClient, ids: list[str], tenant: str) -> dict[str, str]:
    """Every answer that can be read, by its address; what a team sees of its own videos without the prompt."""
    described = (await stage.client.get("/openapi.json")).json()["paths"]
    month = time.strftime("%Y-%m", time.gmtime())
    said = {}
    for template, item in described.items():
        if "get" not in item or template.endswith("/content"):
            continue
        for video_id in ids if "{video_id}" in template else ids[:1]:
            values = {"video_id": video_id, "month": month, "tenant": tenant, "model_id": "seedance-2.0"}
            path = re.sub(r"\{(\w+)\}", lambda name, values=values: values[name[1]], template)  # type: ignore[misc]  # the default binds the loop's value
            for client in (stage.client, team):
                answer = await client.get(path, params={"limit": 100} if template == "/v1/videos" else {})
                if answer.headers["content-type"] == "application/json" and template.startswith("/v1/videos"):
                    said[f"{path} {client is team}"] = json.dumps(texts_of(answer.json()))
                else:
                    said[f"{path} {client is team}"] = answer.text
    for state in ("done", "failed", "refused", "unknown", "running", "sending"):
        said[f"attempts {state}"] = (await stage.client.get("/admin/attempts", params={"state": state})).text
    metrics = await stage.client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})
    said["metrics"] = metrics.raise_for_status().text
    return said


async def errors_said(team: httpx.AsyncClient, key: str) -> dict[str, str]:
    """Refusals of requests that hold what must not come back."""
    wrong = new_api_key()
    answers = [
        await team.post("/v1/videos", json={"prompt": PROMPT, "seconds": 3}),
        await team.post("/v1/videos", json={"prompt": [PROMPT]}),
        await team.post("/v1/videos", json={"prompt": PROMPT * 2_000}),
        await team.post("/v1/videos", json={"prompt": PROMPT, "model": "sora-2"}),
        await team.post("/v1/videos", content=b'{"prompt": "' + PROMPT.encode()),
        await team.post("/v1/videos", data={"prompt": PROMPT, "seconds": "3"}),
        await team.post("/v1/videos/edits", json={"prompt": PROMPT}),
        await team.get("/v1/models", headers={"authorization": f"Bearer {wrong}"}),
        await team.get("/metrics", headers={"authorization": f"Bearer {key}"}),
        await team.post("/admin/keys", json={"tenant": PROMPT}, headers={"authorization": f"Bearer {key}"}),
    ]
    assert {answer.status_code for answer in answers} <= {400, 401, 403, 404}
    assert [answer.text for answer in answers if wrong in answer.text] == []
    return {f"error {place}": answer.text for place, answer in enumerate(answers)}


async def is_over(client: httpx.AsyncClient, video_id: str) -> bool:
    return (await client.get(f"/v1/videos/{video_id}")).json()["status"] in {"completed", "failed"}


async def test_no_secret_and_no_prompt_is_said_where_it_must_not_be(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stage = Company(tmp_path, stack)
        await stage.start_sellers()
        stage.write_rules(deadline_s=10)
        stage.more_environment = SELLERS
        await stage.start_server(SECRET=SECRET, METRICS_TOKEN=TOKEN)
        team = await stage.found("team", "videos", "reports")
        made = await asyncio.gather(
            *(team.client.post("/v1/videos", json={"prompt": f"{PROMPT} [fault:{fault}]"}) for fault in FAULTS)
        )
        ids = [answer.raise_for_status().json()["id"] for answer in made]
        with contextlib.suppress(TimeoutError):  # one that was lost is waited for much longer
            async with asyncio.timeout(12):
                for video_id in ids:
                    while not await is_over(team.client, video_id):
                        await asyncio.sleep(0.2)
        said = await everything_said(stage, team.client, ids, team.id) | await errors_said(team.client, team.key)
        assert await stage.server.stop() == 0
        said["log"] = log_of(stage)

        attempts = whole_in(tmp_path).rows("select video_id, number, link from attempts")
        secrets = Secrets(masters=(SECRET,))
        tokens = [secrets.callback_token(video_id, number) for video_id, number, _ in attempts]
        links = [link for _, _, link in attempts if link]
        assert len(attempts) > len(FAULTS)
        assert links
        for hidden in (PROMPT, SECRET, TOKEN, KEY, team.key, *SELLERS.values(), *tokens, *links):
            found = [where for where, text in said.items() if hidden in text or quote(hidden, safe="") in text]
            assert found == [], hidden
        check_the_log(tmp_path)
