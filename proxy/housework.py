"""The verbs that look after what is kept: prune and backup."""

import asyncio
import os
from pathlib import Path

import msgspec
import rich_click as click

from proxy.core.errors import ConfigError
from proxy.settings import read_settings
from proxy.verbs import JSON_OUTPUT, SANDBOX, busy, log_to_stderr, print_json, read_written_rules


@click.command()
@click.option("--dry-run", is_flag=True, help="Remove nothing; say what would go.")
@JSON_OUTPUT
@SANDBOX
def prune(dry_run: bool, as_json: bool, sandbox: bool) -> None:
    """
    Remove what has outlived the rules' `retention`: films, prompts, and rows that nobody needs.

    A server does the same every few minutes. What it does not do is to look through the storage for films that
    no video refers to, left behind by a process that was killed; those older than a day go too.
    """
    from proxy.opening import open_store  # noqa: PLC0415
    from proxy.outside.storage import open_storage  # noqa: PLC0415
    from proxy.services.housekeeping import Kept, LeftBehind, keep_house, remove_left_behind  # noqa: PLC0415

    settings = read_settings(os.environ, sandbox=sandbox)
    log_to_stderr(settings)
    rules = read_written_rules(sandbox)

    async def run() -> tuple[Kept, LeftBehind]:
        storage = open_storage(settings.storage_url)
        async with open_store(settings) as store:
            kept = await keep_house(store, storage, rules.retention, dry_run=dry_run)
            return kept, await remove_left_behind(store, storage, dry_run=dry_run)

    with busy("Looking through what is kept"):
        kept, left = asyncio.run(run())
    if as_json:
        told = {"dry_run": dry_run, **msgspec.structs.asdict(kept), "left_behind": msgspec.structs.asdict(left)}
        print_json(told)
        return
    done = "would be" if dry_run else "were"
    click.echo(f"{kept.files} expired films, {kept.file_bytes} bytes, {done} removed.")
    if kept.files_stuck:
        click.echo(f"{kept.files_stuck} expired films could not be removed.")
    click.echo(f"{kept.prompts} prompts {done} erased.")
    rows = f"{kept.idempotency_keys} idempotency keys, {kept.outcomes} outcomes and {kept.counters} counters"
    click.echo(f"{rows} {done} dropped.")
    click.echo(f"{left.files} films that no video refers to, {left.file_bytes} bytes, {done} removed.")
    if left.not_ours:
        click.echo(f"{left.not_ours} films of videos that this database does not know are left alone.")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@SANDBOX
def backup(file: Path, sandbox: bool) -> None:
    """
    Copy the database to FILE, beside a server that has it open; nothing is overwritten.

    A server starts from such a copy with `serve --after-restore` only: it is older than what has been bought.
    """
    from proxy.core.clock import system_clock  # noqa: PLC0415
    from proxy.store.backup import back_up  # noqa: PLC0415

    settings = read_settings(os.environ, sandbox=sandbox)
    if not isinstance(settings.database, Path):
        raise ConfigError(
            "PostgreSQL is backed up by its own pg_dump; after a restore start `reelay serve --after-restore` first"
        )
    with busy("Copying"):
        size_bytes = back_up(settings.database, file, at_us=system_clock())
    click.echo(f"{file} holds the database as it is now, {size_bytes} bytes.")
    if settings.secret is None:
        secret = settings.data_folder.resolve() / "secret"
        click.echo(f"Keep a copy of {secret} too, elsewhere: without it no API key opens anything.")
    else:
        click.echo("Keep REELAY_SECRET too, elsewhere: without it no API key opens anything.")
    click.echo(f"Films are not in it; they lie in {settings.storage_url}.")
