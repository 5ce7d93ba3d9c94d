"""
What an unchanged OpenAI SDK raises for each kind of refusal.

Reads `{"keys": {...}, "origin": ...}` from standard input; prints name to class and attributes, as JSON.
"""

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import openai

told = json.load(sys.stdin)
requests: list[Any] = []
http = openai.DefaultHttpxClient(event_hooks={"request": [requests.append]})
client = openai.OpenAI(http_client=http)
seen: dict[str, Any] = {}


def raised(name: str, call: Callable[[], Any]) -> None:
    del requests[:]
    try:
        call()
    except openai.APIStatusError as error:
        seen[name] = {
            "class": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "param": error.param,
            "type": error.type,
            "request_id": error.request_id,
            "requests": len(requests),
            "message": str(error),
        }
    else:
        seen[name] = None


def create(**fields: Any) -> Callable[[], Any]:
    return lambda: client.videos.create(prompt="a boat", model="seedance-2.0", extra_body=fields)


def other(key: str, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(api_key=told["keys"][key], http_client=http, **options)


raised("length", create(seconds="3"))
raised("size", create(size="1792x1024"))
raised("unknown field", create(fps=24))
raised("contradiction", create(size="1280x720", resolution="480p"))
raised("not sold", create(tier="fast", resolution="1080p"))
raised("model", lambda: client.videos.create(prompt="a boat", model="sora-2"))
raised("prompt", lambda: client.videos.create(prompt=""))
raised("limit", lambda: client.videos.list(limit=101))
raised("after", lambda: client.videos.list(after="video_0"))
raised("variant", lambda: client.videos.download_content("video_0", variant="thumbnail"))
raised("remix", lambda: client.videos.remix("video_0", prompt="a boat"))
raised("video", lambda: client.videos.retrieve("video_0"))
raised("model by id", lambda: client.models.retrieve("nobody/nothing"))
raised("address", lambda: client.post("/nothing", body={}, cast_to=object))
raised("method", lambda: client.patch("/videos", body={}, cast_to=object))
text = {"Content-Type": "text/plain"}
raised("content type", lambda: client.post("/videos", content=b"a boat", cast_to=object, options={"headers": text}))
picture = ("a.png", b"\x89PNG\r\n\x1a\n", "image/png")
large = ("a.png", io.BytesIO(picture[1] + bytes(64 * 1024 * 1024)), "image/png")
raised("too large", lambda: client.videos.create(prompt="a boat", model="seedance", input_reference=large))
raised("picture", lambda: client.videos.create(prompt="a boat", model="seedance", input_reference=picture))
forced = {"Content-Type": "application/json"}
raised("mislabelled", lambda: client.videos.create(prompt="a boat", input_reference=picture, extra_headers=forced))
url = {"image_url": "https://example.com/a.png"}
raised("picture by link", create(input_reference=url))
raised("no key", other("none").videos.list)
raised("scope", other("reports").videos.list)
raised(
    "filter",
    lambda: other("plain").videos.create(prompt="a boat", model="seedance", extra_body={"content_filter": False}),
)
raised("sellers off", lambda: other("plain", max_retries=0).videos.create(prompt="a boat", model="kino-1"))

running = client.videos.create(prompt="[fault:never_ends]", model="seedance-2.0", extra_body={"resolution": "480p"})
raised("not ready", lambda: client.videos.download_content(running.id))
client.videos.delete(running.id)
raised("deleted", lambda: client.videos.download_content(running.id))
print(json.dumps(seen))
