"""The verbs of those who keep the books: reports, statements, refunds, prices, the audit and the admins' log."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import msgspec
import rich_click as click

from proxy import completing
from proxy.core.errors import ConfigError, InvalidValue
from proxy.core.offer import PriceBasis
from proxy.core.video import RESOLUTIONS, TIERS, Operation
from proxy.settings import Settings
from proxy.verbs import (
    ACTOR,
    JSON_OUTPUT,
    SANDBOX,
    busy,
    has_database,
    print_json,
    print_rows,
    read_written_rules,
    with_store,
)

if TYPE_CHECKING:
    from proxy.services.acts import Clerk
    from proxy.services.report import SpendQuery

T = TypeVar("T")


@click.command()
@SANDBOX
@JSON_OUTPUT
def audit(sandbox: bool, as_json: bool) -> None:
    """
    Go through the books: balances, holds, budgets' counters, and every charge worked out again.

    Exit code 1 where something is not as it has to be.
    """
    from proxy.services.audit import go_through  # noqa: PLC0415

    with busy("Going through the books"):
        found = with_store(sandbox, lambda store, _: go_through(store))
    if as_json:
        print_json(found)
    else:
        click.echo(f"{found.charges} charges of ${found.charged_usd} were worked out again.")
        print_rows([msgspec.to_builtins(doubt) for doubt in found.doubts], as_json=False)
    if found.doubts:
        sys.exit(1)


@click.group()
def report() -> None:
    """What was spent."""


_span_options = [
    click.option("--start", help="First day, UTC; without it the first of this month."),
    click.option("--end", help="Day after the last, UTC; without it tomorrow."),
    click.option("--tenant", shell_complete=completing.tenants, help="Id or name; all without it."),
    click.option(
        "--format",
        "form",
        type=click.Choice(["table", "json", "csv"]),
        default="table",
        show_default=True,
        help="How it is printed.",
    ),
]


def _with_span(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_span_options):
        command = option(command)
    return command


def _by(usual: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    told = (
        "tenant, end_user, key, provider, model, tier, operation, resolution, rule, outcome, day, month, metadata.KEY"
    )
    return click.option("--by", default=usual, show_default=True, help=f"A list of {told}.")


@report.command("spend")
@_by("tenant")
@_with_span
@SANDBOX
@JSON_OUTPUT
def report_spend(by: str, form: str, sandbox: bool, as_json: bool, **span: str | None) -> None:
    """Sum what was settled, exact to the micro-dollar; what is held, and costs that nobody knows, stand apart."""
    _print_report(sandbox, by, "json" if as_json else form, _without_empty, span)


@report.command("savings")
@_by("rule")
@_with_span
@SANDBOX
@JSON_OUTPUT
def report_savings(by: str, form: str, sandbox: bool, as_json: bool, **span: str | None) -> None:
    """
    Tell what the delivered films would have cost at other sellers, by the prices at accept.

    at_first_usd: at the first offer of their plan; charged_usd less that is what falling back has cost. at_dearest_usd:
    at the dearest that could have made them; saved_usd is that less charged_usd. CSV and JSON tell all outcomes apart.
    """
    by = by if "outcome" in by.split(",") else f"{by},outcome"
    _print_report(sandbox, by, "json" if as_json else form, _savings, span)


def _savings(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from proxy.core.money import usd_text  # noqa: PLC0415
    from proxy.services.report import SPEND_COLUMNS  # noqa: PLC0415

    figures = ("videos", "charged_usd", "at_first_usd", "at_dearest_usd")

    def saved(row: dict[str, Any]) -> str:
        dearest, charged = (int(row[name].replace(".", "")) for name in ("at_dearest_usd", "charged_usd"))
        return usd_text(dearest - charged)

    delivered = [row for row in rows if row["outcome"] == "delivered"]
    groups = [name for name in (rows[0] if rows else ()) if name not in {"outcome", *SPEND_COLUMNS}]
    return [{name: row[name] for name in (*groups, *figures)} | {"saved_usd": saved(row)} for row in delivered]


def _print_report(
    sandbox: bool,
    by: str,
    form: str,
    shown: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
    span: dict[str, str | None],
) -> None:
    """`shown`: which columns are looked at; CSV and JSON tell all."""
    from proxy.api.reports import as_csv, as_object  # noqa: PLC0415
    from proxy.services.report import SpendPage, all_pages  # noqa: PLC0415

    asked = _asked(by, **span)

    async def sum_up(store: Any, _: Settings) -> None:
        query = await _of_tenant(store, asked)
        pages = all_pages(store, query)
        if form == "csv":
            async for text in as_csv(query, pages):
                click.echo(text, nl=False)
            return
        with busy("Summing up"):
            lines = [line async for page in pages for line in page]
        whole = as_object(query, SpendPage(lines=lines, next=None))
        if form == "json":
            print_json(whole)
        else:
            print_rows(shown(whole.data), as_json=False)

    with_store(sandbox, sum_up)


def _without_empty(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A terminal is narrow: columns of nothing but zeros are left out."""
    told = [name for name in (rows[0] if rows else ()) if any(row[name] not in {0, "0.000000"} for row in rows)]
    return [{name: row[name] for name in told} for row in rows]


