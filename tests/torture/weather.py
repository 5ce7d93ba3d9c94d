"""
A server in bad weather: its machine's clock is wrong, and its disk fills up at the worst of moments.

It is told by files in its folder, and knows nothing of it; `mortal` wraps in the same way.
"""

import functools
import os
import resource
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from proxy import app
from proxy.core.account import Account
from proxy.core.clock import SECOND_US, system_clock
from proxy.core.wire import Call, Reply
from proxy.outside.transport import Transport
from proxy.services import folding, worker
from proxy.services.housekeeping import keep_house_forever
from proxy.store import sqlite
from tests.torture import mortal

CLOCK = "clock-is-off-by"
"""A file: seconds that the machine's clock is ahead of the right time."""
FULL_AFTER_SUBMIT = "disk-full-after-submit"
"""A file: when a seller has answered the next submit, no file takes anything any more, and this file is gone."""


def wrong_clock() -> int:
    """As the machine's; wrong by what the file of the working folder says."""
    try:
        return system_clock() + int(Path(CLOCK).read_text()) * SECOND_US
    except FileNotFoundError:
        return system_clock()


def let_files_take(process_id: int, most_bytes: int) -> None:
    """Any file of that process; what it writes beyond is refused by the kernel, as by a disk without room."""
    resource.prlimit(process_id, resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))


class UnluckyTransport(Transport):
    """The disk is full once a seller has answered a submit, if that was asked for."""

    async def send(
        self, account: Account, authorization: tuple[str, str], call: Call, *, timeout_s: float, fresh: bool = False
    ) -> Reply:
        reply = await super().send(account, authorization, call, timeout_s=timeout_s, fresh=fresh)
        if fresh and call.method == "POST" and os.path.exists(FULL_AFTER_SUBMIT):  # noqa: ASYNC240, PTH110 # at once
            os.unlink(FULL_AFTER_SUBMIT)  # noqa: PTH108 # the same
            let_files_take(os.getpid(), 0)
        return reply


def live(arguments: list[str], folder: Path, env: dict[str, str], log: Path, hasty: bool) -> None:
    """`reelay` with these arguments, in a process of its own."""
    vars(sqlite).update(system_clock=wrong_clock)
    vars(app).update(Transport=UnluckyTransport)
    if hasty:
        vars(folding).update(SETTLED_US=5 * SECOND_US)
        vars(worker).update(keep_house_forever=functools.partial(keep_house_forever, every_s=2.0))
    mortal.live(arguments, folder, env, log, dies_at=None, diary=None, hasty=False)


def start(arguments: list[str], folder: Path, env: dict[str, str], log: Path, *, hasty: bool) -> ForkServerProcess:
    """As `mortal.start`; but days are summed up of what no transaction under way can still write before."""
    told: tuple[Any, ...] = (arguments, folder, env, log, hasty)
    process = mortal.nursery.Process(target=live, args=told, daemon=True)
    process.start()
    return process
