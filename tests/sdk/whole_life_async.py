"""The same life with the newest SDK's async client. Prints JSON."""

import asyncio
import json
from typing import Any

import openai

FIELDS = {"resolution": "480p", "end_user_id": "u-2"}


async def main() -> dict[str, Any]:
    seen: dict[str, Any] = {"version": openai.__version__}
    async with openai.AsyncOpenAI() as client:
        made = await asyncio.gather(
            *(
                client.videos.create_and_poll(prompt=f"boat {no}", seconds="4", extra_body=FIELDS, poll_interval_ms=50)
                for no in range(6)
            )
        )
        seen["statuses"] = [video.status for video in made]
        ids = {video.id for video in made}
        listed = [video.id async for video in client.videos.list(limit=2, extra_query={"end_user_id": "u-2"})]
        seen["listed"] = [len(listed), set(listed) == ids]
        film = await client.videos.download_content(made[0].id)
        await film.astream_to_file("whole.mp4")
        async with client.videos.with_streaming_response.download_content(made[1].id) as streamed:
            await streamed.stream_to_file("streamed.mp4")
        failed = await client.videos.create_and_poll(prompt="[fault:moderation]", poll_interval_ms=50)
        seen["failed"] = [failed.status, failed.error and failed.error.code]
        try:
            await client.videos.create(prompt="", extra_body=FIELDS)
        except openai.BadRequestError as error:
            seen["refused"] = [error.code, error.param, error.type, str(error.request_id)[:4]]
        async for video in client.videos.list(limit=3):
            await client.videos.delete(video.id)
        seen["left"] = [video.id async for video in client.videos.list()]
    return seen


print(json.dumps(asyncio.run(main())))
