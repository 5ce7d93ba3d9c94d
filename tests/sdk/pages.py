"""Forty-five videos in a list: read page by page, then deleted while it is read. Prints JSON."""

import json
from typing import Any

import openai

requests: list[Any] = []
client = openai.OpenAI(http_client=openai.DefaultHttpxClient(event_hooks={"request": [requests.append]}))
made = [
    client.videos.create(prompt=f"{no} [fault:never_ends]", extra_body={"resolution": "480p"}).id for no in range(45)
]
seen: dict[str, Any] = {}

del requests[:]
newest = [video.id for video in client.videos.list(limit=10)]
seen["requests"] = len(requests)
seen["newest_first"] = newest == made[::-1]
seen["oldest_first"] = [video.id for video in client.videos.list(limit=7, order="asc")] == made

page = client.videos.list(limit=40)
seen["first_page"] = [len(page.data), page.has_next_page(), page.last_id == made[5]]
rest = page.get_next_page()
seen["second_page"] = [len(rest.data), rest.has_next_page()]
seen["zero"] = [video.id for video in client.videos.list(limit=0)]

young = client.videos.list(limit=10)
late = client.videos.create(prompt="late [fault:never_ends]", extra_body={"resolution": "480p"}).id
seen["undisturbed"] = [video.id for video in young] == made[::-1]

visited = []
for video in client.videos.list(limit=10):
    visited.append(video.id)
    client.videos.delete(video.id)
seen["deleted_each_once"] = visited == [late, *made[::-1]]
seen["left"] = len(list(client.videos.list()))
print(json.dumps(seen))
