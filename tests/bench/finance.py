"""
Reports over very many settlements: `make bench-full`.

Fills a database with a month of them (50 tenants with 20,000 end users each), sums the days as a server's
housekeeper does, and asks for each report as `/admin/reports/spend` does. Done for a tenth of the rows
before, to see that what it takes grows no faster than they do. Only settlements are filled in: a report
reads nothing else that grows.
"""

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
from sqlalchemy.schema import CreateIndex

from proxy.api.reports import as_object
from proxy.core.clock import DAY_US
from proxy.services.folding import fold
from proxy.services.report import SpendQuery, read_query, spend
from proxy.store.base import Store
from proxy.store.postgres import DIALECT as POSTGRESQL
from proxy.store.sqlite import DIALECT as SQLITE
from proxy.store.tables import settlements
from tests.bench import machine, report
from tests.bench.load import ROOT
from tests.databases import Database, file_in, server

TENANTS, USERS = 50, 20_000
ROWS = 10_000_000
START_US = 1_793_491_200_000_000
"""2026-11-01, UTC."""
END_US = START_US + 30 * DAY_US
ROWS_AT_ONCE = 1_000_000
FOLDED_AT_ONCE = 100_000

GOALS = {"tenant": 2.0, "provider": 2.0, "model": 2.0, "day": 2.0, "month": 2.0, "key": 2.0, "rule": 2.0,
         "end_user": 2.0, "tenant,provider,day": 2.0, "metadata.team": 15.0, "metadata.project,provider": 15.0,
         "metadata.job": 15.0}  # fmt: skip
"""Seconds for a month over all tenants; a page of a thousand lines where there are more."""

_FILL = """
INSERT INTO settlements (id, kind, at, end_user, tenant_id, key_id, provider, model, tier, operation, resolution,
    rule, outcome, seconds, charged_microusd, seller_microusd, assumed_microusd, markup_microusd, absorbed_microusd,
    refunded_microusd, at_first_microusd, at_dearest_microusd, differs, metadata)
WITH RECURSIVE numbers(i) AS (SELECT CAST({first} AS BIGINT) UNION ALL SELECT i + 1 FROM numbers WHERE i < {last})
SELECT 'video_' || (100000000000000000 + i) || '/1/post', 'post', {start} + i * {step},
    'user-' || (1000000 + (i / {tenants} * 7919) % {users}), 'tenant_' || (100 + i % {tenants}),
    'key_' || (1000 + i % 150),
    CASE i % 4 WHEN 0 THEN 'fal' WHEN 1 THEN 'evolink' WHEN 2 THEN 'runflow' ELSE 'shortapi' END,
    CASE i % 3 WHEN 0 THEN 'seedance-2.0-mini' ELSE 'seedance-2.0' END,
    CASE i % 7 WHEN 0 THEN 'fast' ELSE 'standard' END, 'text-to-video',
    CASE i % 11 WHEN 0 THEN '1080p' WHEN 1 THEN '480p' ELSE '720p' END,
    CASE i % 13 WHEN 0 THEN 'full-hd' ELSE 'default' END, 'delivered', 5,
    992500 + i % 1000, 900000 + i % 1000, 0, 92500, 0, 0, 992500 + i % 1000, 1517000, 0,
    '{{"team":"team-' || (i % 20) || '","project":"p' || (i % 997) || '","job":"' || i || '"}}'
FROM numbers
"""


def _fill(database: Database, rows: int) -> None:
    step = 30 * DAY_US // rows
    for first in range(0, rows, ROWS_AT_ONCE):
        last = min(first + ROWS_AT_ONCE, rows) - 1
        database.write(_FILL.format(first=first, last=last, start=START_US, step=step, tenants=TENANTS, users=USERS))


@contextlib.contextmanager
def _database(engine: str, folder: Path) -> Iterator[Database]:
    if engine == "sqlite":
        yield file_in(folder)
        return
    yield Database(place=server().new(), folder=folder)


@contextlib.asynccontextmanager
async def _opened(database: Database) -> AsyncIterator[Store]:
    store = database.store(lambda: END_US + DAY_US)
    await store.open()
    yield store
    await store.close()