def _asked(by: str, start: str | None, end: str | None, tenant: str | None) -> "SpendQuery":
    """Its tenant still as it was named."""
    from proxy.core.clock import system_clock  # noqa: PLC0415
    from proxy.services.report import read_query  # noqa: PLC0415

    try:
        return read_query(by, start, end, tenant, now_us=system_clock())
    except InvalidValue as exc:
        raise ConfigError(str(exc).replace("'group_by'", "--by").replace(f"'{exc.param}'", f"--{exc.param}")) from exc


async def _of_tenant(store: Any, query: "SpendQuery") -> "SpendQuery":
    from proxy.store.tenants import find_tenant  # noqa: PLC0415

    named = query.tenant_id
    if named is None:
        return query
    found = await store.read(lambda tx: find_tenant(tx, named))
    if found is None:
        raise ConfigError(f"There is no tenant {named!r}.")
    return msgspec.structs.replace(query, tenant_id=found.id)


# Statements


@click.group()
def statements() -> None:
    """What tenants pay for a month."""


@statements.command("list")
@click.option("--tenant", shell_complete=completing.tenants, help="Id or name; all without it.")
@SANDBOX
@JSON_OUTPUT
def statements_list(tenant: str | None, sandbox: bool, as_json: bool) -> None:
    """List statements of closed months, the newest first."""
    from proxy.services.accounts import known_tenant  # noqa: PLC0415
    from proxy.store.statements import numbers  # noqa: PLC0415

    def unit(tx: Any) -> list[tuple[str, str, str]]:
        return numbers(tx, None if tenant is None else known_tenant(tx, tenant).id)

    found = with_store(sandbox, lambda store, _: store.read(unit))
    print_rows([dict(zip(("number", "tenant", "month"), row, strict=True)) for row in found], as_json=as_json)


@statements.command("show")
@click.argument("tenant", shell_complete=completing.tenants)
@click.argument("month")
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "csv", "json", "charges"]),
    default="csv",
    show_default=True,
    help="How it is written; charges is a CSV of each charge and refund behind it.",
)
@click.option("--out", type=click.Path(path_type=Path), help="A file to write to.")
@SANDBOX
@JSON_OUTPUT
def statements_show(tenant: str, month: str, form: str, out: Path | None, sandbox: bool, as_json: bool) -> None:
    """
    Show what TENANT pays for MONTH, such as 2026-11; a draft while the month is open.

    HTML is laid out for A4: open it and print it, to paper or PDF.
    """
    from proxy.api import paper, statement_objects  # noqa: PLC0415
    from proxy.api.statements import SOFTWARE  # noqa: PLC0415
    from proxy.services.accounts import known_tenant  # noqa: PLC0415
    from proxy.services.charges import charges_file, read_month  # noqa: PLC0415
    from proxy.services.statements import end_user_names, statement_for  # noqa: PLC0415

    form = "json" if as_json else form

    async def written(store: Any, _: Settings) -> str:
        tenant_id = (await store.read(lambda tx: known_tenant(tx, tenant))).id
        if form == "charges":
            return "".join([text async for text in charges_file(store, tenant_id, read_month(month))])
        statement = await statement_for(store, tenant_id, month, software=SOFTWARE)
        names = await end_user_names(store, statement)
        if form == "json":
            return (
                msgspec.json.format(
                    msgspec.json.encode(statement_objects.as_object(statement, names)), indent=2
                ).decode()
                + "\n"
            )
        return paper.as_html(statement, names) if form == "html" else statement_objects.as_csv(statement, names)

    text = with_store(sandbox, written)
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"{out} cannot be written: {exc.strerror}") from exc


