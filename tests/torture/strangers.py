"""The API under requests that its own description makes up: what may be sent, and what may not."""

import asyncio
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import count
from typing import Any

import msgspec
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks

from proxy.api.failures import STATUSES
from proxy.api.schemas import ErrorEnvelope
from proxy.core import errors
from tests.torture.verdict import Tally
from tests.whole.company import Company, Team

CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.ignored_auth,
]
_Case = Case[Any]

KNOWN_RATIO = 0.5
"""How often a word that names something is one that there is: nothing is deep behind a 404."""


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What a server holds, for strangers to name; none of it is the stranger's own key or tenant."""

    origin: str
    words: dict[str, list[Any]]
    """By the name of a parameter or of a member of a body."""


async def films_of(owner: Team) -> list[str]:
    """Videos that are delivered, failed, of unknown end and under way."""
    videos = []
    for prompt, wish in (
        ("a paper boat", {"end_user_id": "ann", "metadata": {"stage": "preview"}}),
        ("[fault:render_failed]", {"routing": {"allow_fallbacks": False}}),
        ("[fault:reset_after@shortapi]", {"routing": {"order": ["shortapi"]}}),
        ("[fault:never_ends]", {"end_user_id": "bob"}),
    ):
        answer = await owner.client.post("/v1/videos", json={"prompt": prompt, **wish})
        videos.append(answer.raise_for_status().json()["id"])
    async with asyncio.timeout(60):
        while (await owner.client.get(f"/v1/videos/{videos[0]}")).json()["status"] != "completed":
            await asyncio.sleep(0.05)
    return videos


async def furnish(shop: Company) -> World:
    """One of everything else."""
    other = await shop.found("somebody", "videos")
    tenant = {"tenant": other.id}
    key = (await shop.client.post("/admin/keys", json=tenant)).raise_for_status().json()["id"]
    budget = await shop.client.post("/admin/budgets", json={**tenant, "period": "month", "limit_usd": "100"})
    price = {
        "provider": "fal", "model": "seedance-2.0", "tier": "standard", "resolution": "720p", "usd_per_second": "0.31",
        "starts": "2031-01-01", "source": "a page",
    }  # fmt: skip
    priced = await shop.client.post("/admin/prices", json=price)
    now = time.gmtime()
    months = ["2020-01", f"{now.tm_year:04}-{now.tm_mon:02}", "2999-12"]
    return World(
        origin=shop.server.origin,
        words={
            "number": [1],
            "tenant": [other.id, other.name],
            "key_id": [key],
            "key": [key],
            "budget": [budget.raise_for_status().json()["id"]],
            "price": [priced.raise_for_status().json()["id"]],
            "month": months,
            "model_id": ["seedance-2.0", "seedance"],
            "model": ["seedance-2.0", "seedance-2.0:fastest", "fal/seedance-2.0"],
            "provider": ["fal", "evolink"],
            "operation": ["text-to-video"],
            "tier": ["standard", "fast"],
            "resolution": ["480p", "720p"],
            "size": ["1280x720", "720x1280"],
            "seconds": ["5", 5, "auto"],
            "duration": [5],
            "prompt": ["a paper boat"],
            "seed": [7],
            "routing": [{"sort": "price"}, {"order": ["fal", "evolink"], "max_price_usd": "9"}],
            "metadata": [{"stage": "preview"}],
            "end_user_id": ["ann", "bob"],
            "user": ["ann"],
            "group_by": ["tenant,day", "provider", "metadata.stage,month"],
            "start": ["2020-01-01"],
            "end": ["2999-12-31"],
            "amount_usd": ["0.000001", "0.01"],
            "limit_usd": ["100", "0"],
            "raise_usd": ["10"],
            "warn_at": [["0.5", "0.9"]],
            "period": ["day", "month"],
            "scope": ["tenant", "key", "end_user", "each_end_user", "no_end_user"],
            "scopes": [["videos"], ["videos", "reports"]],
            "name": ["a team", ""],
            "markup": ["0.10"],
            "requests_per_minute": [1_000_000, None],
            "videos_in_flight": [1_000_000, None],
            "reason": ["it rained"],
            "source": ["a page"],
            "starts": ["2031-02-01"],
            "usd_per_second": ["0.30"],
            "usd_per_million_tokens": ["14"],
            "state": ["unknown", "done", "running"],
            "seller_id": ["made-up"],
        },
    )


