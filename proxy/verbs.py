"""The verbs that work on the database, beside a server that may have it open."""

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec
import rich_click as click

from proxy import completing
from proxy.core.attempt import AttemptState
from proxy.core.budget import BudgetScope, Period
from proxy.core.errors import ConfigError
from proxy.settings import Settings, WithFiles, read_settings

T = TypeVar("T")

PLAIN_WIDTH = 240
"""Columns where the output is no terminal."""

ACTOR = "cli"
"""Who the admins' log names for what is done here."""

SANDBOX = click.option("--sandbox", is_flag=True, help="Use the sandbox's own files.")
JSON_OUTPUT = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def log_to_stderr(settings: Settings) -> None:
    """People are told what goes wrong beside the result; whatever else collects it gets a server's log."""
    from proxy.telemetry import logs  # noqa: PLC0415

    if sys.stderr.isatty():
        logs.configure("console", level="warning", stream=sys.stderr)
    else:
        logs.configure(settings.log, stream=sys.stderr)


def has_database(sandbox: bool) -> bool:
    """Whether there is one yet; of a server's nobody knows before it is asked."""
    place = read_settings(os.environ, sandbox=sandbox).database
    return not isinstance(place, Path) or place.is_file()


@contextlib.contextmanager
def busy(what: str) -> Iterator[None]:
    """Tells on a terminal what lasts, and for how long already; nothing else may be printed meanwhile."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as shown:
        shown.add_task(what, total=None)
        yield


def with_store(sandbox: bool, work: Callable[[Any, Settings], Awaitable[T]], *, may_make: bool = False) -> T:
    """
    Runs against the database, beside a server that may have it open.

    Raises ConfigError where there is none, for in an empty one all is well; unless it may be made.
    """
    from proxy.opening import open_store  # noqa: PLC0415
    from proxy.services.told import tell_changes  # noqa: PLC0415
    from proxy.store.observed import Observed  # noqa: PLC0415

    settings = read_settings(os.environ, sandbox=sandbox)
    log_to_stderr(settings)
    if not may_make and not has_database(sandbox):
        raise ConfigError(f"there is no database at {settings.database}; REELAY_DATABASE_URL says where it is")

    async def run() -> T:
        async with open_store(settings) as store:
            return await work(Observed(store, tell_changes), settings)

    return asyncio.run(run())


def _registered(sandbox: bool, work: Callable[[Any], Awaitable[T]], *, may_make: bool = False) -> T:
    from proxy.opening import registrar  # noqa: PLC0415

    return with_store(sandbox, lambda store, settings: work(registrar(store, settings)), may_make=may_make)


def read_written_rules(sandbox: bool) -> Any:
    """Those of the file, as a server would read them."""
    from proxy.opening import PlayKeys, read_rules  # noqa: PLC0415

    path = read_settings(os.environ, sandbox=sandbox).rules
    return read_rules(path, PlayKeys() if sandbox else WithFiles(os.environ))


def print_json(told: Any) -> None:
    """As people read it."""
    click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())


def print_rows(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """As a table, or JSON."""
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("none")
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    # What kind of thing these are is known to whoever asked for them.
    columns = [name for name in rows[0] if name != "object"]
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        table.add_row(*("" if row[name] is None else str(row[name]) for name in columns))
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table)


# Tenants and keys


def _as_limit(_: click.Context, option: click.Parameter, text: str | None) -> int | msgspec.UnsetType | None:
    """None for `none`, which takes a limit away; unset where nothing is said."""
    if text is None or text == "none":
        return msgspec.UNSET if text is None else None
    if not re.fullmatch("-?[0-9]{1,9}", text):
        raise click.BadParameter("It is a whole number, or none.", param=option)
    return int(text)


_limit_options = [
    click.option(
        "--requests-per-minute", metavar="N", callback=_as_limit, help='For each server; "none" for no limit.'
    ),
    click.option("--videos-in-flight", metavar="N", callback=_as_limit, help='At once; "none" for no limit.'),
]


def _with_options(options: list[Callable[..., Any]]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.group()
def tenants() -> None:
    """Teams that are billed."""


@tenants.command("list")
@SANDBOX
@JSON_OUTPUT
def tenants_list(sandbox: bool, as_json: bool) -> None:
    """List them, the oldest first."""
    from proxy.api.admin import shown_tenant  # noqa: PLC0415

    found = _registered(sandbox, lambda registrar: registrar.tenants())
    print_rows([shown_tenant(tenant) for tenant in found], as_json=as_json)


_tenant_options = [
    click.option("--markup", help='Ratio on the seller\'s price: "0.15" is 15 %.'),
    click.option("--allow-filter-off/--no-filter-off", default=None, help="May ask for content_filter: false."),
    click.option("--require-end-user-id/--no-end-user-id", default=None, help="Must name an end user."),
    *_limit_options,
    click.option("--reason", help="Kept in the admins' log."),
]


@tenants.command("create")
@click.argument("name")
@_with_options(_tenant_options)
@SANDBOX
def tenants_create(name: str, sandbox: bool, **wish: Any) -> None:
    """Make a tenant and print its id."""
    from proxy.services.accounts import TenantChange  # noqa: PLC0415

    change = TenantChange(name=name, **wish)
    tenant = _registered(sandbox, lambda registrar: registrar.create_tenant(ACTOR, change), may_make=True)
    click.echo(tenant.id)


@tenants.command("change")
@click.argument("tenant", shell_complete=completing.tenants)
@click.option("--name", help="A new name.")
@_with_options(_tenant_options)
@SANDBOX
def tenants_change(tenant: str, sandbox: bool, **wish: Any) -> None:
    """Change a tenant, named by id or name."""
    from proxy.services.accounts import TenantChange  # noqa: PLC0415

    change = TenantChange(**wish)
    changed = _registered(sandbox, lambda registrar: registrar.change_tenant(ACTOR, tenant, change))
    click.echo(f"{changed.id} is changed.")


@tenants.command("erase-end-user")
@click.argument("tenant", shell_complete=completing.tenants)
@click.argument("name")
@click.option("--reason", help="Kept in the admins' log; may not hold the name.")
@SANDBOX
def tenants_erase_end_user(tenant: str, name: str, reason: str | None, sandbox: bool) -> None:
    """
    Erase an end user of a tenant: the name, and the prompt, metadata and film of every video.

    Videos under way are cancelled first, and budgets made for it go too. Bills stay, under a surrogate. There is no
    way back.
    """
    from proxy.core.ids import time_hex  # noqa: PLC0415
    from proxy.outside.storage import open_storage  # noqa: PLC0415
    from proxy.services.erasure import Erased, ErasureWish, erase_end_user  # noqa: PLC0415

    wish = ErasureWish(end_user_id=name, reason=reason)

    def erase(store: Any, settings: Settings) -> Awaitable[Erased]:
        storage = open_storage(settings.storage_url)
        return erase_end_user(store, storage, time_hex, lambda *_: None, actor=ACTOR, tenant=tenant, wish=wish)

    with busy("Erasing"):
        erased = with_store(sandbox, erase)
    click.echo(f"{erased.videos} videos are erased; the ledger calls their end user {erased.end_user}.")


@click.group()
def keys() -> None:
    """API keys of tenants."""


@keys.command("create")
@click.option("--tenant", default="default", show_default=True, shell_complete=completing.tenants, help="Id or name.")
@click.option("--name", default="", help="What the key is for.")
@click.option("--scope", "scopes", multiple=True, default=("videos",), show_default=True, help="videos, reports, admin")
@click.option("--expires-at", type=int, help="Unix seconds.")
@_with_options(_limit_options)
@click.option("--reason", help="Kept in the admins' log.")
@SANDBOX
def keys_create(sandbox: bool, **wish: Any) -> None:
    """Make a key and print it, this once."""
    from proxy.services.accounts import KeyWish  # noqa: PLC0415

    made = _registered(sandbox, lambda registrar: registrar.create_key(ACTOR, KeyWish(**wish)), may_make=True)
    click.echo(made.key)


@keys.command("change")
@click.argument("key_id")
@_with_options(_limit_options)
@click.option("--reason", help="Kept in the admins' log.")
@SANDBOX
def keys_change(key_id: str, sandbox: bool, **wish: Any) -> None:
    """Change a key's limits by its id; servers notice within seconds."""
    from proxy.services.accounts import KeyChange  # noqa: PLC0415

    changed = _registered(sandbox, lambda registrar: registrar.change_key(ACTOR, key_id, KeyChange(**wish)))
    click.echo(f"{changed.id} is changed.")


