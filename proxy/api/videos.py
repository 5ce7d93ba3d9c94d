"""`/v1/videos`: OpenAI's Videos API, and the quote."""

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import structlog
from litestar import Request, Response, delete, get, head, post
from litestar.params import FromPath
from litestar.response import Stream

from proxy.api.answers import Answer
from proxy.api.auth import authenticate
from proxy.api.bodies import CreateRequest, ListQuery, parse_list_query, read_create
from proxy.api.documents import refuse_length
from proxy.api.failures import envelope
from proxy.api.prefer import preferred_wait_s
from proxy.api.ranges import Portion, Unsatisfiable, Whole, content_headers, not_modified, parse_range, strong_etag
from proxy.api.schemas import VideoDeleted, video_page
from proxy.api.views import Look, encode, look_at, look_at_new, own_look, poll_after_ms, show, show_quote
from proxy.core.clock import iso
from proxy.core.errors import InvalidValue, NotFound, Overloaded, Unsupported
from proxy.core.tenant import Caller
from proxy.core.video import Footage
from proxy.outside.base import StorageFailed
from proxy.services.cancel import cancel
from proxy.services.cancel import delete as delete_video
from proxy.services.house import House
from proxy.services.intake import Accepted, accept, quote
from proxy.services.waiting import LONGEST_S
from proxy.store import tenants, videos
from proxy.store.base import Tx
from proxy.store.videos import Video

_log = structlog.get_logger("reelay.video")

MAX_BODY_BYTES = 24 * 1024 * 1024
"""A picture as a data URL, the largest that OpenAI takes, and room for the rest."""
MAX_KEY_CHARS = 255

AnyRequest = Request[Any, Any, Any]


def house_of(request: AnyRequest) -> House:
    house: House = request.app.state["house"]
    return house


def _json(value: Any, headers: dict[str, str] | None = None) -> Response[bytes]:
    return Answer(encode(value), headers)


def _video(
    house: House, look: Look, warnings: tuple[str, ...] = (), headers: dict[str, str] | None = None
) -> Response[bytes]:
    if look.video.live:
        headers = {**(headers or {}), "openai-poll-after-ms": str(poll_after_ms(look))}
    return _json(show(house, look, warnings), headers)


def _unknown_video(video_id: str) -> NotFound:
    return NotFound(f"No video found with id '{video_id[:80]}'.", param="video_id")


async def _wish(request: AnyRequest) -> CreateRequest:
    refuse_length(request.headers.get("content-length"), max_bytes=MAX_BODY_BYTES)
    return await read_create(
        request.headers.get("content-type"),
        request.stream(),
        max_bytes=MAX_BODY_BYTES,
        unknown_fields=house_of(request).rules.unknown_fields,
    )


def idempotency_key(request: AnyRequest) -> str | None:
    """Raises InvalidValue for one that is too long or empty."""
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= MAX_KEY_CHARS:
        raise InvalidValue(f"An Idempotency-Key has 1 to {MAX_KEY_CHARS} characters.", param="Idempotency-Key")
    return key


@post("/v1/videos", status_code=200)
async def create_video(request: AnyRequest) -> Response[bytes]:
    """Accept a video."""
    house = house_of(request)
    caller = await authenticate(request, "videos")
    key = idempotency_key(request)
    wait_s = preferred_wait_s(request.headers.getall("prefer")) if "prefer" in request.headers else None
    wish = await _wish(request)
    accepted = await accept(
        house,
        caller,
        wish.ask,
        fingerprint=wish.fingerprint,
        idempotency_key=key,
        request_id=request.scope["state"]["request_id"],
    )
    if accepted.video.deleted_at is not None:
        raise NotFound("The video that this Idempotency-Key stands for was deleted.", param="Idempotency-Key")
    if wait_s is not None:
        return await _held(request, accepted, min(wait_s, LONGEST_S), wish.warnings)
    return _video(house, await _look_at_accepted(house, accepted), wish.warnings)


async def _look_at_accepted(house: House, accepted: Accepted) -> Look:
    if accepted.decision is not None:
        return look_at_new(accepted.video, accepted.decision)
    return await house.store.read_now(lambda tx: look_at(tx, accepted.video))


