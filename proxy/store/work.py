"""What is due: rows with a time, claimed with a lease and a fence."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import BindParameter, and_, bindparam, case, delete, func, insert, select, tuple_, update

from proxy.core.errors import LeaseLost
from proxy.store.base import Statement, Tx
from proxy.store.tables import BigInt, work


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A row of work that is ours until `lease_until`."""

    video_id: str
    attempt_no: int
    """0: the video itself, what to buy next."""
    fence: int
    due_at: int
    lease_until: int


class Next(msgspec.Struct, frozen=True, kw_only=True):
    """When a claimed row is due again."""

    claim: Claim
    due_at: int


_KEY = and_(work.c.video_id == bindparam("of_video"), work.c.attempt_no == bindparam("of_attempt"))
_NOW: BindParameter[int] = bindparam("now", type_=BigInt)
_DUE_AT: BindParameter[int] = bindparam("due", type_=BigInt)
_FREE = work.c.lease_until <= _NOW
_OURS = and_(_KEY, work.c.fence == bindparam("of_fence"))

_INSERT = Statement(
    insert(work).values(
        video_id=bindparam("video_id"),
        attempt_no=bindparam("attempt_no"),
        due_at=bindparam("due_at"),
        lease_until=0,
        owner=None,
        fence=0,
        nudged=0,
    )
)
_DUE = (
    select(work.c.video_id, work.c.attempt_no)
    .where(work.c.due_at <= bindparam("now"), work.c.lease_until <= bindparam("now"))
    .order_by(work.c.due_at)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
    .cte("due")  # as a plain subquery it might be asked again and again, and lock more than its limit
)
_CLAIM = Statement(
    update(work)
    .where(tuple_(work.c.video_id, work.c.attempt_no).in_(select(_DUE.c.video_id, _DUE.c.attempt_no)))
    .values(lease_until=bindparam("until"), owner=bindparam("owner"), fence=work.c.fence + 1, nudged=0)
    .returning(work.c.video_id, work.c.attempt_no, work.c.fence, work.c.due_at)
)
_NEXT_DUE = Statement(select(func.min(work.c.due_at)).where(work.c.lease_until <= bindparam("now")))
_AGAIN = Statement(
    update(work).where(_OURS).values(due_at=case((work.c.nudged == 1, _NOW), else_=_DUE_AT), lease_until=0, owner=None)
)
_MOVE = Statement(update(work).where(_KEY).values(due_at=bindparam("due")))
_NUDGE = Statement(
    update(work)
    .where(_KEY)
    .values(
        due_at=case((and_(_FREE, work.c.due_at > _NOW), _NOW), else_=work.c.due_at),
        nudged=case((_FREE, 0), else_=1),
    )
)
_HELD = Statement(select(work.c.fence).where(_OURS).with_for_update())
_EXISTS = Statement(select(work.c.fence).where(_KEY))
_DONE = Statement(delete(work).where(_KEY))
_EXTEND = Statement(update(work).where(_OURS).values(lease_until=bindparam("until")))
_RELEASE_ALL = Statement(update(work).where(work.c.lease_until > 0).values(lease_until=0, owner=None))
_ANY_DUE = Statement(
    select(work.c.due_at).where(work.c.due_at <= bindparam("now"), work.c.lease_until <= bindparam("now")).limit(1)
)
_OVERDUE = Statement(
    select(func.count(), func.min(work.c.due_at)).where(
        work.c.due_at <= bindparam("now"), work.c.lease_until <= bindparam("now")
    )
)


def add(tx: Tx, rows: Sequence[tuple[str, int, int]]) -> None:
    """New rows: video, attempt, due time."""
    tx.run_many(_INSERT, [{"video_id": video, "attempt_no": no, "due_at": due} for video, no, due in rows])


def ensure(tx: Tx, video_id: str, attempt_no: int, due_at: int) -> None:
    """A row due at that time, whether or not there was one."""
    if tx.one(_EXISTS, of_video=video_id, of_attempt=attempt_no) is None:
        add(tx, [(video_id, attempt_no, due_at)])
    else:
        move(tx, video_id, attempt_no, due_at)