@keys.command("list")
@click.option("--tenant", shell_complete=completing.tenants, help="Id or name; all without it.")
@SANDBOX
@JSON_OUTPUT
def keys_list(tenant: str | None, sandbox: bool, as_json: bool) -> None:
    """List keys by id; the keys themselves are kept nowhere."""
    from proxy.api.admin import shown_key  # noqa: PLC0415

    found = _registered(sandbox, lambda registrar: registrar.keys(tenant))
    print_rows([shown_key(key) for key in found], as_json=as_json)


@keys.command("revoke")
@click.argument("key_id")
@click.option("--reason", help="Kept in the admins' log.")
@SANDBOX
def keys_revoke(key_id: str, reason: str | None, sandbox: bool) -> None:
    """Revoke a key by its id; servers notice within seconds."""
    _registered(sandbox, lambda registrar: registrar.revoke_key(ACTOR, key_id, reason))
    click.echo(f"{key_id} is revoked.")


@click.group()
def budgets() -> None:
    """What tenants, keys and end users may spend."""


def _allotted(sandbox: bool, work: Callable[[Any], Awaitable[T]]) -> T:
    from proxy.core.ids import time_hex  # noqa: PLC0415
    from proxy.services.allowances import Treasurer  # noqa: PLC0415

    return with_store(sandbox, lambda store, _: work(Treasurer(store, store.clock, time_hex)))