@statements.command("close")
@click.argument("month")
@click.option("--reason", help="Kept in the admins' log.")
@SANDBOX
@JSON_OUTPUT
def statements_close(month: str, reason: str | None, sandbox: bool, as_json: bool) -> None:
    """
    Make every tenant's statement of MONTH, such as 2026-11, and let nothing into that month any more.

    Months are closed in their order, from ten minutes after their end. There is no way back: what is corrected later
    stands in the month in which it is corrected.
    """
    from proxy.api.statement_objects import cents_text  # noqa: PLC0415
    from proxy.api.statements import SOFTWARE  # noqa: PLC0415
    from proxy.services.statements import Closed, close_month  # noqa: PLC0415

    def close(store: Any, _: Settings) -> Awaitable[Closed]:
        return close_month(store, _clerk(store), actor=ACTOR, month=month, reason=reason, software=SOFTWARE)

    with busy(f"Closing {month}"):
        closed = with_store(sandbox, close)
    rows = [
        {"number": one.number, "tenant": one.tenant_id, "total_usd": cents_text(one.total_cents)}
        for one in closed.statements
    ]
    print_rows(rows, as_json=as_json)


def _clerk(store: Any) -> "Clerk":
    from proxy.core.ids import time_hex  # noqa: PLC0415
    from proxy.services.acts import Clerk  # noqa: PLC0415

    return Clerk(store.clock, time_hex)


@click.command()
@click.argument("video")
@click.argument("amount_usd")
@click.option("--attempt", type=click.IntRange(1), help="Which was charged, where several were.")
@click.option("--reason", required=True, help="Stands on the tenant's statement.")
@SANDBOX
def refund(video: str, sandbox: bool, **wish: Any) -> None:
    """
    Give a tenant back what VIDEO was charged, or a part of it.

    It stands in the month in which it is made, whatever month the charge stands in; no budget gets it back.
    """
    from proxy.core.money import usd_text  # noqa: PLC0415
    from proxy.services.refunds import RefundWish  # noqa: PLC0415
    from proxy.services.refunds import refund as give_back  # noqa: PLC0415

    made = with_store(
        sandbox,
        lambda store, _: give_back(store, _clerk(store), actor=ACTOR, video_id=video, wish=RefundWish(**wish)),
    )
    click.echo(f"{made.id}: ${usd_text(made.amount_microusd)}; ${usd_text(made.left_microusd)} of the charge are left.")


@click.command("log")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 1000), help="The most to show.")
@SANDBOX
@JSON_OUTPUT
def log(limit: int, sandbox: bool, as_json: bool) -> None:
    """List what admins changed, and why, the newest first."""
    from proxy.api.books import act_object  # noqa: PLC0415
    from proxy.store.tenants import acts  # noqa: PLC0415

    found = with_store(sandbox, lambda store, _: store.read(lambda tx: acts(tx, most=limit)))
    rows = [msgspec.to_builtins(act_object(act)) for act in found]
    if not as_json:
        rows = [{name: row[name] for name in ("at", "actor", "action", "subject", "reason")} for row in rows]
    print_rows(rows, as_json=as_json)


# Prices


