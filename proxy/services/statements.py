"""
What a tenant is asked to pay for a month: drafts while it is open, one for good once it is closed.

A closed month takes no cost any more, which the database itself sees to; what is corrected later stands
in the month in which it is corrected. Amounts are exact to the micro-dollar; what is paid is rounded to
the cent once, from the exact sum, and a line of its own says by how much the rounded lines are off.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from decimal import ROUND_HALF_UP, Decimal

import msgspec

from proxy.core.clock import DAY_US, iso
from proxy.core.errors import InvalidValue, NotFound
from proxy.core.tenant import Tenant
from proxy.policy.prices import Tariff
from proxy.services.acts import REASON_MAX_CHARS, Clerk, check_text
from proxy.services.charges import HEAD, Span, as_csv, net, pages, read_month
from proxy.store import settlements, statements, tenants, unsettled
from proxy.store.base import Store, Tx
from proxy.store.settlements import SETTLED_US, Sums
from proxy.store.statements import Closing, Detail, Told

CENT_MICROUSD = 10_000


class SkuLine(msgspec.Struct, frozen=True, kw_only=True):
    """What was bought of one kind at one price."""

    model: str
    tier: str
    operation: str
    resolution: str
    outcome: str
    """delivered; billed: cancelled, or a failed attempt that the rules bill."""
    unit_usd: str | None
    """For a second; None where seconds times a price are not what was charged."""
    videos: int
    seconds: int
    microusd: int
    cents: int


class EndUserLine(msgspec.Struct, frozen=True, kw_only=True):
    """What one end user cost."""

    end_user: str
    """A surrogate, which stays when the name is erased; empty for requests without one."""
    videos: int
    charged_microusd: int
    refunded_microusd: int


class RefundLine(msgspec.Struct, frozen=True, kw_only=True):
    """What was given back, of this month or an earlier one."""

    id: str
    at: int
    charge: str
    charged_at: int
    corrects: str | None
    """Number of the statement on which the charge stands; None: this one, or that of a month still open."""
    reason: str
    microusd: int
    """Below zero."""
    cents: int


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """A month of one tenant."""

    number: str | None
    """None: a draft, which may change."""
    tenant_id: str
    tenant_name: str
    """At that time."""
    month: str
    start: int
    end: int
    made_at: int
    software: str
    books: tuple[str, ...]
    """Hashes of the price books by which it was charged."""
    lines: tuple[SkuLine, ...]
    refunds: tuple[RefundLine, ...]
    end_users: tuple[EndUserLine, ...]
    total_microusd: int
    total_cents: int
    """What is to be paid; below zero: a credit."""
    rounding_cents: int
    """What the rounded lines lack to the total."""
    held_microusd: int
    """Still held, when it was made, for videos accepted before the month's end."""
    charges: int
    """Rows of the file of charges."""
    charges_sha256: str


def cents(microusd: int) -> int:
    """Half a cent up, away from zero below it."""
    return int((Decimal(microusd) / CENT_MICROUSD).quantize(Decimal(1), rounding=ROUND_HALF_UP))


# Making one


class _Sums(msgspec.Struct):
    """What has been added up so far."""

    skus: dict[tuple[str, str, str, str, str, str | None], list[int]] = msgspec.field(default_factory=dict)
    """Videos, seconds and micro-dollars."""
    users: dict[str, list[int]] = msgspec.field(default_factory=dict)
    """Videos, micro-dollars charged and refunded."""
    refunds: list[Detail] = msgspec.field(default_factory=list)
    books: set[str] = msgspec.field(default_factory=set)
    rows: int = 0

    def add(self, row: Detail) -> None:
        self.rows += 1
        self.books.add(row.book_hash)
        videos = int(row.kind == "post")
        user = self.users.setdefault(row.end_user, [0, 0, 0])
        for place, value in enumerate((videos, row.charged_microusd, row.refunded_microusd)):
            user[place] += value
        if row.kind == "refund":
            self.refunds.append(row)
            return
        key = (row.model, row.tier, row.operation, row.resolution, row.outcome, _unit_of(row))
        sku = self.skus.setdefault(key, [0, 0, 0])
        for place, value in enumerate((videos, row.seconds, row.charged_microusd)):
            sku[place] += value