class Stranger:
    """Asks every operation of the description with one key, and writes down what should not have come back."""

    def __init__(self, world: World, team: Team, videos: list[str]) -> None:
        self.tally = Tally(fault=f"fuzzed: the API, as {team.name}")
        self._words = world.words | {"video_id": videos, "video": videos, "after": videos}
        self._origin = world.origin
        self._headers = {"authorization": f"Bearer {team.key}"}
        self._session = requests.Session()
        self._session.trust_env = False
        self._told: set[tuple[str, str]] = set()
        self._asked: set[str] = set()
        schema = schemathesis.openapi.from_url(f"{world.origin}/openapi.json", config=_config())
        self.operations: list[Any] = [operation for path in schema.values() for operation in path.values()]

    @property
    def unasked(self) -> list[str]:
        """Operations that nothing was sent to yet."""
        return sorted({str(operation.label) for operation in self.operations} - self._asked)

    def cover(self, *, seconds: float) -> None:
        """Each limit of each field, one operation after the other in turns, until the time is over."""
        over = time.monotonic() + seconds
        turns = [self._cases(operation) for operation in self.operations]
        while turns and time.monotonic() < over:
            turns = [turn for turn in turns if self._asked_one_of(turn)]

    def _cases(self, operation: Any) -> Iterator[_Case]:
        config = operation.schema.config.generation
        cases: Iterator[_Case] = operation.schema.iter_coverage_cases(
            operation, generation_modes=list(GenerationMode), generation_config=config
        )
        return cases

    def _asked_one_of(self, cases: Iterator[_Case]) -> bool:
        for case in cases:
            self._name(case.path_parameters, random.Random(self.tally.tries), 1)
            self._ask(case)
            return True
        return False

    def fuzz(self, first_seed: int, *, examples: int, seconds: float) -> None:
        """At random, so many examples of what fits and of what does not for each operation in each round."""
        over = time.monotonic() + seconds
        for number in count(first_seed):
            turns = [(operation, mode) for operation in self.operations for mode in GenerationMode]
            # Where the time ends within a round, others come first the next time.
            random.Random(number).shuffle(turns)
            for operation, mode in turns:
                if time.monotonic() > over:
                    return
                self._fuzz(operation, mode, number, examples)

    def _fuzz(self, operation: Any, mode: GenerationMode, number: int, examples: int) -> None:
        @seed(number)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode), st.randoms(use_true_random=False))
        def ask(case: _Case, dice: random.Random) -> None:
            self._name(case.path_parameters, dice, KNOWN_RATIO)
            if mode is GenerationMode.POSITIVE:
                # Of the others, what is wrong in these has to stay so.
                self._name(case.query, dice, KNOWN_RATIO)
                self._name(case.body, dice, KNOWN_RATIO)
            self._ask(case)

        # What takes nothing can be sent nothing wrong.
        with suppress(Unsatisfiable):
            ask()

    def _name(self, place: Any, dice: random.Random, ratio: float) -> None:
        """Puts words that name something in the place of some that were made up."""
        for name in place if isinstance(place, dict) else ():
            if name in self._words and dice.random() < ratio:
                place[name] = dice.choice(self._words[name])

    def _ask(self, case: _Case) -> None:
        self.tally.tries += 1
        self._asked.add(case.operation.label)
        sent: dict[str, Any] = {"base_url": self._origin, "session": self._session}
        try:
            answer = case.call(headers=self._headers, **sent)
        except requests.RequestException as exc:
            self._tell(case, f"no answer: {exc}")
            return
        try:
            case.validate_response(answer, checks=CHECKS, headers=self._headers, transport_kwargs=sent)
        except FailureGroup as exc:
            for one in exc.exceptions:
                self._tell(case, f"{one.title}: {answer.status_code}, {one.message}")
        for wrong in not_ours(answer.status_code, answer.headers, answer.content, case.method):
            self._tell(case, wrong)

    def _tell(self, case: _Case, wrong: str) -> None:
        """Once for each operation and kind of fault."""
        told = case.operation.label, wrong.partition(":")[0]
        if told not in self._told:
            self._told.add(told)
            self.tally.differences.append(f"{told[0]}: {' '.join(wrong.split())[:400]}; {case!r:.600}")


def _config() -> schemathesis.Config:
    config = schemathesis.Config()
    config.projects.default.generation.update(with_security_parameters=False, allow_extra_parameters=False)
    return config


def _statuses() -> dict[str, int]:
    """Codes to the one status that each comes with."""
    known = {errors.ReelayError.code: 500}
    kinds: list[type[errors.ReelayError]] = [errors.RequestError, errors.NoProviderAvailable, errors.Overloaded]
    while kinds:
        kind = kinds.pop()
        known.setdefault(kind.code, next(STATUSES[base][0] for base in kind.__mro__ if base in STATUSES))
        kinds += kind.__subclasses__()
    return known


_STATUSES = _statuses()


def not_ours(status: int, headers: Mapping[str, Any], body: bytes, method: str) -> list[str]:
    """What a refusal lacks of OpenAI's envelope, or a failure of ours."""
    if status < 400:
        return []
    if method.upper() == "HEAD":
        return [f"a failure of ours: {status}"] if status >= 500 else []
    try:
        told = msgspec.json.decode(body, type=ErrorEnvelope)
    except msgspec.DecodeError as exc:
        return [f"no envelope: {exc}"]
    code = told.error.code
    wrong = []
    if _STATUSES.get(code or "") != status:
        wrong.append(f"a code of another status: {code}")
    if status >= 500 and not (code == errors.Overloaded.code and "retry-after" in headers):
        wrong.append(f"a failure of ours: {code}")
    if "Traceback" in told.error.message:
        wrong.append("a stack trace: in the message")
    return wrong
