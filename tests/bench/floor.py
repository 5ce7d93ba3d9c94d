"""
The floor: what the framework and the server cost by themselves.

Bare Litestar handlers under the options that `proxy.app` gives uvicorn. One decodes the body that create
gets, the other reads nothing; both encode an object as large as Reelay's answer. No key, no decision, no
database.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
import uvloop
from litestar import Litestar, Request, Response, get, post


class Wish(msgspec.Struct):
    """The fields of the body that is sent."""

    model: str
    prompt: str
    seconds: str
    size: str
    end_user_id: str = ""


def build(created: bytes, retrieved: bytes) -> Litestar:
    """From one answer of each kind of Reelay's, of which the floor gives out equals."""
    after_create, after_retrieve = msgspec.json.decode(created), msgspec.json.decode(retrieved)
    decode, encode = msgspec.json.Decoder(Wish).decode, msgspec.json.encode

    @post("/v1/videos", status_code=200)
    async def create(request: Request[Any, Any, Any]) -> Response[bytes]:
        # A few per cent cheaper than a parameter `data: Wish`, so the harder floor.
        decode(await request.body())
        return Response(encode(after_create), media_type="application/json")

    @get("/v1/videos/{video_id:str}")
    async def retrieve(video_id: str) -> Response[bytes]:  # noqa: ARG001 - that it is parsed is part of the floor
        return Response(encode(after_retrieve), media_type="application/json")

    return Litestar([create, retrieve], openapi_config=None, logging_config=None, debug=False)


async def serve(port: int, created: bytes, retrieved: bytes) -> None:
    config = uvicorn.Config(
        build(created, retrieved),
        host="127.0.0.1",
        port=port,
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="uvloop",
        http="httptools",
        server_header=False,
        proxy_headers=False,
        date_header=True,
        backlog=1024,
    )
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2]).read_bytes(), Path(sys.argv[3]).read_bytes()))