async def _asked(store: Store, group_by: str, tenant_id: str | None = None, limit: str = "1000") -> tuple[float, int]:
    """Seconds that the answer took as JSON, and its lines."""
    query: SpendQuery = read_query(group_by, "2026-11-01", "2026-12-01", tenant_id, now_us=END_US, limit=limit)
    begun = time.perf_counter()
    page = await spend(store, query)
    msgspec.json.encode(as_object(query, page))
    return time.perf_counter() - begun, len(page.lines)


def _without_indexes(database: Database, fill: Callable[[], None]) -> None:
    """They are made after it: kept up to date all the way, they take most of the time."""
    dialect = SQLITE if isinstance(database.place, Path) else POSTGRESQL
    indexes = sorted(settlements.indexes, key=lambda index: str(index.name))
    for index in indexes:
        database.write(f"DROP INDEX {index.name}")
    fill()
    for index in indexes:
        database.write(str(CreateIndex(index).compile(dialect=dialect)))


class Taken(msgspec.Struct):
    """Seconds and lines of each report, and what it took to get there."""

    rows: int
    reports: dict[str, tuple[float, int]]
    one_tenant: tuple[float, int]
    fill_s: float
    fold_s: float


async def _measure(engine: str, folder: Path, rows: int) -> Taken:
    with _database(engine, folder) as database:
        begun = time.perf_counter()
        _without_indexes(database, lambda: _fill(database, rows))
        if engine == "postgresql":
            database.write("ANALYZE settlements")
        filled = time.perf_counter()
        async with _opened(database) as store:
            await fold(store, rows_each=FOLDED_AT_ONCE)
            folded = time.perf_counter()
            reports = {group_by: await _asked(store, group_by) for group_by in GOALS}
            one_tenant = await _asked(store, "end_user", "tenant_107", "10000")
        return Taken(rows=rows, reports=reports, one_tenant=one_tenant, fill_s=filled - begun, fold_s=folded - filled)


def _lines(small: Taken, large: Taken) -> Iterator[report.Line]:
    times = large.rows / small.rows
    for group_by, goal_s in GOALS.items():
        (before_s, _), (took_s, lines) = small.reports[group_by], large.reports[group_by]
        # A report that is a page however many rows there are may take no longer; below a tenth of a second it is noise.
        grown = took_s / max(before_s, 0.1)
        yield report.Line(
            name=f"month by {group_by}",
            goal=f"<= {goal_s:.0f} s",
            measured=f"{took_s:.2f} s",
            ratio=f"{grown:.1f} x the time of a {1 / times:.0%}",
            met=took_s <= goal_s and grown <= times * 1.2,
            notes=(f"{lines:,} lines",),
        )
    took_s, lines = large.one_tenant
    yield report.Line(
        name="month of one tenant by end_user", goal="<= 2 s", measured=f"{took_s:.2f} s", met=took_s <= 2.0,
        notes=(f"{lines:,} lines of {USERS:,} end users",),
    )  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.bench.finance", description="Measures big reports.")
    arguments.add_argument("--rows", type=int, default=ROWS, help="settlements of the month")
    arguments.add_argument("--engine", choices=("sqlite", "postgresql"), default="sqlite")
    arguments.add_argument("--folder", type=Path, default=ROOT / ".cache", help="on the disk to be measured")
    asked = arguments.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    before = machine.disturbance_now()
    taken = []
    for rows in (asked.rows // 10, asked.rows):
        with tempfile.TemporaryDirectory(prefix="finance-", dir=asked.folder) as folder:
            taken.append(asyncio.run(_measure(asked.engine, Path(folder).resolve(), rows)))
    small, large = taken
    print(report.table(list(_lines(small, large)), verdicts=not before.is_too_much))
    print(
        f"\n{large.rows:,} settlements on {asked.engine}, of {TENANTS} tenants with {USERS:,} end users each: "
        f"filled in {large.fill_s:.0f} s, days summed in {large.fold_s:.0f} s; "
        f"at most {machine.peak_rss_bytes(os.getpid()) / 1e6:.0f} MB; beforehand {before}."
    )


if __name__ == "__main__":
    main()
