"""The verbs of the command line; an error is one clear line and exit 2, never a stack trace."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import rich_click as click

from proxy.core.errors import ReelayError
from proxy.settings import Settings, read_settings, with_files

T = TypeVar("T")

ACTOR = "cli"
"""Who the admins' log names for what is done here."""


class _OneLine(click.RichGroup):
    """Turns our own errors into one line and exit 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ReelayError as exc:
            click.echo(f"reelay: {exc}", err=True)
            sys.exit(2)


@click.group(cls=_OneLine, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="reelay")
def main() -> None:
    """One video API before many sellers, on a bill that can be trusted."""


_sandbox = click.option("--sandbox", is_flag=True, help="Use the sandbox's own files.")
_json_output = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@main.command()
@click.option("--sandbox", is_flag=True, help="Simulate every seller; no money is spent.")
def serve(sandbox: bool) -> None:
    """Serve the API and work off what is due, until SIGTERM."""
    from proxy.app import serve as run  # noqa: PLC0415 - the other verbs need none of it

    settings = read_settings(os.environ, sandbox=sandbox)
    import uvloop  # noqa: PLC0415 - the same

    uvloop.run(run(settings, os.environ, sandbox=sandbox))


@main.command()
@_sandbox
def migrate(sandbox: bool) -> None:
    """Bring the database to this version's schema."""
    from proxy.store import migrations  # noqa: PLC0415

    path = read_settings(os.environ, sandbox=sandbox).database_path
    path.parent.mkdir(parents=True, exist_ok=True)
    migrations.migrate(path)
    click.echo(f"{path} is at schema {migrations.HEAD}.")


@main.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check(file: Path | None) -> None:
    """Check the rules: every mistake with its line, every doubt as a warning."""
    from proxy.app import read_rules  # noqa: PLC0415

    path = file or read_settings(os.environ).rules
    rules = read_rules(path, with_files(os.environ))
    for warning in rules.warnings:
        click.echo(f"warning: {warning}")
    on = [account.name for account in rules.accounts.values() if account.on]
    click.echo(
        f"{path}: {len(rules.rules)} rules, {len(rules.offers)} offers, {len(rules.models)} models; "
        f"providers on: {', '.join(on) or 'none'}"
    )


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8090, show_default=True)
@click.option("--folder", default="data/sandbox-sellers", show_default=True, type=click.Path(path_type=Path))
@click.option("--speed", default=40.0, show_default=True, help="How many times faster than real sellers.")
@click.option("--ready-made-clip", is_flag=True, help="Answer everything with one small clip, for measurements.")
def sandbox(host: str, port: int, folder: Path, speed: float, ready_made_clip: bool) -> None:
    """Run the simulated sellers alone; point a provider's base_url at them."""
    from proxy.simulator.app import serve_sandbox  # noqa: PLC0415

    async def run() -> None:
        async with serve_sandbox(
            host=host, port=port, folder=folder, clock_factor=1 / speed, ready_made_clip=ready_made_clip
        ) as origin:
            click.echo(f"Simulated sellers at {origin}; books at {origin}/admin/books")
            await _until_signal()

    _run(run())


async def _until_signal() -> None:
    import signal  # noqa: PLC0415

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


@main.command()
@click.option("--out", default="demo.mp4", show_default=True, type=click.Path(path_type=Path))
@click.argument("prompt", default='A paper boat sails a rain-swept street. A child says: "Go!"')
def demo(out: Path, prompt: str) -> None:
    """Make one video in a sandbox of its own: the plan, the progress, the bill and the file."""
    from proxy.demo import run  # noqa: PLC0415

    _run(run(prompt, out))


def _with_store(sandbox: bool, work: Callable[[Any, Settings], Awaitable[T]]) -> T:
    """Runs against the database, beside a server that may have it open."""
    from proxy.app import open_store  # noqa: PLC0415

    settings = read_settings(os.environ, sandbox=sandbox)

    async def run() -> T:
        async with open_store(settings) as store:
            return await work(store, settings)

    return _run(run())


def _registered(sandbox: bool, work: Callable[[Any], Awaitable[T]]) -> T:
    from proxy.app import registrar  # noqa: PLC0415

    return _with_store(sandbox, lambda store, settings: work(registrar(store, settings)))


