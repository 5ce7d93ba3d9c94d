"""What a shell completes: the script that it needs, and names out of the rules and the database."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import rich_click as click

from proxy.core.errors import ReelayError
from proxy.settings import read_settings

_VARIABLE = "_REELAY_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """
    Print what lets a shell complete commands, options, providers and tenants.

    For bash `eval "$(reelay completion bash)"` in ~/.bashrc, for zsh the same in ~/.zshrc; for fish
    `reelay completion fish >~/.config/fish/completions/reelay.fish`.
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    kind = get_completion_class(shell)
    assert kind is not None, "click knows these three"
    click.echo(kind(ctx.find_root().command, {}, "reelay", _VARIABLE).source())


def providers(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """As the rules name them; none where those are wrong, for nobody reads errors while typing."""
    from proxy.opening import PlayKeys, read_rules  # noqa: PLC0415

    with suppress(ReelayError):
        rules = read_rules(read_settings(os.environ).rules, PlayKeys())
        return [name for name in rules.accounts if name.startswith(begun)]
    return []


def tenants(ctx: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """By name; none where there is no database at this version's schema, for nothing is made or changed."""
    from proxy.opening import open_store  # noqa: PLC0415
    from proxy.store import migrations  # noqa: PLC0415
    from proxy.store.tenants import all_tenants  # noqa: PLC0415

    async def names() -> list[str]:
        async with open_store(settings) as store:
            return [tenant.name for tenant in await store.read(all_tenants)]

    with suppress(ReelayError):
        settings = read_settings(os.environ, sandbox=bool(ctx.params.get("sandbox")))
        place = settings.database
        if isinstance(place, Path) and not place.is_file():
            return []
        if migrations.revision_of(place) == migrations.HEAD:
            return [name for name in asyncio.run(names()) if name.startswith(begun)]
    return []
