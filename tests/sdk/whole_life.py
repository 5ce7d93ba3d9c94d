"""
One video and everything that an unchanged OpenAI SDK can do with it.

Keeps films in the current folder; prints what it saw as JSON.
"""

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import openai

seen: dict[str, Any] = {"version": openai.__version__}
polls: list[Any] = []
client = openai.OpenAI(http_client=openai.DefaultHttpxClient(event_hooks={"request": [polls.append]}))

model = client.models.retrieve("seedance-2.0")
seen["models"] = [model.id for model in client.models.list()]
seen["pinned"] = client.models.retrieve("evolink/seedance-2.0").id
seen["abilities"] = model.model_extra["abilities"]["tiers"] if model.model_extra else None

extra = {
    "resolution": "480p",
    "aspect_ratio": "9:16",
    "generate_audio": False,
    "seed": 42,
    "metadata": {"order": "0017", "json": '{"a": 1}'},
    "end_user_id": "u-1",
    "routing": {"sort": "price", "only": ["fal", "evolink"], "max_price_usd": "1.50"},
}
del polls[:]
video = client.videos.create_and_poll(
    model="seedance-2.0", prompt='{"not": "decoded"}', seconds="4", extra_body=extra, poll_interval_ms=50
)
first = polls[1]
seen["poll_headers"] = [
    first.headers.get("x-stainless-poll-helper"),
    first.headers.get("x-stainless-custom-poll-interval"),
]
seen["create_type"] = polls[0].headers["content-type"].partition(";")[0]
seen["video"] = video.to_dict()
seen["attributes"] = [video.resolution, video.usage["cost_usd"], video.routing["provider"]]  # type: ignore[attr-defined]  # ours

created = client.videos.with_raw_response.create(
    model="seedance",
    prompt="a boat of tin",
    seconds="4",
    size="864x496",  # type: ignore[arg-type]  # a size that OpenAI has not
)
seen["raw"] = {
    "status": created.status_code if hasattr(created, "status_code") else created.http_response.status_code,
    "request_id": created.headers["x-request-id"],
    "poll_after_ms": created.headers["openai-poll-after-ms"],
    "retries": created.retries_taken,
}
second = created.parse()
seen["second"] = client.videos.poll(second.id, poll_interval_ms=50).to_dict()
seen["request_id"] = client.videos.retrieve(second.id)._request_id

whole = client.videos.download_content(video.id)
whole.write_to_file("whole.mp4")
seen["content_type"] = whole.response.headers["content-type"]
with client.videos.with_streaming_response.download_content(video.id) as streamed:
    streamed.stream_to_file("streamed.mp4")
size = Path("whole.mp4").stat().st_size
parts = [
    client.videos.download_content(video.id, extra_headers={"Range": wanted})
    for wanted in (f"bytes=0-{size // 2 - 1}", f"bytes={size // 2}-")
]
seen["part_statuses"] = [part.response.status_code for part in parts]
Path("joined.mp4").write_bytes(b"".join(part.read() for part in parts))
client.videos.download_content(second.id, variant="video").stream_to_file("second.mp4")

failed = client.videos.create_and_poll(prompt="[fault:moderation]", seconds="4", poll_interval_ms=50)
seen["failed"] = {
    "status": failed.status,
    "code": failed.error and failed.error.code,
    "message": failed.error and failed.error.message,
}

by_post = client.post("/videos", body={"prompt": "by post", "seconds": 4, "resolution": "480p"}, cast_to=dict[str, Any])
seen["by_post"] = by_post["seconds"]
seen["lived"] = [one.id for one in client.videos.list()] == [by_post["id"], failed.id, second.id, video.id]

times: list[float] = []
polls_at = openai.OpenAI(
    http_client=openai.DefaultHttpxClient(event_hooks={"request": [lambda _: times.append(time.monotonic())]})
)
patient = polls_at.videos.create_and_poll(
    prompt="at the server's pace",
    extra_headers={"Content-Type": "application/json"},
    extra_body={"resolution": "480p", "seed": 7},
)
seen["patient"] = [patient.status, patient.seed]  # type: ignore[attr-defined]  # ours
seen["gaps_s"] = [later - earlier for earlier, later in pairwise(times[1:])]
client.videos.delete(patient.id)

deleted = client.videos.delete(video.id)
seen["deleted"] = [deleted.id == video.id, deleted.object, deleted.deleted]
for call in (client.videos.retrieve, client.videos.download_content, client.videos.delete):
    try:
        call(video.id)
    except openai.NotFoundError as error:
        seen.setdefault("gone", []).append(error.code)
client.videos.delete(by_post["id"])
print(json.dumps(seen))