async def _held(request: AnyRequest, accepted: Accepted, wait_s: int, warnings: tuple[str, ...]) -> Response[bytes]:
    """The answer once the video has ended, or `wait_s` have passed; the header tells whether that was waited for."""
    house, video, begun = house_of(request), accepted.video, time.perf_counter()
    honoured = not video.live or await house.waiting.for_end(
        video.tenant_id, video.id, most_s=wait_s, gone=lambda: _gone(request)
    )
    # How fast we are is not measured by how long a client likes to wait.
    request.scope["state"]["held_s"] = time.perf_counter() - begun
    try:
        look = await house.store.read_now(lambda tx: own_look(tx, video.tenant_id, video.id))
    except Overloaded:
        # It is bought; a refusal now would have its client buy another.
        look = await _look_at_accepted(house, accepted)
    if look is None:
        raise NotFound(f"Video '{video.id}' was deleted while it was waited for.")
    return _video(house, look, warnings, {"preference-applied": f"wait={wait_s}"} if honoured else None)


async def _gone(request: AnyRequest) -> None:
    """Returns when the client has closed the connection; the body has been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


@post("/v1/videos/quote", status_code=200)
async def quote_video(request: AnyRequest) -> Response[bytes]:
    """Tell what a video would cost, and by whom it would be made; buys nothing."""
    house = house_of(request)
    caller = await authenticate(request, "videos")
    wish = await _wish(request)
    quoted = await quote(house, caller, wish.ask)
    return _json(show_quote(house.rules, quoted.decision, wish.warnings, budget=quoted.budget))


@get("/v1/videos/{video_id:str}")
async def retrieve_video(request: AnyRequest, video_id: FromPath[str]) -> Response[bytes]:
    """Tell where a video stands."""
    house = house_of(request)
    caller = await authenticate(request, "videos")
    look = await house.store.read_now(lambda tx: own_look(tx, caller.tenant.id, video_id))
    if look is None:
        raise _unknown_video(video_id)
    return _video(house, look)


@get("/v1/videos")
async def list_videos(request: AnyRequest) -> Response[bytes]:
    """List a tenant's videos by time of creation."""
    house = house_of(request)
    caller = await authenticate(request, "videos")
    asked = request.query_params
    query = parse_list_query(*(asked.get(name) for name in ("limit", "order", "after", "end_user_id")))

    def unit(tx: Tx) -> list[Look]:
        return [look_at(tx, video) for video in _page(tx, caller, query)]

    looks = await house.store.read(unit)
    shown = tuple(show(house, look) for look in looks[: query.limit])
    return _json(video_page(shown, has_more=len(looks) > query.limit))


def _page(tx: Tx, caller: Caller, query: ListQuery) -> list[Video]:
    """One more than asked for, which tells whether there is a next page."""
    after = None
    if query.after is not None:
        after = videos.by_id(tx, query.after)
        if after is None or after.tenant_id != caller.tenant.id:
            raise InvalidValue("'after' names no video of yours.", param="after")
    end_user = None
    if query.end_user_id is not None:
        end_user = tenants.surrogate_of(tx, caller.tenant.id, query.end_user_id)
        if end_user is None:
            return []
    if query.limit == 0:
        return []
    return videos.page(
        tx, caller.tenant.id, end_user=end_user, after=after, newest_first=query.order == "desc", most=query.limit + 1
    )


@delete("/v1/videos/{video_id:str}", status_code=200)
async def remove_video(request: AnyRequest, video_id: FromPath[str]) -> Response[bytes]:
    """Cancel a video where it still runs, hide it and erase what its customer gave."""
    house = house_of(request)
    caller = await authenticate(request, "videos")
    if not await delete_video(house, caller.tenant.id, video_id):
        raise _unknown_video(video_id)
    return _json(VideoDeleted(id=video_id))


@post("/v1/videos/{video_id:str}/cancel", status_code=200)
async def cancel_video(request: AnyRequest, video_id: FromPath[str]) -> Response[bytes]:
    """Stop a video; it stays readable as failed."""
    house = house_of(request)
    caller = await authenticate(request, "videos")
    video = await cancel(house, caller.tenant.id, video_id)
    if video is None:
        raise _unknown_video(video_id)
    return _video(house, await house.store.read_now(lambda tx: look_at(tx, video)))


@post(["/v1/videos/{video_id:str}/remix", "/v1/videos/edits", "/v1/videos/extensions", "/v1/videos/characters"])
async def refuse_operation(request: AnyRequest) -> Response[bytes]:
    """Say that no offer can do this."""
    await authenticate(request, "videos")
    operation = request.url.path.rsplit("/", 1)[-1]
    raise Unsupported(f"No offer can do '{operation}'; videos are made from text.")


