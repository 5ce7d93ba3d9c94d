"""An exchange with a seller is plain data: told apart by what it says, and never changed."""

import pytest

from proxy.core.wire import Call, Reply, without_nul


def test_calls_are_the_same_when_they_say_the_same() -> None:
    assert Call(method="GET", path="/a") == Call(method="GET", path="/a", query=(), headers=(), body=None)
    assert Call(method="GET", path="/a") != Call(method="GET", path="/a", query=(("page", "1"),))


def test_an_exchange_is_never_changed() -> None:
    call, reply = Call(method="GET", path="/a"), Reply(status=200, headers={}, body=b"{}")
    with pytest.raises(AttributeError):
        call.path = "/b"  # type: ignore[misc]  # that it cannot be set is the point
    with pytest.raises(AttributeError):
        reply.status = 500  # type: ignore[misc]  # the same


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (b'{"id": "a\\u0000b"}', b'{"id": "a\\ufffdb"}'),
        (b'{"id": "a\\\\u0000b"}', b'{"id": "a\\\\ufffdb"}'),
        (b"a\0b", "a\ufffdb".encode()),
        (b'{"id": "a"}', b'{"id": "a"}'),
        (b"", b""),
    ],
)
def test_reply_has_another_odd_character_for_each_nul(said: bytes, kept: bytes) -> None:
    assert Reply(status=200, headers={}, body=said).body == kept == without_nul(said)
