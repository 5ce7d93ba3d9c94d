"""Where sellers call back. What they say is a hint; the token in the address is ours."""

from litestar import Response, post
from litestar.params import FromPath

from proxy.api.documents import Hold, collect
from proxy.api.videos import AnyRequest, house_of
from proxy.core.errors import NotFound
from proxy.services.watch import called_back

MAX_BODY_BYTES = 1024 * 1024


@post("/callbacks/{token:str}", status_code=200)
async def receive_callback(request: AnyRequest, token: FromPath[str]) -> Response[bytes]:
    """Make a poll due."""
    house = house_of(request)
    with Hold() as hold:
        # Of a stranger nothing is read.
        known = house.secrets.read_callback_token(token) is not None
        body = await collect(request.stream(), hold, max_bytes=MAX_BODY_BYTES) if known else b""
        if not await called_back(house, token, body):
            raise NotFound("There is nothing at this address.")
    return Response(b'{"ok":true}', media_type="application/json")


ROUTES = [receive_callback]