def _unit_of(row: Detail) -> str | None:
    """USD for a second, where that times the seconds is what was charged."""
    if row.quantity is None or row.unit_usd is None or row.fixed_usd is None or row.quantity != row.seconds:
        return None
    tariff = Tariff(quantity=row.quantity, unit_usd=row.unit_usd, fixed_usd=row.fixed_usd)
    plain = Decimal(row.fixed_usd) == 0 and tariff.microusd() == row.charged_microusd
    return f"{Decimal(row.unit_usd).normalize():f}" if plain else None


async def make(store: Store, tenant: Tenant, span: Span, *, now_us: int, software: str) -> Statement:
    """A draft of what has been settled so far."""
    sums, digest = _Sums(), hashlib.sha256(HEAD.encode())
    async for page in pages(store, tenant.id, span):
        digest.update(as_csv(page).encode())
        for row in page:
            sums.add(row)
    lines = [
        SkuLine(
            model=key[0],
            tier=key[1],
            operation=key[2],
            resolution=key[3],
            outcome=key[4],
            unit_usd=key[5],
            videos=videos,
            seconds=seconds,
            microusd=microusd,
            cents=cents(microusd),
        )
        for key, (videos, seconds, microusd) in sorted(
            sums.skus.items(), key=lambda item: [part or "" for part in item[0]]
        )
    ]
    refunds, held = await store.read(
        lambda tx: (_refund_lines(tx, tenant, span, sums.refunds), _held(tx, tenant, span))
    )
    total = sum(line.microusd for line in lines) + sum(line.microusd for line in refunds)
    rounded = sum(line.cents for line in lines) + sum(line.cents for line in refunds)
    return Statement(
        number=None,
        tenant_id=tenant.id,
        tenant_name=tenant.name,
        month=span.month,
        start=span.start,
        end=span.end,
        made_at=now_us,
        software=software,
        books=tuple(sorted(sums.books)),
        lines=tuple(lines),
        refunds=tuple(refunds),
        end_users=tuple(
            EndUserLine(end_user=user, videos=videos, charged_microusd=charged, refunded_microusd=refunded)
            for user, (videos, charged, refunded) in sorted(sums.users.items())
        ),
        total_microusd=total,
        total_cents=cents(total),
        rounding_cents=cents(total) - rounded,
        held_microusd=held,
        charges=sums.rows,
        charges_sha256=digest.hexdigest(),
    )


def _refund_lines(tx: Tx, tenant: Tenant, span: Span, rows: Sequence[Detail]) -> list[RefundLine]:
    lines = []
    for row in sorted(rows, key=lambda row: (row.at, row.id)):
        assert row.refers_to is not None, "a refund names its charge"
        charged_at = statements.settled_at(tx, row.refers_to) or row.at
        told = None
        if charged_at < span.start:
            told = statements.statement_of(tx, tenant.id, iso(charged_at)[:7])
        lines.append(
            RefundLine(
                id=row.id,
                at=row.at,
                charge=row.refers_to,
                charged_at=charged_at,
                corrects=None if told is None else told.number,
                reason=row.reason or "",
                microusd=net(row),
                cents=cents(net(row)),
            )
        )
    return lines


def _held(tx: Tx, tenant: Tenant, span: Span) -> int:
    holds = unsettled.open_holds(tx, tenant_id=tenant.id, start=0, end=span.end)
    return sum(one.held_microusd for one in holds)


# Closing


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """A month that was closed, and the statements that were made of it."""

    month: str
    statements: tuple[Statement, ...]


async def close_month(
    store: Store, clerk: Clerk, *, actor: str, month: str, reason: str | None, software: str
) -> Closed:
    """
    Makes a statement for each tenant that was charged or refunded, and lets nothing into the month any more.

    Raises InvalidValue for a month that has not been over for ten minutes, that is closed already, or that
    comes behind one that is open.
    """
    check_text("reason", reason, REASON_MAX_CHARS)
    span = read_month(month)
    await store.read(lambda tx: _check_closable(tx, span))
    made = [
        await make(store, tenant, span, now_us=store.clock(), software=software)
        for tenant in await store.read(lambda tx: _spenders(tx, span))
    ]

    def unit(tx: Tx) -> Closed:
        # Nobody sums days meanwhile, for their sums and their rows are read one after the other.
        settlements.take_folded_until(tx)
        _check_closable(tx, span)
        told = tuple(
            msgspec.structs.replace(one, number=f"{month}-{place:04}") for place, one in enumerate(made, start=1)
        )
        if _net(told) != _spent(tx, span):
            raise InvalidValue("The month was still written to; try again.", param="month")
        statements.insert_closing(tx, Closing(month=month, ends_at=span.end, closed_at=tx.now_us, actor=actor))
        for one in told:
            row = Told(number=one.number or "", tenant_id=one.tenant_id, month=month, document=msgspec.json.encode(one))
            statements.insert_statement(tx, row)
        after = {"statements": len(told), "total_cents": sum(one.total_cents for one in told)}
        clerk.record(tx, actor, "month.close", month, None, after, reason)
        return Closed(month=month, statements=told)

    return await store.write(unit)