_VARIANTS = frozenset({"thumbnail", "spritesheet"})


async def _film(request: AnyRequest, video_id: str) -> tuple[House, Footage]:
    house = house_of(request)
    caller = await authenticate(request, "videos")
    variant = request.query_params.get("variant", "video")
    if variant in _VARIANTS:
        raise Unsupported(f"The variant '{variant}' is not made; 'video' is.", param="variant")
    if variant != "video":
        raise InvalidValue("'variant' must be 'video'.", param="variant")
    video = await house.store.read_now(lambda tx: videos.by_id(tx, video_id))
    if video is None or video.tenant_id != caller.tenant.id or video.deleted_at is not None:
        raise _unknown_video(video_id)
    footage = video.read_footage()
    if video.expires_at is not None and house.clock() >= video.expires_at:
        raise NotFound(
            f"Video '{video.id}' expired at {iso(video.expires_at)}; its film is kept no more.", param="video_id"
        )
    if footage is None:
        ended = f"has failed ({video.error_code})" if video.status == "failed" else "is not ready yet"
        raise NotFound(f"Video '{video.id}' {ended}; there is no content to download.", param="video_id")
    return house, footage


def _headers(footage: Footage, portion: Portion, etag: str) -> dict[str, str]:
    name = footage.key.rsplit("/", 1)[-1]
    return content_headers(portion, size=footage.size_bytes, etag=etag, media_type="video/mp4", filename=name)


@get("/v1/videos/{video_id:str}/content")
async def download_video(request: AnyRequest, video_id: FromPath[str]) -> Response[Any]:
    """Send the film, or the part of it that is asked for."""
    house, footage = await _film(request, video_id)
    etag = strong_etag(footage.sha256)
    if not_modified(request.headers.get("if-none-match"), etag):
        return _not_modified(etag)
    portion = parse_range(request.headers.get("range"), footage.size_bytes, request.headers.get("if-range"), etag)
    headers = _headers(footage, portion, etag)
    if isinstance(portion, Unsatisfiable):
        beyond = f"The film has {footage.size_bytes} bytes; the range lies beyond them."
        return envelope(portion.status, beyond, "invalid_request_error", "Range", InvalidValue.code, headers)
    start, end = (0, footage.size_bytes) if isinstance(portion, Whole) else (portion.start, portion.end)
    pieces = await _pieces(house, footage.key, start, end)
    return Stream(pieces, status_code=portion.status, headers=headers, media_type="video/mp4")


def _not_modified(etag: str) -> Response[None]:
    return HeadersOnly(None, status_code=304, headers={"etag": etag, "cache-control": "private, no-transform"})


async def _pieces(house: House, key: str, start: int, end: int) -> AsyncIterator[bytes]:
    """
    The first of them is in hand before the answer begins, which could not be taken back.

    Raises Overloaded where the storage does not give the film just now.
    """
    pieces = house.storage.read(key, start, end)
    try:
        first = await anext(pieces)
    except StorageFailed as exc:
        house.metrics.store_failed(store="files")
        _log.error("film.not_read", file=key, why=str(exc))
        raise Overloaded("The film cannot be read just now.", retry_after_s=30) from exc
    return _rejoined(first, pieces)


async def _rejoined(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(rest) as pieces:
        yield first
        async for piece in pieces:
            yield piece


@head("/v1/videos/{video_id:str}/content")
async def probe_video(request: AnyRequest, video_id: FromPath[str]) -> Response[None]:
    """Tell the film's size and hash. A range means nothing here: it is defined for GET alone."""
    _, footage = await _film(request, video_id)
    etag = strong_etag(footage.sha256)
    if not_modified(request.headers.get("if-none-match"), etag):
        return _not_modified(etag)
    return HeadersOnly(None, headers=_headers(footage, Whole(), etag), media_type="video/mp4")


class HeadersOnly(Response[None]):
    """An answer without a body; Litestar renders `None` for text alone."""

    def render(self, *_: Any, **__: Any) -> bytes:
        return b""


ROUTES = [
    create_video,
    quote_video,
    retrieve_video,
    list_videos,
    remove_video,
    cancel_video,
    refuse_operation,
    download_video,
    probe_video,
]