def _print_rows(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
        return
    if not rows:
        click.echo("none")
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(*rows[0], box=None, header_style="bold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 240).print(table)


# Tenants and keys


@main.group()
def tenants() -> None:
    """Teams that are billed."""


@tenants.command("list")
@_sandbox
@_json_output
def tenants_list(sandbox: bool, as_json: bool) -> None:
    """List them, the oldest first."""
    from proxy.api.admin import shown_tenant  # noqa: PLC0415

    found = _registered(sandbox, lambda registrar: registrar.tenants())
    _print_rows([shown_tenant(tenant) for tenant in found], as_json=as_json)


_tenant_options = [
    click.option("--markup", help='Ratio on the seller\'s price: "0.15" is 15 %.'),
    click.option("--allow-filter-off/--no-filter-off", default=None, help="May ask for content_filter: false."),
    click.option("--require-end-user-id/--no-end-user-id", default=None, help="Must name an end user."),
    click.option("--reason", help="Kept in the admins' log."),
]


def _with_tenant_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_tenant_options):
        command = option(command)
    return command


@tenants.command("create")
@click.argument("name")
@_with_tenant_options
@_sandbox
def tenants_create(name: str, sandbox: bool, **wish: Any) -> None:
    """Make a tenant and print its id."""
    from proxy.services.accounts import TenantChange  # noqa: PLC0415

    change = TenantChange(name=name, **wish)
    tenant = _registered(sandbox, lambda registrar: registrar.create_tenant(ACTOR, change))
    click.echo(tenant.id)


@tenants.command("change")
@click.argument("tenant")
@click.option("--name", help="A new name.")
@_with_tenant_options
@_sandbox
def tenants_change(tenant: str, sandbox: bool, **wish: Any) -> None:
    """Change a tenant, named by id or name."""
    from proxy.services.accounts import TenantChange  # noqa: PLC0415

    change = TenantChange(**wish)
    _registered(sandbox, lambda registrar: registrar.change_tenant(ACTOR, tenant, change))


@main.group()
def keys() -> None:
    """API keys of tenants."""


@keys.command("create")
@click.option("--tenant", default="default", show_default=True, help="Id or name.")
@click.option("--name", default="", help="What the key is for.")
@click.option("--scope", "scopes", multiple=True, default=("videos",), show_default=True, help="videos, reports, admin")
@click.option("--expires-at", type=int, help="Unix seconds.")
@click.option("--reason", help="Kept in the admins' log.")
@_sandbox
def keys_create(sandbox: bool, **wish: Any) -> None:
    """Make a key and print it, this once."""
    from proxy.services.accounts import KeyWish  # noqa: PLC0415

    made = _registered(sandbox, lambda registrar: registrar.create_key(ACTOR, KeyWish(**wish)))
    click.echo(made.key)


@keys.command("list")
@click.option("--tenant", help="Id or name; all without it.")
@_sandbox
@_json_output
def keys_list(tenant: str | None, sandbox: bool, as_json: bool) -> None:
    """List keys by id; the keys themselves are kept nowhere."""
    from proxy.api.admin import shown_key  # noqa: PLC0415

    found = _registered(sandbox, lambda registrar: registrar.keys(tenant))
    _print_rows([shown_key(key) for key in found], as_json=as_json)


@keys.command("revoke")
@click.argument("key_id")
@click.option("--reason", help="Kept in the admins' log.")
@_sandbox
def keys_revoke(key_id: str, reason: str | None, sandbox: bool) -> None:
    """Revoke a key by its id; servers notice within seconds."""
    _registered(sandbox, lambda registrar: registrar.revoke_key(ACTOR, key_id, reason))


# Operators


@main.group()
def attempts() -> None:
    """Purchases at sellers."""


@attempts.command("list")
@click.option("--state", default="unknown", show_default=True)
@click.option("--limit", default=100, show_default=True)
@_sandbox
@_json_output
def attempts_list(state: str, limit: int, sandbox: bool, as_json: bool) -> None:
    """List attempts in a state, the oldest first; those of unknown end may have cost something."""
    from proxy.core.clock import system_clock  # noqa: PLC0415
    from proxy.services.overview import attempts_in  # noqa: PLC0415

    found = _with_store(sandbox, lambda store, _: attempts_in(store, state, most=limit, now_us=system_clock()))
    _print_rows([msgspec.to_builtins(line) for line in found], as_json=as_json)


@main.group()
def report() -> None:
    """What was spent."""


@report.command("spend")
@click.option("--by", default="tenant", show_default=True, help="A list of tenant, end_user, provider, model, day.")
@click.option("--start", help="First day, UTC; without it the first of this month.")
@click.option("--end", help="Day after the last, UTC; without it tomorrow.")
@click.option("--tenant", help="Id; all without it.")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@_sandbox
def report_spend(by: str, start: str | None, end: str | None, tenant: str | None, form: str, sandbox: bool) -> None:
    """Sum the ledger, exact to the micro-dollar."""
    from proxy.api.reports import as_csv, as_object  # noqa: PLC0415
    from proxy.core.clock import system_clock  # noqa: PLC0415
    from proxy.services.report import read_query, spend  # noqa: PLC0415

    query = read_query(by, start, end, tenant, now_us=system_clock())
    lines = _with_store(sandbox, lambda store, _: spend(store, query))
    if form == "csv":
        click.echo(as_csv(query, lines), nl=False)
    elif form == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(as_object(query, lines)), indent=2).decode())
    else:
        _print_rows([msgspec.to_builtins(line) for line in lines], as_json=False)
