"""One good order at each seller, as its replies; tests break one reply at a time."""

from typing import Any

import msgspec

from proxy.core.attempt import Order
from proxy.core.wire import Reply
from proxy.providers.trial import Clip, Exchange, Step, Trial

Said = tuple[int, Any]
"""Status and body."""

GOOD: dict[str, dict[Step, list[Said]]] = {
    "runflow": {
        "create": [(201, {"id": "run-1", "status_code": "queued"})],
        "find": [(200, {"items": [{"id": "run-1", "client_ref": "ref-1"}]})],
        "stranger": [(404, {"code": "RUN_NOT_FOUND", "message": "no such run"})],
        "poll": [
            (200, {"status_code": "running", "client_ref": "ref-1"}),
            (200, {"status_code": "succeeded", "client_ref": "ref-1"}),
        ],
        "file": [(200, {"cost": "0.450000", "output": {"outputs": [{"type": "video"}], "seed": 7}})],
    },
    "runflow-legacy": {
        "create": [(200, {"video": {"url": "https://files.example/a.mp4", "content_type": "video/mp4"}, "seed": 7})],
    },
    "fal": {
        "create": [(200, {"request_id": "req-1", "status": "IN_QUEUE"})],
        "early": [(400, {"detail": "Request is still in progress"})],
        "stranger": [(404, {"detail": "not found"})],
        "poll": [(202, {"status": "IN_QUEUE"}), (202, {"status": "IN_PROGRESS"}), (200, {"status": "COMPLETED"})],
        "file": [(200, {"video": {"url": "https://files.example/a.mp4"}, "seed": 7})],
    },
    "shortapi": {
        "create": [(200, {"code": 0, "data": {"job_id": "job-1", "amount": "0.45"}})],
        "stranger": [(200, {"code": 1, "info": "job not found"})],
        "poll": [(200, {"code": 0, "data": {"id": "job-1", "status": status}}) for status in (0, 1, 2)],
        "file": [(200, {"code": 0, "data": {"result": {"videos": [{"url": "https://files.example/a.mp4"}]}}})],
    },
    "evolink": {
        "create": [(200, {"id": "task-unified-1-a", "usage": {"credits_reserved": 30.6}})],
        "stranger": [(404, {"error": {"code": "task_not_found"}})],
        "poll": [(200, {"status": "processing", "progress": 40}), (200, {"status": "completed", "progress": 100})],
        "file": [(200, {"status": "completed", "progress": 100, "results": ["https://files.example/a.mp4"]})],
    },
}  # fmt: skip

CLIP = Clip(duration_ms=4042, width_px=864, height_px=496, has_audio=True, content_type="video/mp4")
LINKS = ("https://files.example/a.mp4?sig=x&exp=3700", "https://files.example/a.mp4?sig=y&exp=3701")

ORDER = Order(
    seller_model="owner/model/text-to-video",
    operation="text-to-video",
    tier="standard",
    prompt="a paper boat",
    seconds=4,
    resolution="480p",
    aspect_ratio="16:9",
    generate_audio=True,
    content_filter=True,
    seed=7,
    web_search=False,
    end_user=None,
    client_ref="ref-1",
    callback_url=None,
)


def reply(status: int, body: Any, headers: dict[str, str] | None = None) -> Reply:
    """A body of bytes goes as it is."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Reply(status=status, headers=headers or {}, body=raw)


def make_trial(
    adapter: str = "", said: dict[Step, list[Said]] | None = None, headers: dict[str, str] | None = None, **fields: Any
) -> Trial:
    """A good one, but for the steps that are `said`; `headers` come with every reply."""
    steps = {**GOOD.get(adapter, {}), **(said or {})}
    exchanges = [Exchange(step=step, reply=reply(*one, headers)) for step, several in steps.items() for one in several]
    defaults: dict[str, Any] = {
        "order": ORDER,
        "price_microusd": 450_000,
        "link_lifetime_s": 3600,
        "links": LINKS,
        "linked_at_s": 100,
        "clip": CLIP,
    }
    return Trial(exchanges=tuple(exchanges), **defaults | fields)
