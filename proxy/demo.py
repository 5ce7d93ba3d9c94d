"""One video through the real HTTP path, before somebody's eyes."""

import asyncio
import signal
import sys
import tempfile
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from proxy.app import Running, running
from proxy.core.errors import ReelayError
from proxy.opening import can_be_written
from proxy.settings import SANDBOX_KEY, read_settings
from proxy.telemetry import logs

GIVE_UP_AFTER_S = 60.0
PLAIN_WIDTH = 100
"""Columns where the output is no terminal."""


class DemoFailed(ReelayError):
    code = "demo_failed"


async def run(prompt: str, out: Path, env: Mapping[str, str], *, stay: bool = False) -> None:
    """
    Serves a sandbox, makes one video through it and leaves it at `out`. Raises ReelayError.

    `stay`: begins once somebody has read /metrics, and serves on until it is asked to end. On a free port, unless
    REELAY_PORT names one.
    """
    if not can_be_written(out):
        raise DemoFailed(f"{out} cannot be written")
    logs.configure("console", level="error", stream=sys.stderr)
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
    with tempfile.TemporaryDirectory(prefix="reelay-demo-") as folder:
        mine = {
            "REELAY_DATABASE_URL": f"sqlite:///{folder}/demo.db",
            "REELAY_STORAGE_URL": f"file:{folder}/videos",
            "REELAY_PORT": env.get("REELAY_PORT", "0"),
            "REELAY_RULES": env.get("REELAY_RULES", ""),
        }
        settings = read_settings(mine, sandbox=True)
        async with running(settings, mine, sandbox=True) as site:
            if stay:
                await _until_scraped(site, console)
            headers = {"authorization": f"Bearer {SANDBOX_KEY}"}
            async with httpx.AsyncClient(base_url=site.origin, headers=headers, timeout=30, trust_env=False) as client:
                try:
                    async with asyncio.timeout(GIVE_UP_AFTER_S):
                        await _show(client, console, prompt, out)
                except TimeoutError as exc:
                    raise DemoFailed(f"no video within {GIVE_UP_AFTER_S:.0f} s") from exc
                except (httpx.HTTPError, OSError) as exc:
                    raise DemoFailed(f"the demo broke: {type(exc).__name__}: {exc}") from exc
            if stay:
                console.print(f"It serves on at {site.origin} until Ctrl-C.\n", soft_wrap=True)
                for number in (signal.SIGTERM, signal.SIGINT):
                    asyncio.get_running_loop().add_signal_handler(number, site.stop.set)
                await site.stop.wait()


async def _until_scraped(site: Running, console: Console) -> None:
    """So that a rate over time has a zero to begin with."""
    console.print(f"\nIt begins once Prometheus has read {site.origin}/metrics.", soft_wrap=True)
    labels = {"route": "/metrics", "method": "GET", "code_class": "2xx"}
    while True:
        if site.house.metrics.registry.get_sample_value("reelay_http_requests_total", labels):
            return
        await asyncio.sleep(0.1)


async def _show(client: httpx.AsyncClient, console: Console, prompt: str, out: Path) -> None:
    body = {"prompt": prompt, "seconds": "5", "end_user_id": "demo"}
    console.print("\n[bold]A sandbox is running: every seller is simulated, nothing is paid.[/bold]\n")
    console.print(f"  POST /v1/videos  {prompt}", soft_wrap=True, markup=False)
    _show_plan(console, await _ask(client, "POST", "/v1/videos/quote", body))
    video = await _follow(client, console, await _ask(client, "POST", "/v1/videos", body))
    if video["status"] != "completed":
        raise DemoFailed(f"the video failed: {video['error']['code']}: {video['error']['message']}")
    content = await client.get(f"/v1/videos/{video['id']}/content")
    content.raise_for_status()
    await asyncio.to_thread(out.write_bytes, content.content)
    _show_bill(console, video, out, len(content.content))


async def _ask(client: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    answer = await client.request(method, path, json=body)
    if answer.is_error:
        raise DemoFailed(f"{method} {path} answered {answer.status_code}: {answer.text}")
    return answer.json()


async def _follow(client: httpx.AsyncClient, console: Console, video: Any) -> Any:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    console.print()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(video["status"], total=100)
        while video["status"] in {"queued", "in_progress"}:
            await asyncio.sleep(0.25)
            video = await _ask(client, "GET", f"/v1/videos/{video['id']}")
            bar.update(task, completed=video["progress"], description=video["status"])
    return video


def _show_plan(console: Console, plan: Any) -> None:
    console.print(f"\nThe rule [bold]{plan['rule']}[/bold] matches; its strategy is {plan['strategy']}.\n")
    table = _table("", "provider", "price", "expected", "")
    lowest = min(Decimal(one["price_usd"]) for one in plan["candidates"])
    for place, one in enumerate(plan["candidates"], 1):
        tried = place <= plan["max_attempts"]
        price = Decimal(one["price_usd"])
        notes = ["the lowest price" if price == lowest else f"{100 * (price - lowest) / lowest:.0f} % above the lowest"]
        notes += [] if one["price_basis"] == "listed" else ["price derived"]
        notes += [] if tried else [f"not tried: {plan['max_attempts']} are enough"]
        cells = (str(place), one["provider"], f"${one['price_usd']}", f"{one['expected_seconds']} s", "; ".join(notes))
        table.add_row(*cells, style="" if tried else "dim")
    console.print(table)
    left_out: dict[str, list[str]] = {}
    for one in plan["excluded"]:
        left_out.setdefault(one["detail"], []).append(one["provider"])
    for detail, providers in left_out.items():
        console.print(f"  [dim]left out: {', '.join(providers)}, which {detail}[/dim]")
    console.print(f"\n${plan['hold_usd']} is held until the cost is known.")


def _show_bill(console: Console, video: Any, out: Path, size_bytes: int) -> None:
    table = _table("bill", "", "")
    for attempt in video["routing"]["attempts"]:
        cost = "unknown" if attempt["cost_usd"] is None else f"${attempt['cost_usd']}"
        table.add_row(f"{attempt['provider']} took", cost, f"for an attempt that ended as {attempt['status']}")
    table.add_row("you pay", f"${video['usage']['cost_usd']}", f"for {video['seconds']} s", style="bold")
    console.print("\n", table, sep="")
    seconds = video["usage"]["duration_seconds"]
    console.print(
        f"\n[bold]{out}[/bold] is the film: {video['size']}, {seconds} s, {size_bytes:,} bytes. "
        "`make serve` starts a sandbox that stays.\n",
        soft_wrap=True,
    )


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, padding=(0, 2), header_style="dim", pad_edge=True)