@click.group()
def prices() -> None:
    """What sellers charge: of the catalogue, of the rules, and as set here."""


def _appraised(sandbox: bool, work: Callable[[Any], Awaitable[T]]) -> T:
    from proxy.core.ids import time_hex  # noqa: PLC0415
    from proxy.services.pricing import Appraiser  # noqa: PLC0415

    return with_store(sandbox, lambda store, _: work(Appraiser(store, store.clock, time_hex)))


@prices.command("list")
@click.option("--provider", shell_complete=completing.providers, help="Of this one alone.")
@click.option("--model", help="Of this one alone, by any of its names.")
@SANDBOX
@JSON_OUTPUT
def prices_list(sandbox: bool, as_json: bool, **asked: str | None) -> None:
    """List every dated price, where it comes from and whether it is in force today."""
    from proxy.core.clock import system_clock  # noqa: PLC0415
    from proxy.policy.overrides import lay_over  # noqa: PLC0415
    from proxy.services.pricing import book, today  # noqa: PLC0415
    from proxy.store.prices import live_overrides  # noqa: PLC0415

    rules = read_written_rules(sandbox)
    there = has_database(sandbox)
    found = with_store(sandbox, lambda store, _: store.read(live_overrides)) if there else []
    lines = book(lay_over(rules, found), found, today(system_clock()), **asked)
    print_rows([msgspec.to_builtins(line) if as_json else _short_price(line) for line in lines], as_json=as_json)


def _short_price(line: Any) -> dict[str, Any]:
    return {
        "id": line.id,
        "offer": f"{line.provider}/{line.model}/{line.tier}/{line.operation}",
        "resolution": f"{line.resolution}, with video" if line.with_video else line.resolution,
        "list_usd": line.usd_per_second or f"{line.usd_per_million_tokens} per million tokens",
        "discounted_usd": line.discounted_usd,
        "starts": line.starts,
        "counts": "today" if line.in_force else line.warning,
        "origin": line.origin,
        "basis": line.basis,
    }


@prices.command("set")
@click.option("--provider", required=True, shell_complete=completing.providers, help="As the rules call it.")
@click.option("--model", required=True, help="By its own name.")
@click.option("--tier", type=click.Choice(TIERS), default="standard", show_default=True, help="Of the offer.")
@click.option(
    "--operation", type=click.Choice(get_args(Operation)), default="text-to-video", show_default=True, help="The same."
)
@click.option("--resolution", type=click.Choice(RESOLUTIONS), required=True, help="Each has prices of its own.")
@click.option("--with-video", is_flag=True, help="Where a video is among the references.")
@click.option("--usd-per-second", help='List price, before the discount, such as "0.25".')
@click.option("--usd-per-million-tokens", help="In place of that, where the seller bills tokens.")
@click.option("--starts", help="First day, UTC, such as 2026-04-01; without it today.")
@click.option("--source", required=True, help="Where the figure stands.")
@click.option(
    "--basis", type=click.Choice(get_args(PriceBasis)), default="listed", show_default=True, help="Seen, or computed."
)
@click.option("--reason", help="Kept in the admins' log.")
@SANDBOX
def prices_set(sandbox: bool, **wish: Any) -> None:
    """
    Set a price over those of catalogue and rules, and print its id.

    Servers know it within seconds. What was accepted before keeps the price that it was accepted at.
    """
    from proxy.services.pricing import PriceWish  # noqa: PLC0415

    rules = read_written_rules(sandbox)
    made = _appraised(sandbox, lambda appraiser: appraiser.set(ACTOR, PriceWish(**wish), rules))
    click.echo(made.id)


@prices.command("remove")
@click.argument("price_id")
@click.option("--reason", help="Kept in the admins' log.")
@SANDBOX
def prices_remove(price_id: str, reason: str | None, sandbox: bool) -> None:
    """Remove a price that was set, by its id; what it overruled holds again."""
    _appraised(sandbox, lambda appraiser: appraiser.remove(ACTOR, price_id, reason))
    click.echo(f"{price_id} is removed.")
