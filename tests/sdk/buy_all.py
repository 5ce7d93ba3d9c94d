"""
Makes every video of a list with an unchanged OpenAI SDK, several at a time.

Reads a JSON list of `{name, model, fields}` from standard input and keeps each film as `<name>.mp4` in
the current folder. Prints a JSON object of name to video, or to the SDK's error.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai

AT_A_TIME = 12


def buy(client: openai.OpenAI, order: dict[str, Any]) -> dict[str, Any]:
    try:
        video = client.videos.create_and_poll(
            model=order["model"],
            prompt=f"a paper boat, {order['name']}",
            seconds="4",
            extra_body=order["fields"],
            poll_interval_ms=200,
        )
    except openai.APIStatusError as error:
        return {"http_status": error.status_code, "code": error.code, "param": error.param, "message": str(error.body)}
    if video.status == "completed":
        client.videos.download_content(video.id).write_to_file(Path(f"{order['name']}.mp4"))
    return dict(video.to_dict())


def main() -> None:
    orders = json.load(sys.stdin)
    with openai.OpenAI() as client, ThreadPoolExecutor(AT_A_TIME) as pool:
        bought = list(pool.map(lambda order: buy(client, order), orders))
    print(json.dumps({order["name"]: video for order, video in zip(orders, bought, strict=True)}))


main()
