"""`reelay explain`: what would be made of a request, by whom and why, from the rules or from a server. Buys nothing."""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import rich_click as click

from proxy import completing
from proxy.core.errors import ConfigError, NoProviderAvailable
from proxy.core.money import parse_usd
from proxy.core.tenant import Tenant
from proxy.settings import WithFiles, read_settings
from proxy.verbs import JSON_OUTPUT, PLAIN_WIDTH, SANDBOX, print_json

if TYPE_CHECKING:
    from proxy.api.schemas import QuoteObject

F = TypeVar("F", bound=Callable[..., None])

MAX_BODY_BYTES = 24 * 1024 * 1024
ANSWER_TIMEOUT_S = 30.0

# What is asked


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A request that nobody sends, and for whom it is made up."""

    body: bytes
    """As a create takes it, in JSON."""
    tenant: str
    markup: str
    filter_off: bool
    """Whether the tenant may ask for `content_filter: false`."""
    budget_used: float | None


_FIELDS = (
    click.option("--model", help="As a request says it: seedance-2.0, seedance-2.0:cheapest, PROVIDER/seedance-2.0."),
    click.option("--prompt", help="What the film shows; any, where only the plan matters."),
    click.option("--seconds", help="Length, or auto."),
    click.option("--size", help="Such as 1280x720."),
    click.option("--resolution", help="480p, 720p or 1080p."),
    click.option("--aspect-ratio", help="Such as 16:9, or auto."),
    click.option("--tier", help="standard, fast or mini."),
    click.option("--seed", type=int, help="For the same film again."),
    click.option("--generate-audio/--no-audio", default=None, help="With sound or without."),
    click.option("--content-filter/--no-content-filter", default=None, help="With the sellers' filter or without."),
    click.option("--web-search/--no-web-search", default=None, help="Whether the seller may search the web."),
    click.option("--end-user-id", help="For whom the tenant asks."),
    click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="A pair; may be said again."),
    click.option("--sort", help="price, latency or balanced."),
    click.option(
        "--only",
        multiple=True,
        metavar="PROVIDER",
        shell_complete=completing.providers,
        help="Nobody else; may be said again.",
    ),
    click.option(
        "--ignore",
        multiple=True,
        metavar="PROVIDER",
        shell_complete=completing.providers,
        help="Not this one; may be said again.",
    ),
    click.option(
        "--order",
        multiple=True,
        metavar="PROVIDER",
        shell_complete=completing.providers,
        help="These, in this order; may be said again.",
    ),
    click.option("--max-price-usd", help="The most that it may cost."),
    click.option("--max-wait-s", type=int, help="The longest that it may be expected to take."),
    click.option("--no-fallbacks", is_flag=True, default=None, help="One seller and no other."),
)
_ROUTING = ("sort", "only", "ignore", "order", "max_price_usd", "max_wait_s", "allow_fallbacks")


def _with_fields(command: F) -> F:
    for option in reversed(_FIELDS):
        command = option(command)
    return command


@click.command()
@_with_fields
@click.option("--body", metavar="FILE", help="A create's JSON body in place of all these; - reads it from stdin.")
@click.option("--tenant", help="By the rules alone: id or name of who asks; default without it.")
@click.option("--markup", help="By the rules alone: the tenant's ratio on the seller's price: \"0.15\" is 15 %.")
@click.option("--allow-filter-off/--no-filter-off", default=None, help="By the rules alone: the tenant's right to it.")
@click.option("--budget-used", type=click.FloatRange(0), help="By the rules alone: ratio of the tightest budget.")
@click.option("--rules", type=click.Path(path_type=Path), help="The rules to explain by; without it REELAY_RULES.")
@click.option("--server", metavar="URL", help="Ask this server instead; without it OPENAI_BASE_URL, unless --rules.")
@click.option("--key", help="For the server; without it OPENAI_API_KEY.")
@JSON_OUTPUT
@SANDBOX
def explain(rules: Path | None, server: str | None, key: str | None, as_json: bool, sandbox: bool, **said: Any) -> None:
    """
    Explain what would be made of a request: by which rule, by whom, at what price, and why not by the others.

    Nothing is bought. By the rules alone it needs no server and no database, and knows no price that was set by
    `reelay prices`; with --sandbox every provider has its key. A server is asked what it would do for the tenant
    of the key.
    """
    fields = {name: said.pop(name) for name in list(said) if name not in {"body", *_ABOUT_THE_TENANT}}
    body = _body(said.pop("body"), fields)
    if server is None and rules is None and not sandbox:
        server = os.environ.get("OPENAI_BASE_URL") or None
    if server is not None:
        if odd := [
            name for name, value in {**said, "rules": rules, "sandbox": sandbox or None}.items() if value is not None
        ]:
            raise ConfigError(
                f"--{odd[0].replace('_', '-')} means nothing to a server: it has rules, and the key its tenant"
            )
        by, quote = server, asyncio.run(ask_server(server, key or os.environ.get("OPENAI_API_KEY"), body))
    else:
        path = rules or read_settings(os.environ, sandbox=sandbox).rules
        question = _question(body, said)
        by = f"{path}, for the tenant {question.tenant}"
        quote = asyncio.run(read_off(path, os.environ, question, sandbox=sandbox))
    if as_json:
        print_json(quote)
    else:
        show(quote, by)


_ABOUT_THE_TENANT = ("tenant", "markup", "allow_filter_off", "budget_used")


def _body(file: str | None, fields: dict[str, Any]) -> bytes:
    """Raises ConfigError where the file cannot be read, or is not all that is said."""
    stated = {name: value for name, value in fields.items() if value not in {None, ()}}
    if file is not None:
        if stated:
            raise ConfigError(f"--body says it all; --{next(iter(stated)).replace('_', '-')} cannot stand beside it")
        try:
            return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        except OSError as exc:
            raise ConfigError(f"{file} cannot be read: {exc.strerror}") from exc
    if "metadata" in stated:
        stated["metadata"] = dict(_pair(text) for text in stated["metadata"])
    if stated.pop("no_fallbacks", None):
        stated["allow_fallbacks"] = False
    routing = {name: stated.pop(name) for name in _ROUTING if name in stated}
    return msgspec.json.encode({"prompt": "a film", **stated, **({"routing": routing} if routing else {})})


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--metadata {text!r} is not KEY=VALUE")
    return name, value


def _question(body: bytes, said: dict[str, Any]) -> Question:
    tenant, may = said["tenant"] or "default", said["allow_filter_off"]
    return Question(
        body=body,
        tenant=tenant,
        markup=said["markup"] or "0",
        filter_off=tenant == "default" if may is None else may,
        budget_used=said["budget_used"],
    )


# Who answers


async def read_off(path: Path, env: Mapping[str, str], question: Question, *, sandbox: bool) -> "QuoteObject":
    """
    What these rules say, as a server under them would.

    Raises ConfigError for the rules, and for the request whatever a server would refuse it with.
    """
    from proxy.api.bodies import read_create  # noqa: PLC0415 - the other verbs need none of it
    from proxy.api.views import show_quote  # noqa: PLC0415
    from proxy.core.clock import system_clock  # noqa: PLC0415
    from proxy.opening import PlayKeys, play_sellers_only, read_rules  # noqa: PLC0415
    from proxy.policy.budgets import Standing  # noqa: PLC0415
    from proxy.policy.plan import decide  # noqa: PLC0415

    rules = play_sellers_only(read_rules(path, PlayKeys())) if sandbox else read_rules(path, WithFiles(env))
    wish = await read_create(
        "application/json", _once(question.body), max_bytes=MAX_BODY_BYTES, unknown_fields=rules.unknown_fields
    )
    asked_at, chance = system_clock(), random.random()
    try:
        decision = decide(
            wish.ask,
            _tenant(question),
            rules,
            at_us=asked_at,
            budget=Standing(used=question.budget_used),
            chance=chance,
            explain=True,
        )
    except NoProviderAvailable as exc:
        raise ConfigError(f"{exc}; set the key of one, or explain with --sandbox") from exc
    return show_quote(rules, decision, wish.warnings)


def _tenant(question: Question) -> Tenant:
    try:
        markup = parse_usd(question.markup)
    except ValueError:
        markup = None
    if markup is None or markup < 0:
        raise ConfigError(f'--markup {question.markup!r} is no ratio such as "0.15"')
    name = question.tenant
    return Tenant(id=name, name=name, markup=question.markup, allow_filter_off=question.filter_off, created_at=0)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def ask_server(url: str, key: str | None, body: bytes) -> "QuoteObject":
    """What the server would do with this body. Raises ConfigError with what it says instead."""
    import httpx  # noqa: PLC0415 - the rules alone need none of it

    from proxy.api.schemas import QuoteObject  # noqa: PLC0415

    if not key:
        raise ConfigError("a server wants a key: --key, or OPENAI_API_KEY")
    base = url.rstrip("/").removesuffix("/v1")
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    try:
        async with httpx.AsyncClient(timeout=ANSWER_TIMEOUT_S) as client:
            answer = await client.post(f"{base}/v1/videos/quote", content=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as exc:
        raise ConfigError(f"{base} cannot be asked: {type(exc).__name__}: {exc}") from exc
    if answer.status_code != 200:
        raise ConfigError(_refusal(base, answer.status_code, answer.content))
    try:
        return msgspec.json.decode(answer.content, type=QuoteObject)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{base} answers something other than a quote; is it Reelay?") from exc


def _refusal(base: str, status: int, body: bytes) -> str:
    from proxy.api.schemas import ErrorEnvelope  # noqa: PLC0415

    try:
        return msgspec.json.decode(body, type=ErrorEnvelope).error.message
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return f"{base} answers with status {status}; is it Reelay?"


# What is shown


def show(quote: "QuoteObject", by: str) -> None:
    """The whole plan for people."""
    from rich.console import Console  # noqa: PLC0415

    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False, soft_wrap=True)
    audio = "with audio" if quote.generate_audio else "without audio"
    filtered = "filtered" if quote.content_filter else "not filtered"
    console.print(f"By {by}:", markup=False)
    console.print(
        f"{quote.model}, {quote.seconds} s, {quote.resolution}, {quote.aspect_ratio} ({quote.size}), {quote.tier}, "
        f"{audio}, {filtered}\n",
        markup=False,
    )
    for one in quote.passed_over:
        console.print(f"  {one.rule} does not match: {', '.join(one.unmet)}", style="dim", markup=False)
    console.print(f"  {quote.rule} matches; its strategy is {quote.strategy}", style="bold", markup=False)
    for field, change in quote.changed.items():
        console.print(f"  it changes {field} from {change.asked} to {change.given}", markup=False)
    _show_candidates(console, quote)
    if quote.excluded:
        table = _table("left out", "reason", "")
        for offer in quote.excluded:
            table.add_row(offer.offer, offer.reason, offer.detail)
        console.print("", table, sep="\n")
    console.print(f"\n${quote.hold_usd} would be held until the cost is known.", markup=False)
    for warning in quote.warnings or ():
        console.print(f"warning: {warning}", markup=False)


def _show_candidates(console: Any, quote: "QuoteObject") -> None:
    table = _table("", "offer", "price", "expected", "why")
    for place, one in enumerate(quote.candidates, 1):
        kept = place <= quote.max_attempts
        why = one.reason or ("" if one.price_basis == "listed" else "price derived")
        if not kept:
            why += f"; not tried: {quote.max_attempts} are enough"
        cells = (str(place), one.offer or one.tier, f"${one.price_usd}", f"{one.expected_seconds} s", why.lstrip("; "))
        table.add_row(*cells, style="" if kept else "dim")
    console.print("", table, sep="\n")


def _table(*columns: str) -> Any:
    from rich.table import Table  # noqa: PLC0415

    return Table(*columns, box=None, padding=(0, 2), header_style="dim")
