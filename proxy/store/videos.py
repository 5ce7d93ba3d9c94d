"""Videos and their attempts: every statement about them."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import BindParameter, Text, and_, bindparam, case, func, insert, null, or_, select, update

from proxy.core.attempt import Attempt
from proxy.core.offer import Plan
from proxy.core.video import Footage, Spec
from proxy.store.base import Statement, Tx, as_structs, fields_of, of_several, several_ids
from proxy.store.tables import BigInt, attempts, end_users, idempotency, settlements, videos, work

_spec_of = msgspec.json.Decoder(Spec)
_plan_of = msgspec.json.Decoder(Plan)
_footage_of = msgspec.json.Decoder(Footage)
_metadata_of = msgspec.json.Decoder(dict[str, str])
encode = msgspec.json.encode


class Video(msgspec.Struct, frozen=True):
    """A row of `videos`; the columns are described in tables.py."""

    id: str
    tenant_id: str
    end_user: str | None
    status: Literal["queued", "in_progress", "completed", "failed"]
    model: str
    prompt: str | None
    spec: bytes
    metadata: bytes | None
    plan: bytes
    progress: int
    created_at: int
    deadline_at: int
    hold: Literal["held", "posted", "void"]
    hold_microusd: int
    charged_microusd: int | None = None
    error_code: Any = None
    error_message: str | None = None
    ended_at: int | None = None
    cancelled_at: int | None = None
    deleted_at: int | None = None
    expires_at: int | None = None
    delivered_no: int | None = None
    footage: bytes | None = None
    file_removed_at: int | None = None
    key_id: str | None = None
    refunded_microusd: int | None = None
    request_id: str | None = None

    @property
    def live(self) -> bool:
        """Whether it may still become something."""
        return self.status in {"queued", "in_progress"}

    @property
    def erased(self) -> bool:
        """Whether its prompt is gone, and with it what sellers say of it."""
        return self.prompt is None

    def read_spec(self) -> Spec:
        """Without prompt, end user and metadata, which stand in columns of their own."""
        return _spec_of.decode(self.spec)

    def read_plan(self) -> Plan:
        return _plan_of.decode(self.plan)

    def read_footage(self) -> Footage | None:
        return None if self.footage is None else _footage_of.decode(self.footage)

    def read_metadata(self) -> dict[str, str]:
        return {} if self.metadata is None else _metadata_of.decode(self.metadata)


_VIDEO = Video.__struct_fields__
_ATTEMPT = Attempt.__struct_fields__
_video_columns = [videos.c[name] for name in _VIDEO]
_attempt_columns = [attempts.c[name] for name in _ATTEMPT]

_INSERT = Statement(insert(videos).values({name: bindparam(name) for name in _VIDEO}))
_BY_ID = Statement(select(*_video_columns).where(videos.c.id == bindparam("id")))
_TAKE = Statement(select(*_video_columns).where(videos.c.id == bindparam("id")).with_for_update())
_BY_IDS = Statement(select(*_video_columns).where(videos.c.id.in_(several_ids())))
_ATTEMPTS_OF_SEVERAL = Statement(select(*_attempt_columns).where(attempts.c.video_id.in_(several_ids())))
_OVER_AMONG = Statement(
    select(videos.c.id).where(videos.c.id.in_(several_ids()), videos.c.status.in_(["completed", "failed"]))
)
_TAKE_SEVERAL = Statement(
    select(videos.c.id).where(videos.c.id.in_(several_ids())).order_by(videos.c.id).with_for_update()
)
_ATTEMPTS_OF = Statement(
    select(*_attempt_columns).where(attempts.c.video_id == bindparam("video_id")).order_by(attempts.c.number)
)
_WHOLE = Statement(
    select(*_video_columns, end_users.c.name.label("end_user_name"), *_attempt_columns)
    .outerjoin(end_users, and_(end_users.c.tenant_id == videos.c.tenant_id, end_users.c.surrogate == videos.c.end_user))
    .outerjoin(attempts, attempts.c.video_id == videos.c.id)
    .where(videos.c.id == bindparam("id"))
    .order_by(attempts.c.number)
)
_INSERT_ATTEMPT = Statement(insert(attempts).values({name: bindparam(name) for name in _ATTEMPT}))
_UPDATE_ATTEMPT = Statement(
    update(attempts)
    .where(attempts.c.video_id == bindparam("video_id"), attempts.c.number == bindparam("number"))
    .values({name: bindparam(name) for name in _ATTEMPT if name not in {"video_id", "number"}})
)


def insert_many(tx: Tx, rows: Sequence[Video]) -> None:
    """New videos."""
    tx.run_many(_INSERT, rows)


def by_id(tx: Tx, video_id: str) -> Video | None:
    """The video, hidden or not, of whichever tenant."""
    row = tx.one(_BY_ID, id=video_id)
    return None if row is None else as_structs(Video, [row])[0]


def whole(tx: Tx, video_id: str) -> tuple[Video, str | None, list[Attempt]] | None:
    """The video, its end user by its own name, and its attempts in the order of sending, all in one statement."""
    rows = tx.rows(_WHOLE, id=video_id)
    if not rows:
        return None
    width = len(_VIDEO)
    sent = [row[width + 1 :] for row in rows if row[width + 1] is not None]
    return as_structs(Video, [rows[0][:width]])[0], rows[0][width], as_structs(Attempt, sent)


def take(tx: Tx, video_id: str) -> Video | None:
    """
    The video, which nobody else changes until this unit is kept; its attempts, its work and its money with it.

    A unit that changes anything of a video takes it first of all, so that no two wait for each other.
    """
    row = tx.one(_TAKE, id=video_id)
    if row is None:
        return None
    video = as_structs(Video, [row])[0]
    tx.belongs(video_id, video.tenant_id, video.request_id)
    tx.saw("video", video_id, 0, video.status)
    tx.saw("hold", video_id, 0, video.hold)
    return video


def take_several(tx: Tx, video_ids: Sequence[str]) -> None:
    """The same for many, in the order that everybody keeps."""
    of_several(tx, _TAKE_SEVERAL, sorted(set(video_ids)))


def take_attempt(tx: Tx, video_id: str, number: int) -> tuple[Video, Attempt]:
    """The same with one of its attempts, both as they now are."""
    video, attempt = take(tx, video_id), attempt_of(tx, video_id, number)
    assert video is not None, "videos are never removed"
    assert attempt is not None, "nor are attempts"
    return video, attempt


def over_among(tx: Tx, video_ids: Sequence[str]) -> list[str]:
    """Those of these videos that have ended."""
    return [row[0] for row in of_several(tx, _OVER_AMONG, video_ids)]


def by_ids(tx: Tx, video_ids: Sequence[str]) -> dict[str, Video]:
    """Videos that are there, by id."""
    rows = of_several(tx, _BY_IDS, video_ids)
    return {video.id: video for video in as_structs(Video, rows)}


def attempts_of_several(tx: Tx, video_ids: Sequence[str]) -> dict[tuple[str, int], Attempt]:
    """Every attempt of these videos, by video and number."""
    rows = of_several(tx, _ATTEMPTS_OF_SEVERAL, video_ids)
    return {(attempt.video_id, attempt.number): attempt for attempt in as_structs(Attempt, rows)}


def attempts_of(tx: Tx, video_id: str) -> list[Attempt]:
    """In the order of sending."""
    found = as_structs(Attempt, tx.rows(_ATTEMPTS_OF, video_id=video_id))
    for attempt in found:
        tx.saw("attempt", video_id, attempt.number, attempt.state)
    return found


def attempt_of(tx: Tx, video_id: str, number: int) -> Attempt | None:
    """One attempt as it now is."""
    return next((attempt for attempt in attempts_of(tx, video_id) if attempt.number == number), None)


def insert_attempt(tx: Tx, attempt: Attempt) -> None:
    """A send, written down before it happens."""
    tx.run(_INSERT_ATTEMPT, **fields_of(attempt))
    _reached(tx, attempt)


def save_attempt(tx: Tx, attempt: Attempt) -> None:
    """All columns of an attempt as they now are."""
    tx.run(_UPDATE_ATTEMPT, **fields_of(attempt))
    _reached(tx, attempt)


def _reached(tx: Tx, attempt: Attempt) -> None:
    kind = {} if attempt.failure_kind is None else {"kind": attempt.failure_kind}
    facts = {"provider": attempt.provider, "offer": attempt.offer, **kind}
    tx.reached("attempt", attempt.video_id, attempt.number, attempt.state, **facts)


_START = Statement(
    update(videos).where(videos.c.id == bindparam("video_id"), videos.c.status == "queued").values(status="in_progress")
)
_ADVANCE = Statement(
    update(videos)
    .where(
        videos.c.id == bindparam("video_id"),
        videos.c.status == "in_progress",
        videos.c.progress < bindparam("percent"),
    )
    .values(progress=bindparam("percent"))
)
_BEGIN_RENDERING = Statement(
    update(attempts)
    .where(
        attempts.c.video_id == bindparam("of_video"),
        attempts.c.number == bindparam("of_attempt"),
        attempts.c.rendering_at.is_(None),
    )
    .values(rendering_at=bindparam("at"))
)
_FAIL = Statement(
    update(videos)
    .where(videos.c.id == bindparam("video_id"), videos.c.status.in_(["queued", "in_progress"]))
    .values(
        status="failed",
        error_code=bindparam("code"),
        error_message=bindparam("message"),
        ended_at=bindparam("at"),
        cancelled_at=bindparam("cancelled_at"),
    )
)
_COMPLETE = Statement(
    update(videos)
    .where(videos.c.id == bindparam("video_id"), videos.c.status == "in_progress")
    .values(
        status="completed",
        progress=100,
        ended_at=bindparam("at"),
        delivered_no=bindparam("attempt_no"),
        footage=bindparam("footage"),
        expires_at=bindparam("expires_at"),
    )
)
_SETTLE = Statement(
    update(videos)
    .where(videos.c.id == bindparam("video_id"), videos.c.hold == "held")
    .values(hold=bindparam("end"), charged_microusd=bindparam("charged_microusd"))
)
_HIDE = Statement(
    update(videos)
    .where(videos.c.id == bindparam("video_id"), videos.c.deleted_at.is_(None))
    .values(
        deleted_at=bindparam("at"),
        prompt=None,
        # What is still to be charged is told by these pairs then.
        metadata=case((videos.c.hold == "held", videos.c.metadata), else_=null()),
        # What tells of a file stays until the file is gone, however often that has to be tried.
        expires_at=case((videos.c.footage.is_not(None), bindparam("at", type_=BigInt)), else_=videos.c.expires_at),
        footage=case((videos.c.file_removed_at.is_not(None), null()), else_=videos.c.footage),
    )
)
_FORGET_LINKS = Statement(
    update(attempts)
    .where(attempts.c.video_id == bindparam("of_video"), attempts.c.state != "done")
    .values(link=None, message=None)
)


def start(tx: Tx, video_id: str) -> None:
    """To in_progress at the first acceptance; later ones change nothing."""
    if tx.run(_START, video_id=video_id):
        tx.reached("video", video_id, 0, "in_progress")


def advance(tx: Tx, video_id: str, percent: int) -> None:
    """Progress of a running video, only ever forward."""
    tx.run(_ADVANCE, video_id=video_id, percent=percent)


def advance_many(tx: Tx, rows: Sequence[tuple[str, int]]) -> None:
    """The same for many."""
    tx.run_many(_ADVANCE, [{"video_id": video_id, "percent": percent} for video_id, percent in sorted(rows)])


def begin_rendering(tx: Tx, rows: Sequence[tuple[str, int]]) -> None:
    """When the sellers of these attempts were first found to render."""
    tx.run_many(
        _BEGIN_RENDERING,
        [{"of_video": video_id, "of_attempt": number, "at": tx.now_us} for video_id, number in sorted(rows)],
    )


def fail(tx: Tx, video_id: str, code: str, message: str, *, at: int, cancelled: bool = False) -> bool:
    """Ends a live video; False if it had ended."""
    ended = bool(
        tx.run(_FAIL, video_id=video_id, code=code, message=message, at=at, cancelled_at=at if cancelled else None)
    )
    if ended:
        tx.reached("video", video_id, 0, "failed", code=code)
    return ended


def complete(tx: Tx, video_id: str, attempt_no: int, footage: Footage, *, at: int, expires_at: int) -> bool:
    """Our copy is in place, until `expires_at`; False if the video had ended."""
    values = {"footage": encode(footage), "at": at, "expires_at": expires_at}
    ended = bool(tx.run(_COMPLETE, video_id=video_id, attempt_no=attempt_no, **values))
    if ended:
        tx.reached("video", video_id, 0, "completed", by_attempt=attempt_no)
    return ended


def settle(tx: Tx, video_id: str, end: Literal["posted", "void"], charged_microusd: int) -> bool:
    """The end of the hold; False if it had ended."""
    settled = bool(tx.run(_SETTLE, video_id=video_id, end=end, charged_microusd=charged_microusd))
    if settled:
        tx.reached("hold", video_id, 0, end, microusd=charged_microusd)
    return settled


_GIVE_BACK = Statement(
    update(videos).where(videos.c.id == bindparam("video_id")).values(refunded_microusd=bindparam("microusd"))
)


def give_back(tx: Tx, video_id: str, microusd: int) -> None:
    """How much of its charge has been given back, in all."""
    tx.run(_GIVE_BACK, video_id=video_id, microusd=microusd)


def hide(tx: Tx, video_id: str, *, at: int) -> bool:
    """
    Deletes as the customer sees it: prompt, metadata and the sellers' payloads go, the money's rows stay.

    What was or will be charged keeps the metadata: by them a company shares its costs out.

    A film that is there has expired with it, and what was measured goes when the file does (upkeep.py).
    """
    tx.run(_FORGET_LINKS, of_video=video_id)
    hidden = bool(tx.run(_HIDE, video_id=video_id, at=at))
    if hidden:
        tx.reached("video", video_id, 0, "deleted")
    return hidden


_FORGET_PAIRS = Statement(
    update(videos)
    .where(videos.c.tenant_id == bindparam("of_tenant"), videos.c.end_user == bindparam("of_user"))
    .values(metadata=None)
)
_FORGET_SETTLED_PAIRS = Statement(
    update(settlements)
    .where(settlements.c.tenant_id == bindparam("of_tenant"), settlements.c.end_user == bindparam("of_user"))
    .values(metadata=None)
)


def forget_metadata(tx: Tx, tenant_id: str, end_user: str) -> None:
    """The pairs of all videos that were made for somebody, from the reports too."""
    for statement in (_FORGET_PAIRS, _FORGET_SETTLED_PAIRS):
        tx.run(statement, of_tenant=tenant_id, of_user=end_user)


_BY_SELLER_ID = Statement(
    select(*_attempt_columns).where(
        attempts.c.provider == bindparam("provider"), attempts.c.seller_id == bindparam("seller_id")
    )
)
_IN_STATE = Statement(
    select(*_attempt_columns, videos.c.tenant_id, videos.c.status)
    .join(videos, videos.c.id == attempts.c.video_id)
    .where(attempts.c.state == bindparam("state"))
    .order_by(attempts.c.started_at)
    .limit(bindparam("most"))
)


def attempt_by_seller_id(tx: Tx, provider: str, seller_id: str) -> Attempt | None:
    """Who holds this id of the seller's."""
    rows = tx.rows(_BY_SELLER_ID, provider=provider, seller_id=seller_id)
    return as_structs(Attempt, rows)[0] if rows else None


