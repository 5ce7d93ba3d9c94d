"""The file host: links with a life, ranges, and every way that a download can go wrong."""

import asyncio
import hashlib
import hmac
import re

from litestar.types import Receive, Send

from proxy.simulator.clock import Clock
from proxy.simulator.exchange import (
    Answer,
    Asked,
    Refused,
    gone_within,
    hang_up,
    html_answer,
    json_answer,
    send_answer,
    send_start,
)
from proxy.simulator.faults import Faults
from proxy.simulator.film import Films
from proxy.simulator.job import Job
from proxy.simulator.jobs import Jobs
from proxy.simulator.journal import Journal
from proxy.simulator.ledger import Ledger

LINK_FLOOR_S = 60.0
"""Real seconds that a link lives at the least, however fast the clock."""

CHUNK_BYTES = 262_144
SLOW_PARTS = 20
SLOW_PART_S = 1.5

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_SIGNING_KEY = b"sandbox file host"


def signature(file_id: str, expires_v: int) -> str:
    return hmac.new(_SIGNING_KEY, f"{file_id}:{expires_v}".encode(), hashlib.sha256).hexdigest()[:32]


class FileHost:
    """Serves the clips of jobs that succeeded."""

    def __init__(
        self, *, clock: Clock, jobs: Jobs, films: Films, faults: Faults, ledger: Ledger, journal: Journal
    ) -> None:
        self._clock = clock
        self._jobs = jobs
        self._films = films
        self._faults = faults
        self._ledger = ledger
        self._journal = journal

    def link(self, job: Job, *, life_s: float, signed: bool) -> str:
        """Where a job's clip lies; a signed link carries its own end."""
        url = f"{job.origin}/files/{job.seller}/{job.file_id}/video.mp4"
        if not signed:
            return url
        dead = "expired" in job.faults and not job.links_renewed
        expires_v = int(self._clock.now_s() + (-1.0 if dead else self._life_s(life_s)))
        return f"{url}?sig={signature(job.file_id, expires_v)}&exp={expires_v}"

    def size_bytes(self, job: Job) -> int | None:
        return self._films.size_bytes(job.shape)

    def _life_s(self, life_s: float) -> float:
        return max(life_s, LINK_FLOOR_S / self._clock.factor)

    async def serve(self, asked: Asked, receive: Receive, send: Send, *, life_s: float, signs_links: bool) -> int:
        """Answers a download; returns the status, for the journal."""
        if any(name in asked.headers for name in ("authorization", "x-api-key", "cookie")):
            self._journal.files_saw_key += 1
        try:
            job = self._job(asked, life_s=life_s, signs_links=signs_links)
            faults = self._strike(job, asked, signs_links=signs_links)
            self._refuse(job, faults)
            clip = await self._films.clip(job.shape)
            start, end = _span(asked, len(clip))
        except Refused as no:
            await send_answer(no.answer, receive, send)
            return no.answer.status
        return await self._stream(job, clip, start, end, asked, faults, receive, send)

    def _job(self, asked: Asked, *, life_s: float, signs_links: bool) -> Job:
        self._jobs.run_due()
        parts = asked.path.strip("/").split("/")
        job = self._jobs.by_file(parts[0]) if len(parts) == 2 else None
        if asked.method not in {"GET", "HEAD"}:
            raise Refused(json_answer(405, {"error": "method not allowed"}))
        if job is None or job.state != "succeeded" or job.ended_v is None:
            raise Refused(json_answer(404, {"error": "no such file"}))
        too_old = (
            self._is_stale(job, asked)
            if signs_links
            else self._clock.now_s() > job.ended_v + self._life_s(job.extra.get("link_life_s", life_s))
        )
        if too_old:
            job.links_renewed = True
            if "expired" in job.faults:
                self._faults.note(job.seller, "expired")
            raise Refused(json_answer(403, {"error": "the link has expired"}))
        return job

    def _is_stale(self, job: Job, asked: Asked) -> bool:
        expires, given = asked.query.get("exp", ""), asked.query.get("sig", "")
        if not expires.isdecimal() or not hmac.compare_digest(signature(job.file_id, int(expires)), given):
            return True
        return self._clock.now_s() > int(expires)

    def _strike(self, job: Job, asked: Asked, *, signs_links: bool) -> dict[str, float | None]:
        """The job's own faults and those armed for this download; a signed link tells its age by itself."""
        own = {id_: delay_s for id_, delay_s in job.faults.items() if not (signs_links and id_ == "expired")}
        armed = self._faults.draw(job.seller, "file") if asked.method == "GET" else {}
        return {**own, **armed}

    def _refuse(self, job: Job, faults: dict[str, float | None]) -> None:
        for id_ in ("url_404", "html_file", "expired"):
            if id_ in faults:
                self._faults.note(job.seller, id_)
                break
        if "url_404" in faults:
            raise Refused(json_answer(404, {"error": "no such file"}))
        if "html_file" in faults:
            raise Refused(html_answer(200, "Be right back"))
        if "expired" in faults:
            raise Refused(json_answer(403, {"error": "the link has expired"}))

    async def _stream(
        self,
        job: Job,
        clip: bytes,
        start: int,
        end: int,
        asked: Asked,
        faults: dict[str, float | None],
        receive: Receive,
        send: Send,
    ) -> int:
        """Sends bytes `start` to `end`, the end excluded."""
        partial = "range" in asked.headers
        headers = [("accept-ranges", "bytes"), ("etag", f'"{job.file_id}"')]
        if partial:
            headers.append(("content-range", f"bytes {start}-{end - 1}/{len(clip)}"))
        status = 206 if partial else 200
        await send_start(send, status, "video/mp4", end - start, tuple(headers))
        if asked.method == "HEAD":
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return status
        for id_ in ("truncated", "slow_file"):
            if id_ in faults:
                self._faults.note(job.seller, id_)
        stop = start + (end - start) // 2 if "truncated" in faults else end
        if not await self._pour(clip[start:stop], faults, receive, send):
            return status
        if stop < end:
            await hang_up(receive, reset=False)
            return status
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        if end == len(clip):
            self._ledger.delivered(job)
            self._jobs.on_change(job)
        return status

    async def _pour(self, part: bytes, faults: dict[str, float | None], receive: Receive, send: Send) -> bool:
        """Sends a part in pieces; False if the client left meanwhile."""
        pause_s = 0.0
        piece_bytes = CHUNK_BYTES
        if "slow_file" in faults:
            told_s = faults["slow_file"]
            pause_s = self._clock.real_s(SLOW_PART_S) if told_s is None else told_s
            piece_bytes = len(part) // SLOW_PARTS + 1
        for offset in range(0, len(part), piece_bytes):
            if pause_s and await gone_within(receive, pause_s):
                return False
            await send({"type": "http.response.body", "body": part[offset : offset + piece_bytes], "more_body": True})
            await asyncio.sleep(0)
        return True


def _span(asked: Asked, size_bytes: int) -> tuple[int, int]:
    """The bytes asked for, the end excluded. Raises Refused where there are none."""
    text = asked.headers.get("range")
    if text is None:
        return 0, size_bytes
    found = _RANGE.fullmatch(text.strip())
    first, last = found.groups() if found else ("", "")
    if first:
        start, end = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
    elif last:
        start, end = max(0, size_bytes - int(last)), size_bytes
    else:
        start, end = size_bytes, size_bytes
    if start >= end:
        unsatisfied = Answer(status=416, headers=(("content-range", f"bytes */{size_bytes}"),))
        raise Refused(unsatisfied)
    return start, end