def _shown_budget(allowance: Any) -> dict[str, Any]:
    from proxy.api.admin import budget_object  # noqa: PLC0415
    from proxy.core.clock import system_clock  # noqa: PLC0415

    shown: dict[str, Any] = msgspec.to_builtins(budget_object(allowance, now_us=system_clock()))
    return shown


@budgets.command("list")
@click.option("--tenant", shell_complete=completing.tenants, help="Id or name; all without it.")
@SANDBOX
@JSON_OUTPUT
def budgets_list(tenant: str | None, sandbox: bool, as_json: bool) -> None:
    """List budgets, and how they stand."""
    found = _allotted(sandbox, lambda treasurer: treasurer.list(tenant))
    rows = [_shown_budget(one) for one in found]
    if not as_json:
        rows = [row | {"warn_at": " ".join(row["warn_at"])} for row in rows]
    print_rows(rows, as_json=as_json)


_warn_at = click.option("--warn-at", multiple=True, help='Share of the limit that is told of, such as "0.8"; several.')


@budgets.command("create")
@click.option("--tenant", default="default", show_default=True, shell_complete=completing.tenants, help="Id or name.")
@click.option(
    "--scope", type=click.Choice(get_args(BudgetScope)), default="tenant", show_default=True, help="Whose spending."
)
@click.option("--key", help="Id of the key, for the scope key.")
@click.option("--end-user-id", help="Name of the end user, for the scope end_user.")
@click.option("--period", type=click.Choice(get_args(Period)), required=True, help="In UTC.")
@click.option("--limit-usd", required=True, help='Such as "250".')
@click.option("--shadow", is_flag=True, help="Count and tell, but refuse nothing.")
@_warn_at
@click.option("--reason", help="Kept in the admins' log.")
@SANDBOX
def budgets_create(sandbox: bool, **wish: Any) -> None:
    """Make a budget and print its id; it counts what its period has seen already."""
    from proxy.services.allowances import BudgetWish  # noqa: PLC0415

    made = _allotted(sandbox, lambda treasurer: treasurer.create(ACTOR, BudgetWish(**wish)))
    click.echo(made.budget.id)