def attempts_in_state(tx: Tx, state: str, *, most: int) -> list[tuple[Attempt, str, str]]:
    """The oldest attempts in a state, each with its tenant and its video's status."""
    rows = tx.rows(_IN_STATE, state=state, most=most)
    return [(as_structs(Attempt, [row[:-2]])[0], row[-2], row[-1]) for row in rows]


_NEWEST = and_(videos.c.tenant_id == bindparam("tenant_id"), videos.c.deleted_at.is_(None))
_MARK_AT: BindParameter[int] = bindparam("mark_at")
_MARK_ID: BindParameter[str] = bindparam("mark_id")
_OF_USER = or_(bindparam("end_user", type_=Text).is_(None), videos.c.end_user == bindparam("end_user"))


def _page(*, newest_first: bool, from_start: bool) -> Statement:
    before = or_(videos.c.created_at < _MARK_AT, and_(videos.c.created_at == _MARK_AT, videos.c.id < _MARK_ID))
    after = or_(videos.c.created_at > _MARK_AT, and_(videos.c.created_at == _MARK_AT, videos.c.id > _MARK_ID))
    order = (videos.c.created_at.desc(), videos.c.id.desc()) if newest_first else (videos.c.created_at, videos.c.id)
    query = select(*_video_columns).where(_NEWEST, _OF_USER).order_by(*order).limit(bindparam("most"))
    if not from_start:
        query = query.where(before if newest_first else after)
    return Statement(query)