def claim(tx: Tx, owner: str, *, most: int, lease_us: int) -> list[Claim]:
    """Takes what is due and free, the longest due first."""
    until = tx.now_us + lease_us
    rows = tx.rows(_CLAIM, now=tx.now_us, until=until, owner=owner, most=most)
    claims = [
        Claim(video_id=video, attempt_no=no, fence=fence, due_at=due, lease_until=until)
        for video, no, fence, due in rows
    ]
    return sorted(claims, key=lambda one: one.due_at)


def next_due(tx: Tx) -> int | None:
    """When the next free row is due; None where there is none."""
    row = tx.one(_NEXT_DUE, now=tx.now_us)
    return None if row is None else row[0]


def any_due(tx: Tx) -> bool:
    """Whether there is something to claim."""
    return tx.one(_ANY_DUE, now=tx.now_us) is not None


def check(tx: Tx, held: Claim) -> None:
    """
    Raises LeaseLost where another worker has claimed the row since, or it is gone.

    Until this unit is kept nobody else can claim it.
    """
    if tx.one(_HELD, of_video=held.video_id, of_attempt=held.attempt_no, of_fence=held.fence) is None:
        raise LeaseLost(f"{held.video_id}/{held.attempt_no}")


def again(tx: Tx, held: Claim, due_at: int) -> None:
    """Lets go of a row until `due_at`, or at once where it was nudged meanwhile. Raises LeaseLost."""
    changed = tx.run(
        _AGAIN,
        of_video=held.video_id,
        of_attempt=held.attempt_no,
        of_fence=held.fence,
        now=tx.now_us,
        due=due_at,
    )
    if not changed:
        raise LeaseLost(f"{held.video_id}/{held.attempt_no}")


def again_many(tx: Tx, rows: Sequence[Next]) -> None:
    """The same for many; those whose lease was lost are left to their new holder."""
    tx.run_many(
        _AGAIN,
        [
            {
                "of_video": row.claim.video_id,
                "of_attempt": row.claim.attempt_no,
                "of_fence": row.claim.fence,
                "now": tx.now_us,
                "due": row.due_at,
            }
            for row in sorted(rows, key=lambda row: (row.claim.video_id, row.claim.attempt_no))
        ],
    )


def extend(tx: Tx, held: Sequence[Claim], *, lease_us: int) -> None:
    """Longer leases for what is still ours; what is not is left alone."""
    tx.run_many(
        _EXTEND,
        [
            {
                "of_video": one.video_id,
                "of_attempt": one.attempt_no,
                "of_fence": one.fence,
                "until": tx.now_us + lease_us,
            }
            for one in sorted(held, key=lambda one: (one.video_id, one.attempt_no))
        ],
    )


def move(tx: Tx, video_id: str, attempt_no: int, due_at: int) -> None:
    """Another due time for a row, whoever holds it."""
    tx.run(_MOVE, of_video=video_id, of_attempt=attempt_no, due=due_at)


def nudge(tx: Tx, video_id: str, attempt_no: int) -> bool:
    """Makes a row due now, or as soon as its holder lets go; False where there is no such row."""
    return bool(tx.run(_NUDGE, of_video=video_id, of_attempt=attempt_no, now=tx.now_us))


def done(tx: Tx, video_id: str, attempt_no: int) -> None:
    """Nothing more to do there."""
    tx.run(_DONE, of_video=video_id, of_attempt=attempt_no)


def release_all(tx: Tx) -> None:
    """For an engine with one process: whoever held a lease is gone."""
    tx.run(_RELEASE_ALL)


def overdue(tx: Tx) -> tuple[int, int]:
    """How many rows are due that nobody holds, and for how long the first of them has been; microseconds."""
    [(count, since)] = tx.rows(_OVERDUE, now=tx.now_us)
    return int(count), tx.now_us - int(since) if count else 0