@budgets.command("change")
@click.argument("budget_id")
@click.option("--limit-usd", help="A new limit.")
@click.option("--shadow/--hard", default=None, help="Whether it refuses nothing.")
@_warn_at
@click.option("--no-warnings", is_flag=True, help="Tell of no share any more.")
@click.option("--raise-usd", help='On top of the limit for a while; "0" ends it.')
@click.option("--raise-until", type=int, help="Until when, in Unix seconds.")
@click.option("--reason", help="Kept in the admins' log.")
@SANDBOX
def budgets_change(budget_id: str, sandbox: bool, warn_at: tuple[str, ...], no_warnings: bool, **wish: Any) -> None:
    """Change a budget by its id; it holds at once for whatever is accepted then."""
    from proxy.services.allowances import BudgetChange  # noqa: PLC0415

    change = BudgetChange(**wish, warn_at=() if no_warnings else warn_at or None)
    _allotted(sandbox, lambda treasurer: treasurer.change(ACTOR, budget_id, change))
    click.echo(f"{budget_id} is changed.")


@budgets.command("remove")
@click.argument("budget_id")
@click.option("--reason", help="Kept in the admins' log.")
@SANDBOX
def budgets_remove(budget_id: str, reason: str | None, sandbox: bool) -> None:
    """Remove a budget by its id; it bounds nothing from then on."""
    _allotted(sandbox, lambda treasurer: treasurer.remove(ACTOR, budget_id, reason))
    click.echo(f"{budget_id} is removed.")


# Operators


@click.group()
def attempts() -> None:
    """Purchases at sellers."""


@attempts.command("list")
@click.option(
    "--state",
    default="unknown",
    show_default=True,
    type=click.Choice(get_args(AttemptState)),
    help="What became of them.",
)
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 1000), help="The most to show.")
@SANDBOX
@JSON_OUTPUT
def attempts_list(state: str, limit: int, sandbox: bool, as_json: bool) -> None:
    """List attempts in a state, the oldest first; those of unknown end may have cost something."""
    from proxy.core.clock import system_clock  # noqa: PLC0415
    from proxy.services.overview import attempts_in  # noqa: PLC0415

    found = with_store(sandbox, lambda store, _: attempts_in(store, state, most=limit, now_us=system_clock()))
    print_rows([msgspec.to_builtins(line) for line in found], as_json=as_json)


@attempts.command("resolve")
@click.argument("video")
@click.argument("number", type=click.IntRange(1))
@click.option("--bought", is_flag=True, help="The provider took the order; this or the next must be said.")
@click.option("--not-bought", is_flag=True, help="It did not, and never will.")
@click.option("--seller-id", help="With --bought: the order's id there; it is polled from now on.")
@click.option(
    "--cost-usd",
    help="With --bought: what the provider took; without it or an id, the dearest. The video goes on elsewhere.",
)
@click.option("--reason", required=True, help="How this was found out; kept in the admins' log.")
@SANDBOX
def attempts_resolve(video: str, number: int, sandbox: bool, bought: bool, not_bought: bool, **found: Any) -> None:
    """
    Say what became of an attempt that is unknown or lost, once the provider's own books have told you.

    A wrong --seller-id is put right by saying the right one, or --not-bought, while the attempt still runs.
    """
    from proxy.core.ids import time_hex  # noqa: PLC0415
    from proxy.core.money import usd_text  # noqa: PLC0415
    from proxy.services.resolve import Finding, resolve  # noqa: PLC0415

    if bought == not_bought:
        raise click.UsageError("Say either --bought or --not-bought.", click.get_current_context())
    finding = Finding(bought=bought, **found)
    resolved = with_store(
        sandbox,
        lambda store, _: resolve(store, time_hex, actor=ACTOR, video_id=video, number=number, finding=finding),
    )
    cost = resolved.attempt.cost_microusd
    told = "at a cost to be told" if cost is None else f"at a cost of ${usd_text(cost)}"
    click.echo(
        f"Attempt {number} of {video} is {resolved.attempt.state}, {told}; the video is {resolved.video.status}."
    )