_PAGES = {
    (newest, start): _page(newest_first=newest, from_start=start) for newest in (True, False) for start in (True, False)
}


def page(
    tx: Tx, tenant_id: str, *, end_user: str | None, after: Video | None, newest_first: bool, most: int
) -> list[Video]:
    """A tenant's videos by time of creation, behind `after`, which may be hidden by now."""
    values: dict[str, Any] = {"tenant_id": tenant_id, "end_user": end_user, "most": most}
    if after is not None:
        values |= {"mark_at": after.created_at, "mark_id": after.id}
    rows = tx.rows(_PAGES[newest_first, after is None], **values)
    return as_structs(Video, rows)


class Bound(msgspec.Struct, frozen=True):
    """An idempotency key and the video that it stands for."""

    tenant_id: str
    key: str
    fingerprint: str
    video_id: str
    created_at: int


_BOUND = Bound.__struct_fields__
_INSERT_BOUND = Statement(insert(idempotency).values({name: bindparam(name) for name in _BOUND}))
_BOUND_BY_KEY = Statement(
    select(*[idempotency.c[name] for name in _BOUND]).where(
        idempotency.c.tenant_id == bindparam("tenant_id"),
        idempotency.c.key == bindparam("key"),
    )
)
_UNBIND = Statement(
    idempotency.delete().where(
        idempotency.c.tenant_id == bindparam("tenant_id"),
        idempotency.c.key == bindparam("key"),
        idempotency.c.created_at < bindparam("before"),
    )
)


