"""What has outlived its time: found in batches, removed by statements that may be repeated and may meet each other."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import and_, bindparam, case, delete, func, null, or_, select, update

from proxy.core.video import Footage
from proxy.store.base import Statement, Tx
from proxy.store.tables import attempts, idempotency, outcomes, videos

_footage_of = msgspec.json.Decoder(Footage)


class ExpiredFilm(msgspec.Struct, frozen=True, kw_only=True):
    """A video whose film has expired and is not known to be gone."""

    video_id: str
    expires_at: int
    footage: Footage | None
    """None where nobody knows of a file any more."""


_EXPIRED = and_(videos.c.expires_at <= bindparam("now"), videos.c.file_removed_at.is_(None))
_FILMS = Statement(
    select(videos.c.id, videos.c.expires_at, videos.c.footage)
    .where(
        _EXPIRED,
        videos.c.expires_at >= bindparam("mark_at"),
        or_(videos.c.expires_at > bindparam("mark_at"), videos.c.id > bindparam("mark_id")),
    )
    .order_by(videos.c.expires_at, videos.c.id)
    .limit(bindparam("most"))
)
_FILM_GONE = Statement(
    update(videos)
    .where(videos.c.id == bindparam("video_id"), videos.c.file_removed_at.is_(None))
    .values(
        file_removed_at=bindparam("at"),
        footage=case((videos.c.deleted_at.is_not(None), null()), else_=videos.c.footage),
    )
)


def expired_films(tx: Tx, *, after: ExpiredFilm | None, most: int) -> list[ExpiredFilm]:
    """The longest expired first, behind `after`: one that cannot be deleted keeps nobody from the others."""
    mark_at, mark_id = (0, "") if after is None else (after.expires_at, after.video_id)
    rows = tx.rows(_FILMS, now=tx.now_us, mark_at=mark_at, mark_id=mark_id, most=most)
    return [
        ExpiredFilm(video_id=row[0], expires_at=row[1], footage=None if row[2] is None else _footage_of.decode(row[2]))
        for row in rows
    ]


def films_gone(tx: Tx, video_ids: Sequence[str]) -> int:
    """How many were marked just now. What was measured stays, unless the video was deleted."""
    return sum(tx.run(_FILM_GONE, video_id=video_id, at=tx.now_us) for video_id in sorted(video_ids))


_HAS_OLD_PROMPT = and_(videos.c.ended_at < bindparam("before"), videos.c.prompt.is_not(None))
_PROMPTS = Statement(select(videos.c.id).where(_HAS_OLD_PROMPT).order_by(videos.c.ended_at).limit(bindparam("most")))
_PROMPTS_COUNT = Statement(select(func.count()).select_from(videos).where(_HAS_OLD_PROMPT))
_FORGET_PROMPT = Statement(
    update(videos).where(videos.c.id == bindparam("video_id"), videos.c.prompt.is_not(None)).values(prompt=None)
)
_FORGET_WORDS = Statement(
    update(attempts).where(attempts.c.video_id == bindparam("video_id")).values(message=None, link=None)
)


def old_prompts(tx: Tx, *, before: int, most: int) -> list[str]:
    """Videos that ended before then and whose prompt is kept."""
    return [row[0] for row in tx.rows(_PROMPTS, before=before, most=most)]


def count_old_prompts(tx: Tx, *, before: int) -> int:
    """How many `old_prompts` there are."""
    return _number(tx, _PROMPTS_COUNT, before)


def erase_prompts(tx: Tx, video_ids: Sequence[str]) -> int:
    """Prompts, and the sellers' own words and links beside them; how many prompts were there."""
    erased = 0
    for video_id in sorted(video_ids):
        # The video's row before its attempts', as everybody does: else two could wait for each other.
        erased += tx.run(_FORGET_PROMPT, video_id=video_id)
        tx.run(_FORGET_WORDS, video_id=video_id)
    return erased


_OLD_KEY = idempotency.c.created_at < bindparam("before")
_KEYS = Statement(select(idempotency.c.tenant_id, idempotency.c.key).where(_OLD_KEY).limit(bindparam("most")))
_KEYS_COUNT = Statement(select(func.count()).select_from(idempotency).where(_OLD_KEY))
_DROP_KEY = Statement(
    delete(idempotency).where(
        idempotency.c.tenant_id == bindparam("tenant_id"), idempotency.c.key == bindparam("key"), _OLD_KEY
    )
)


def old_keys(tx: Tx, *, before: int, most: int) -> list[tuple[str, str]]:
    """Idempotency keys bound before then, each with its tenant."""
    return [(row[0], row[1]) for row in tx.rows(_KEYS, before=before, most=most)]


def count_old_keys(tx: Tx, *, before: int) -> int:
    """How many `old_keys` there are."""
    return _number(tx, _KEYS_COUNT, before)


def drop_keys(tx: Tx, keys: Sequence[tuple[str, str]], *, before: int) -> int:
    """How many went; one that was bound anew meanwhile stays."""
    return sum(tx.run(_DROP_KEY, tenant_id=tenant_id, key=key, before=before) for tenant_id, key in sorted(keys))


_OLD_OUTCOME = outcomes.c.at < bindparam("before")
_OUTCOMES = Statement(
    select(outcomes.c.video_id, outcomes.c.attempt_no, outcomes.c.part)
    .where(_OLD_OUTCOME)
    .order_by(outcomes.c.at)
    .limit(bindparam("most"))
)
_OUTCOMES_COUNT = Statement(select(func.count()).select_from(outcomes).where(_OLD_OUTCOME))
_DROP_OUTCOME = Statement(
    delete(outcomes).where(
        outcomes.c.video_id == bindparam("video_id"),
        outcomes.c.attempt_no == bindparam("attempt_no"),
        outcomes.c.part == bindparam("part"),
    )
)

Outcome = tuple[str, int, str]
"""The key of a row: video, attempt, part."""


def old_outcomes(tx: Tx, *, before: int, most: int) -> list[Outcome]:
    """Ends of submits and renders from before then, which no breaker looks at any more."""
    return [(row[0], row[1], row[2]) for row in tx.rows(_OUTCOMES, before=before, most=most)]


def count_old_outcomes(tx: Tx, *, before: int) -> int:
    """How many `old_outcomes` there are."""
    return _number(tx, _OUTCOMES_COUNT, before)


def drop_outcomes(tx: Tx, rows: Sequence[Outcome]) -> int:
    """How many went."""
    return sum(
        tx.run(_DROP_OUTCOME, video_id=video, attempt_no=number, part=part) for video, number, part in sorted(rows)
    )


def _number(tx: Tx, statement: Statement, before: int) -> int:
    row = tx.one(statement, before=before)
    return 0 if row is None else int(row[0])
