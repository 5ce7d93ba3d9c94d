"""An answer is sent whole: its status, what it is, how long it is, and what was asked to go with it."""

from typing import Any

from proxy.api.answers import Answer


async def test_answer_names_its_type_and_length_and_carries_more_headers() -> None:
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    async def receive() -> Any:
        raise AssertionError("an answer asks nothing more of its client")

    answer = Answer('{"name":"é"}'.encode(), {"x-more": "1"})
    await answer.to_asgi_response(None, None)({}, receive, send)  # type: ignore[arg-type]  # it looks at no scope
    head, body = said
    assert head == {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"13"), (b"x-more", b"1")],
    }
    assert body == {"type": "http.response.body", "body": '{"name":"é"}'.encode(), "more_body": False}