def bound_to(tx: Tx, tenant_id: str, key: str) -> Bound | None:
    """What an idempotency key stands for, however old."""
    rows = tx.rows(_BOUND_BY_KEY, tenant_id=tenant_id, key=key)
    return as_structs(Bound, rows)[0] if rows else None


def bind(tx: Tx, rows: Sequence[Bound]) -> None:
    """Keys to the videos accepted under them. A key that is bound already breaks the unit."""
    tx.run_many(_INSERT_BOUND, rows)


def unbind_older(tx: Tx, tenant_id: str, key: str, *, before: int) -> None:
    """Frees a key that was bound longer ago than it is honoured."""
    tx.run(_UNBIND, tenant_id=tenant_id, key=key, before=before)


_COUNTS = Statement(
    select(videos.c.status, func.count(), func.min(videos.c.created_at))
    .where(videos.c.status.in_(["queued", "in_progress"]))
    .group_by(videos.c.status)
)
_WAITING = Statement(
    select(func.count()).select_from(
        select(videos.c.id).where(videos.c.status == "queued").limit(bindparam("most")).subquery("waiting")
    )
)
_LIVE = Statement(select(videos.c.id, videos.c.created_at).where(videos.c.status.in_(["queued", "in_progress"])))
_HELD = Statement(
    select(videos.c.tenant_id, func.sum(videos.c.hold_microusd))
    .where(videos.c.hold == "held")
    .group_by(videos.c.tenant_id)
)
_UNKNOWN = Statement(
    select(attempts.c.provider, func.count(), func.sum(attempts.c.possible_microusd))
    .where(attempts.c.state.in_(["unknown", "lost"]))
    .group_by(attempts.c.provider)
)
_OPEN = Statement(
    select(attempts.c.provider).where(attempts.c.state.in_(["sending", "running", "unknown", "lost"])).distinct()
)
_FETCHED = Statement(
    select(attempts.c.provider)
    .join(work, and_(work.c.video_id == attempts.c.video_id, work.c.attempt_no == attempts.c.number))
    .where(attempts.c.state == "done")
    .distinct()
)
_RECENT = Statement(
    select(
        func.min(attempts.c.provider),
        func.count(),
        func.sum(case((attempts.c.state.in_(["done"]), 1), else_=0)),
        func.sum(case((attempts.c.state.in_(["refused", "failed"]), 1), else_=0)),
        func.sum(case((attempts.c.state.in_(["unknown", "lost"]), 1), else_=0)),
        func.sum(case((attempts.c.state.in_(["sending", "running"]), 1), else_=0)),
    )
    .where(attempts.c.started_at >= bindparam("since"))
    .group_by(attempts.c.provider.concat(""))  # by the bare column SQLite would go through all there ever were
)


