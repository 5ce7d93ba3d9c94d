"""One video through the real HTTP path, before somebody's eyes."""

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from proxy.app import running
from proxy.core.errors import ReelayError
from proxy.settings import SANDBOX_KEY, read_settings
from proxy.telemetry import logs

GIVE_UP_AFTER_S = 120.0


class DemoFailed(ReelayError):
    code = "demo_failed"


async def run(prompt: str, out: Path) -> None:
    """Serves a sandbox on a free port, makes one video through it and leaves it at `out`. Raises ReelayError."""
    logs.configure("console", level="error", stream=sys.stderr)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="reelay-demo-") as folder:
        env = {
            "REELAY_DATABASE_URL": f"sqlite:///{folder}/demo.db",
            "REELAY_STORAGE_URL": f"file:{folder}/videos",
            "REELAY_PORT": "0",
            "REELAY_RULES": os.environ.get("REELAY_RULES", "routing_rules.yaml"),
        }
        settings = read_settings(env, sandbox=True)
        async with running(settings, env, sandbox=True) as site:
            headers = {"authorization": f"Bearer {SANDBOX_KEY}"}
            async with httpx.AsyncClient(base_url=site.origin, headers=headers, timeout=30, trust_env=False) as client:
                await _show(client, console, prompt, out)


async def _show(client: httpx.AsyncClient, console: Console, prompt: str, out: Path) -> None:
    body = {"prompt": prompt, "seconds": "5", "end_user_id": "demo"}
    console.print("[bold]A sandbox is running: the sellers are simulated, nothing is paid.[/bold]\n")
    _show_plan(console, await _ask(client, "POST", "/v1/videos/quote", body))
    video = await _follow(client, console, await _ask(client, "POST", "/v1/videos", body))
    if video["status"] != "completed":
        raise DemoFailed(f"the video ended as {video['status']}: {video['error']}")
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
    async with asyncio.timeout(GIVE_UP_AFTER_S):
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(video["status"], total=100)
            while video["status"] in {"queued", "in_progress"}:
                await asyncio.sleep(0.25)
                video = await _ask(client, "GET", f"/v1/videos/{video['id']}")
                bar.update(task, completed=video["progress"], description=video["status"])
    return video


def _show_plan(console: Console, plan: Any) -> None:
    table = Table(
        "", "provider", "price", "expected", "why", title=f"Plan by rule '{plan['rule']}' ({plan['strategy']})"
    )
    for place, one in enumerate(plan["candidates"], 1):
        table.add_row(
            str(place), one["provider"], f"${one['price_usd']}", f"{one['expected_seconds']} s", one["reason"]
        )
    for one in plan["excluded"]:
        table.add_row("-", one["provider"], "", "", one["detail"], style="dim")
    console.print(table)


def _show_bill(console: Console, video: Any, out: Path, size_bytes: int) -> None:
    table = Table("provider", "ended as", "seller took", title="Bill")
    for attempt in video["routing"]["attempts"]:
        table.add_row(attempt["provider"], attempt["status"], f"${attempt['cost_usd']}")
    table.add_row("[bold]you pay[/bold]", "", f"[bold]${video['usage']['cost_usd']}[/bold]")
    console.print(table)
    seconds = video["usage"]["duration_seconds"]
    console.print(f"\n{out}: {video['size']}, {seconds} s, {size_bytes:,} bytes")
