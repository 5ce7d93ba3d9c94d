"""The admins' log, and the bounds on what operators type."""

from typing import Any

import msgspec

from proxy.core.clock import Clock
from proxy.core.errors import InvalidValue
from proxy.core.ids import NewId
from proxy.store import tenants
from proxy.store.base import Tx
from proxy.store.tenants import AdminAct

REASON_MAX_CHARS = 1000


def record(
    tx: Tx,
    new_id: NewId,
    *,
    at: int,
    actor: str,
    action: str,
    subject: str,
    before: Any = None,
    after: Any = None,
    reason: str | None,
) -> None:
    """A row that is never changed, in the transaction of the change that it tells of."""
    act = AdminAct(
        id=f"act_{new_id(at)}",
        at=at,
        actor=actor,
        action=action,
        subject=subject,
        before=None if before is None else msgspec.json.encode(before).decode(),
        after=None if after is None else msgspec.json.encode(after).decode(),
        reason=reason,
    )
    tenants.record(tx, act)


class Clerk:
    """Writes such rows for one who changes things."""

    def __init__(self, clock: Clock, new_id: NewId) -> None:
        self._clock = clock
        self._new_id = new_id

    def record(
        self, tx: Tx, actor: str, action: str, subject: str, before: Any, after: Any, reason: str | None
    ) -> None:
        record(
            tx,
            self._new_id,
            at=self._clock(),
            actor=actor,
            action=action,
            subject=subject,
            before=before,
            after=after,
            reason=reason,
        )


def check_text(param: str, text: str | None, most: int) -> None:
    """Bounds on what people type. Raises InvalidValue."""
    if text is not None and (len(text) > most or not text.isprintable()):
        raise InvalidValue(f"'{param}' has at most {most} characters, all of them printable.", param=param)