def live_counts(tx: Tx) -> list[tuple[str, int, int]]:
    """Status, how many, and when the oldest was created."""
    return [(row[0], row[1], row[2]) for row in tx.rows(_COUNTS)]


def count_waiting(tx: Tx, *, most: int) -> int:
    """Videos that no seller has taken yet; counted no further than `most`."""
    row = tx.one(_WAITING, most=most)
    return 0 if row is None else int(row[0])


def live_ids(tx: Tx) -> list[tuple[str, int]]:
    """Every video that may still become something, and when it was accepted."""
    return [(row[0], row[1]) for row in tx.rows(_LIVE)]


def held_by_tenant(tx: Tx) -> dict[str, int]:
    """Micro-dollars held."""
    return {row[0]: int(row[1]) for row in tx.rows(_HELD)}


def unknown_by_provider(tx: Tx) -> dict[str, tuple[int, int]]:
    """Attempts of unknown end, and the micro-dollars that they may have cost."""
    return {row[0]: (int(row[1]), int(row[2])) for row in tx.rows(_UNKNOWN)}


def owed_providers(tx: Tx) -> set[str]:
    """Providers with attempts that are not over; one that is done is owed its copy as long as work is left of it."""
    return {row[0] for statement in (_OPEN, _FETCHED) for row in tx.rows(statement)}


def recent_ends(tx: Tx, *, since: int) -> list[tuple[str, int, int, int, int, int]]:
    """Per provider: attempts started since then, and of these done, refused or failed, unknown, under way."""
    return [(row[0], *(int(n) for n in row[1:])) for row in tx.rows(_RECENT, since=since)]
