"""`reelay top`: sellers, queue and money on one screen, drawn anew while somebody looks."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import rich_click as click

from proxy.core.errors import ConfigError, Overloaded
from proxy.settings import Settings
from proxy.verbs import JSON_OUTPUT, PLAIN_WIDTH, SANDBOX, print_json, read_written_rules, with_store

if TYPE_CHECKING:
    from rich.console import RenderableType

    from proxy.services.picture import Picture

EVERY_S = 2.0
_BREAKERS = {"closed": "green", "half_open": "yellow", "open": "red"}


@click.command()
@click.option("--once", is_flag=True, help="Print one picture and end.")
@SANDBOX
@JSON_OUTPUT
def top(once: bool, sandbox: bool, as_json: bool) -> None:
    """
    Watch sellers, queue and spend, as the database knows them; q ends it.

    It runs beside any number of servers, on either engine, and needs none. Breakers and learned times are what
    servers tell each other. --json prints one picture.
    """
    from proxy.core.ids import time_hex  # noqa: PLC0415
    from proxy.services.picture import Onlooker  # noqa: PLC0415

    if not (once or as_json or (sys.stdin.isatty() and sys.stdout.isatty())):
        raise ConfigError("this is no terminal; --once prints one picture, --json as data")
    rules = read_written_rules(sandbox)

    async def watch(store: Any, _: Settings) -> None:
        onlooker = Onlooker(store, rules, time_hex)
        if not (once or as_json):
            await _keep_drawing(onlooker)
            return
        picture = await onlooker.look()
        if as_json:
            print_json(picture)
        else:
            from rich.console import Console  # noqa: PLC0415

            Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False).print(drawn(picture))

    with_store(sandbox, watch)


async def _keep_drawing(onlooker: Any) -> None:
    """Until q, or a signal."""
    from rich.console import Console, Group  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    over, due = asyncio.Event(), asyncio.Event()
    console = Console(highlight=False)
    shown: RenderableType = Text("looking")
    async with _keys(over, due):
        # What is drawn covers what was drawn before, line by line: nothing is wiped, so nothing flickers.
        with Live(shown, console=console, screen=True, auto_refresh=False) as live:
            while not over.is_set():
                try:
                    shown = drawn(await onlooker.look())
                except Overloaded as exc:
                    shown = Group(Text(str(exc), style="red"), shown)
                await _until_due(live, shown, over, due)


async def _until_due(live: Any, shown: "RenderableType", over: asyncio.Event, due: asyncio.Event) -> None:
    """Shows it until the next look is due, anew whenever the window changes its size."""
    ends_at = asyncio.get_running_loop().time() + EVERY_S
    while not over.is_set():
        live.update(shown, refresh=True)
        due.clear()
        left_s = ends_at - asyncio.get_running_loop().time()
        try:
            await asyncio.wait_for(due.wait(), max(0.0, left_s))
        except TimeoutError:
            return


@contextlib.asynccontextmanager
async def _keys(over: asyncio.Event, due: asyncio.Event) -> AsyncIterator[None]:
    """`over` once q is pressed or the end is asked for; `due` then too, and when the window has another size."""
    loop, keyboard = asyncio.get_running_loop(), sys.stdin.fileno()

    def end() -> None:
        over.set()
        due.set()

    def pressed() -> None:
        typed = os.read(keyboard, 64)
        if not typed or set(typed) & set(b"qQ\x03\x04"):
            end()

    with _unbuffered(keyboard):
        loop.add_reader(keyboard, pressed)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, end)
        loop.add_signal_handler(signal.SIGWINCH, due.set)
        try:
            yield
        finally:
            loop.remove_reader(keyboard)


@contextlib.contextmanager
def _unbuffered(keyboard: int) -> Iterator[None]:
    """Keys come one by one and are not shown; afterwards the terminal is as it was."""
    import termios  # noqa: PLC0415
    import tty  # noqa: PLC0415

    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


# What is drawn


def drawn(picture: "Picture") -> "RenderableType":
    """The whole picture for people."""
    from rich.console import Group  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    return Group(
        Text.assemble(("Reelay", "bold"), f"  {picture.at}"),
        "",
        _sellers(picture),
        "",
        _queue(picture),
        "",
        *_spend(picture),
    )


def _sellers(picture: "Picture") -> Any:
    from rich.text import Text  # noqa: PLC0415

    table = _table(
        "seller", "breaker", "learned", "in flight", "last hour", "delivered", "failed", "unknown", "may cost"
    )
    for seller in picture.sellers:
        line = seller.line
        worst = max(line.breakers.values(), key=list(_BREAKERS).index, default="closed")
        breaker = Text(line.why_off or worst.replace("_", "-"), style="dim" if line.why_off else _BREAKERS[worst])
        learned = "" if seller.learned_s is None else f"{seller.learned_s:.0f} s"
        counts = (line.under_way, line.attempts, line.delivered)
        unsettled = Text(str(line.unknown_total), style="yellow" if line.unknown_total else "")
        failed = Text(str(line.failed), style="yellow" if line.failed else "")
        cost = f"${line.unknown_exposure_usd}" if line.unknown_total else ""
        table.add_row(line.provider, breaker, learned, *map(str, counts), failed, unsettled, cost)
    return table


def _queue(picture: "Picture") -> Any:
    queue = picture.queue
    table = _table("queued", "in progress", "oldest", "due", "overdue", "unknown", "may have cost")
    table.add_row(
        str(queue.queued),
        str(queue.in_progress),
        f"{queue.oldest_s} s",
        str(queue.due_work),
        f"{queue.overdue_s:.1f} s",
        str(queue.unknown_attempts),
        f"${queue.unknown_exposure_usd}",
    )
    return table


def _spend(picture: "Picture") -> "Iterator[RenderableType]":
    spend = picture.spend
    table = _table("today", "this month", "held")
    table.add_row(f"${spend.today_usd}", f"${spend.month_usd}", f"${spend.held_usd}")
    yield table
    if spend.top:
        top_tenants = _table("tenant", "films this month", "charged")
        for one in spend.top:
            top_tenants.add_row(one.name, str(one.videos), f"${one.charged_usd}")
        yield from ("", top_tenants)
    if spend.near:
        near = _table("budget", "tenant", "of", "used", "limit", "")
        for budget in spend.near:
            share = f"{budget.used_ratio:.0%}"
            whose = f"{budget.scope} by {budget.period}"
            near.add_row(budget.id, budget.tenant, whose, f"${budget.used_usd}", f"${budget.limit_usd}", share)
        yield from ("", near)


def _table(*columns: str) -> Any:
    from rich.table import Table  # noqa: PLC0415

    return Table(*columns, box=None, padding=(0, 2, 0, 0), header_style="dim")
