"""The verbs of the command line; an error is one clear line and exit 2, never a stack trace."""

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import rich_click as click

from proxy import bookkeeping, completing, housework, verbs, watching
from proxy.core.errors import ConfigError, ReelayError
from proxy.explain import explain
from proxy.settings import WithFiles, read_settings
from proxy.verbs import SANDBOX

T = TypeVar("T")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="reelay")
@click.pass_context
def reelay(ctx: click.Context) -> None:
    """One video API before many sellers, on a bill that can be trusted."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main() -> None:
    """The command line; whatever is wrong is one line."""
    try:
        sys.exit(reelay.main(prog_name="reelay", standalone_mode=False))
    except ReelayError as exc:
        _give_up(str(exc))
    except click.UsageError as exc:
        asked = exc.ctx.command_path if exc.ctx else "reelay"
        _give_up(f"{exc.format_message()} See `{asked} --help`.")
    except click.ClickException as exc:
        _give_up(exc.format_message())
    except click.Abort:
        click.echo("reelay: stopped", err=True)
        sys.exit(130)


def _give_up(why: str) -> NoReturn:
    click.echo(f"reelay: {' '.join(why.split())}", err=True)
    sys.exit(2)


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@reelay.command()
@click.option("--sandbox", is_flag=True, help="Simulate every seller; no money is spent.")
@click.option(
    "--after-restore",
    is_flag=True,
    help="The database was restored from a backup: doubt whatever may have been bought since.",
)
@click.option("--new-secret", is_flag=True, help="The secret is lost: go on without any key that tenants have.")
@click.option("--new-storage", is_flag=True, help="The storage is lost: go on without the films that were there.")
def serve(sandbox: bool, **consent: bool) -> None:
    r"""
    Serve the API and work off what is due, until SIGTERM.

    Films lie at REELAY_STORAGE_URL. A bucket, s3://BUCKET/PREFIX, is reached as the usual variables say:

    \b
    AWS_REGION                    us-east-1 unless given
    AWS_ENDPOINT_URL              of a store that is not Amazon's, http or https
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
    AWS_SHARED_CREDENTIALS_FILE   a file with these instead, read anew every
                                  five minutes; AWS_PROFILE names its part
    AWS_VIRTUAL_HOSTED_STYLE_REQUEST=true
                                  the endpoint itself names the bucket, which
                                  else is the first part of the path

    Let the bucket's own rules remove uploads that stay incomplete for a day.
    """
    from proxy.app import Consent  # noqa: PLC0415 - the other verbs need none of it
    from proxy.app import serve as run  # noqa: PLC0415

    settings = read_settings(os.environ, sandbox=sandbox)
    import uvloop  # noqa: PLC0415 - the same

    uvloop.run(run(settings, os.environ, sandbox=sandbox, consent=Consent(**consent)))


@reelay.command()
def work() -> None:
    """
    Work off what is due without an API, beside servers on the same PostgreSQL database, until SIGTERM.

    Answers /healthz, /readyz and /metrics at REELAY_PORT. Files must lie where servers find them: in a bucket, or
    in a folder that all share.
    """
    from proxy.app import serve as run  # noqa: PLC0415 - the other verbs need none of it

    settings = read_settings(os.environ)
    if isinstance(settings.database, Path):
        raise ConfigError("SQLite takes one process, and `reelay serve` works too; more share a PostgreSQL database")
    import uvloop  # noqa: PLC0415 - the same

    uvloop.run(run(settings, os.environ, worker_alone=True))


@reelay.command()
@SANDBOX
def migrate(sandbox: bool) -> None:
    """
    Bring the database to this version's schema; a server does so by itself when it starts.

    On PostgreSQL servers of the version before go on working meanwhile, and beside those of this one.
    """
    from proxy.opening import prepare_database  # noqa: PLC0415
    from proxy.store import migrations  # noqa: PLC0415

    place = prepare_database(read_settings(os.environ, sandbox=sandbox))
    click.echo(f"{place if isinstance(place, Path) else 'The database'} is at schema {migrations.revision_of(place)}.")


@reelay.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@verbs.JSON_OUTPUT
def check(file: Path | None, as_json: bool) -> None:
    """
    Check the rules: every mistake with its line, every doubt as a warning.

    FILE is REELAY_RULES unless given. Where there is a database, a provider that is still owed attempts must
    be in the rules; prices that were set there, by `reelay prices`, are not looked at.
    """
    from proxy.opening import read_rules, vanished_in  # noqa: PLC0415
    from proxy.services.vanished import still_owed  # noqa: PLC0415

    settings = read_settings(os.environ)
    path = file or settings.rules
    rules = read_rules(path, WithFiles(os.environ))
    if not as_json:
        for warning in rules.warnings:
            click.echo(f"warning: {warning}")
    vanished = _run(vanished_in(settings, rules))
    if vanished:
        raise ConfigError(f"{path}: {still_owed(vanished)}")
    on = [account.name for account in rules.accounts.values() if account.on]
    if as_json:
        counts = {"rules": len(rules.rules), "offers": len(rules.offers), "models": len(rules.models)}
        verbs.print_json({"file": str(path), **counts, "providers_on": on, "warnings": rules.warnings})
        return
    click.echo(
        f"{path}: {len(rules.rules)} rules, {len(rules.offers)} offers, {len(rules.models)} models; "
        f"providers on: {', '.join(on) or 'none'}"
    )


@reelay.command()
@click.option(
    "--live",
    metavar="PROVIDER",
    shell_complete=completing.providers,
    help="Buy one short film there, and check what is assumed of its wire.",
)
@click.option("--max-usd", default="1", show_default=True, help="With --live: refuse what may cost more.")
@click.option("--yes", is_flag=True, help="With --live: do not ask before buying.")
@click.option("--out", type=click.Path(path_type=Path), help="With --live: keep the film here.")
@SANDBOX
@verbs.JSON_OUTPUT
def doctor(live: str | None, max_usd: str, yes: bool, out: Path | None, sandbox: bool, as_json: bool) -> None:
    """
    Check settings, rules, keys, database, books, storage, disks, addresses, sellers and clocks; exit 1 on a problem.

    It runs beside a server or without one, and changes nothing. Nothing is bought, unless --live says so: then one
    order of 4 seconds, at the provider's smallest size and lowest price, is sent once. It appears in no ledger and on
    no tenant's bill.
    """
    if live is not None:
        if as_json:
            raise ConfigError("--live tells in words alone; --json cannot stand beside it")
        if sandbox:
            raise ConfigError("--live buys; no sandbox does")
        _doctor_live(live, max_usd, yes=yes, out=out)
        return
    from proxy.checkup import checkup  # noqa: PLC0415

    async def run() -> list[Any]:
        found = []
        async for finding in checkup(os.environ, sandbox=sandbox):
            found.append(finding)
            if not as_json:
                colour = {"ok": "green", "warning": "yellow", "problem": "red"}[finding.verdict]
                click.echo(f"{click.style(f'{finding.verdict:7}', fg=colour)}  {finding.subject}: {finding.detail}")
                if finding.advice is not None:
                    click.echo(f"{'':9}{finding.advice}")
        return found

    found = _run(run())
    if as_json:
        verbs.print_json(found)
    if any(finding.verdict == "problem" for finding in found):
        sys.exit(1)


def _doctor_live(provider: str, max_usd: str, *, yes: bool, out: Path | None) -> None:
    from proxy.core.money import usd_text  # noqa: PLC0415
    from proxy.trial import prepare_trial, run_trial  # noqa: PLC0415

    trial = prepare_trial(os.environ, provider, max_usd, out)
    bought, spec = trial.purchase, trial.purchase.spec
    click.echo(
        f"One order of {bought.offer.id}: {spec.seconds} s, {spec.resolution}, {spec.aspect_ratio}; "
        f"${usd_text(bought.price_microusd)} by the catalogue, held to cost up to ${usd_text(bought.at_most_microusd)}."
    )
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError("nobody is here to ask; --yes buys without asking")
        click.confirm("Buy it, for real money?", abort=True)
    report = _run(run_trial(trial, click.echo))
    click.echo(report.ended.sentence)
    for fact, seen in report.judged:
        colour = {"confirmed": "green", "broken": "red", "not seen": "yellow"}[seen.verdict]
        detail = f" ({seen.detail})" if seen.detail else ""
        click.echo(f"{click.style(f'{seen.verdict:9}', fg=colour)}  {fact.says}{detail}")
    if not report.good:
        sys.exit(1)


@reelay.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8090, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option(
    "--folder",
    default="data/sandbox-sellers",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where clips and books are kept over a restart.",
)
@click.option(
    "--speed",
    default=40.0,
    show_default=True,
    type=click.FloatRange(0, 1e6, min_open=True),
    help="How many times faster than real sellers.",
)
@click.option("--ready-made-clip", is_flag=True, help="Answer everything with one small clip, for measurements.")
def sandbox(host: str, port: int, folder: Path, speed: float, ready_made_clip: bool) -> None:
    """
    Run the simulated sellers alone; point a provider's base_url at them.

    Each stands below its adapter's name: http://127.0.0.1:8090/ADAPTER. Their books, and failures on demand, are
    under /admin.
    """
    from proxy.simulator.app import serve_sandbox  # noqa: PLC0415

    async def run() -> None:
        async with serve_sandbox(
            host=host, port=port, folder=folder, clock_factor=1 / speed, ready_made_clip=ready_made_clip
        ) as origin:
            click.echo(f"Simulated sellers at {origin}; books at {origin}/admin/books")
            await _until_signal()

    try:
        _run(run())
    except OSError as exc:
        raise ConfigError(f"the sellers cannot be started at {host}:{port} in {folder}: {exc.strerror}") from exc


async def _until_signal() -> None:
    import signal  # noqa: PLC0415

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


@reelay.command()
@click.option(
    "--out", default="demo.mp4", show_default=True, type=click.Path(path_type=Path), help="Where the film goes."
)
@click.option(
    "--stay",
    is_flag=True,
    help="For Prometheus: begin once it has read /metrics, at REELAY_PORT, and serve on.",
)
@click.argument("prompt", default='A paper boat sails a rain-swept street. A child says: "Go!"')
def demo(out: Path, prompt: str, stay: bool) -> None:
    """Make one video in a sandbox of its own: the plan, the progress, the bill and the file."""
    from proxy.demo import run  # noqa: PLC0415

    _run(run(prompt, out, os.environ, stay=stay))


for command in (
    explain,
    verbs.tenants,
    verbs.keys,
    verbs.budgets,
    bookkeeping.prices,
    verbs.attempts,
    bookkeeping.report,
    bookkeeping.statements,
    bookkeeping.refund,
    bookkeeping.audit,
    bookkeeping.log,
    watching.top,
    housework.prune,
    housework.backup,
    completing.completion,
):
    reelay.add_command(command)