def _check_closable(tx: Tx, span: Span) -> None:
    if tx.now_us < span.end + SETTLED_US:
        raise InvalidValue("A month can be closed ten minutes after its end, in UTC.", param="month")
    closed = [closing.month for closing in statements.every_closing(tx)]
    if span.month in closed:
        raise InvalidValue(f"{span.month} is closed already.", param="month")
    if closed and span.month < closed[-1]:
        raise InvalidValue(f"{closed[-1]} is closed, and with it all that was before.", param="month")
    first = statements.first_cost_at(tx)
    since = max(first or span.start, read_month(closed[-1]).end if closed else 0)
    if since < span.start and _spent(tx, Span(month="", start=since // DAY_US * DAY_US, end=span.start)):
        raise InvalidValue(f"{iso(since)[:7]} is open; months are closed in their order.", param="month")


def _by_tenant(tx: Tx, span: Span) -> dict[str, Sums]:
    found = settlements.by_days(tx, ("tenant_id",), tenant_id=None, start=span.start, end=span.end)
    return {
        str(key[0]): sums
        for key, sums in found.items()
        if sums.charged_microusd or sums.refunded_microusd or sums.videos
    }


def _spenders(tx: Tx, span: Span) -> list[Tenant]:
    """From the oldest."""
    those = _by_tenant(tx, span)
    return [tenant for tenant in tenants.all_tenants(tx) if tenant.id in those]


def _spent(tx: Tx, span: Span) -> dict[str, int]:
    return {
        tenant_id: sums.charged_microusd - sums.refunded_microusd for tenant_id, sums in _by_tenant(tx, span).items()
    }


def _net(told: Sequence[Statement]) -> dict[str, int]:
    return {one.tenant_id: one.total_microusd for one in told}


# Reading them


async def statement_for(store: Store, tenant_id: str, month: str, *, software: str) -> Statement:
    """The one that was made when the month was closed, or a draft. Raises InvalidValue, NotFound."""
    span = read_month(month)

    def unit(tx: Tx) -> tuple[Tenant | None, Told | None, bool]:
        closed = any(closing.month >= month for closing in statements.every_closing(tx))
        return tenants.find_tenant(tx, tenant_id), statements.statement_of(tx, tenant_id, month), closed

    tenant, told, closed = await store.read(unit)
    if told is not None:
        return msgspec.json.decode(told.document, type=Statement)
    if tenant is None or closed:
        raise NotFound(f"There is no statement of that tenant for {month}.")
    return await make(store, tenant, span, now_us=store.clock(), software=software)


async def end_user_names(store: Store, statement: Statement) -> dict[str, str | None]:
    """Surrogate to name; None once erased."""
    users = [line.end_user for line in statement.end_users if line.end_user]
    return await store.read(lambda tx: tenants.end_user_names(tx, statement.tenant_id, users))


async def told_wrongly(store: Store) -> AsyncIterator[tuple[str, int]]:
    """
    Numbers of statements that are not what their charges come to: by how many micro-dollars.

    Added up anew from the charges, of which the file has to be the same to the byte.
    """
    for number, tenant_id, month in await store.read(statements.numbers):
        told = await statement_for(store, tenant_id, month, software="")
        tenant = Tenant(id=tenant_id, name="", created_at=0)
        made = await make(store, tenant, read_month(month), now_us=0, software="")
        if _figures(told) != _figures(made):
            yield number, abs(told.total_microusd - made.total_microusd)


def _figures(statement: Statement) -> Statement:
    """Without what is of the moment at which it was made."""
    refunds = tuple(msgspec.structs.replace(line, corrects=None) for line in statement.refunds)
    return msgspec.structs.replace(
        statement, number=None, tenant_name="", made_at=0, software="", held_microusd=0, refunds=refunds
    )
