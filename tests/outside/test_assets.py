"""Fetching what a link of others points to: a whole film from an allowed place, or an error that tells nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from yarl import URL

from proxy.outside.assets import Fetcher, FileCutShort, FileTooLarge, FileUnavailable, NotAFilm
from proxy.outside.guard import parse_networks
from tests.outside.addresses import REFUSED
from tests.outside.films import make_film
from tests.outside.servers import Behaviour, Names, Serve, Visit, names_for, reply

LOOPBACK = ("127.0.0.1",)
FILM = make_film()
LONG_FILM = FILM + bytes(3 * 1024 * 1024)


@pytest.fixture
async def make_fetcher() -> AsyncIterator[Callable[..., Fetcher]]:
    made: list[Fetcher] = []

    def make(**options: object) -> Fetcher:
        made.append(Fetcher(**options))  # type: ignore[arg-type]  # handed through
        return made[-1]

    yield make
    for fetcher in made:
        await fetcher.close()


@pytest.fixture
def fetcher(make_fetcher: Callable[..., Fetcher]) -> Fetcher:
    return make_fetcher()


async def fetch(fetcher: Fetcher, url: str, trusted: tuple[str, ...] = LOOPBACK) -> bytes:
    async with fetcher.open(url, trusted) as download:
        return b"".join([piece async for piece in download.chunks])


def film_reply(body: bytes = FILM, *, headers: str = "content-type: video/mp4\r\n") -> bytes:
    return reply(body, headers=headers)


async def show_film(visit: Visit) -> None:
    while await visit.request():
        await visit.send(film_reply())


def answering(data: bytes) -> Behaviour:
    async def behave(visit: Visit) -> None:
        await visit.request()
        await visit.send(data)

    return behave


def redirecting(location: str) -> Behaviour:
    return answering(reply(b"", status="302 Found", headers=f"location: {location}\r\n"))


# What comes and how


async def test_film_comes_whole_with_its_length_and_type(fetcher: Fetcher, serve: Serve) -> None:
    server = await serve(answering(film_reply(LONG_FILM)))
    async with fetcher.open(f"{server.url}/f.mp4", LOOPBACK) as download:
        assert (download.content_length, download.content_type) == (len(LONG_FILM), "video/mp4")
        pieces = [piece async for piece in download.chunks]
    assert b"".join(pieces) == LONG_FILM
    assert all(1024 * 1024 <= len(piece) <= 3 * 1024 * 1024 for piece in pieces[:-1])


async def test_film_without_announced_length_comes_whole(fetcher: Fetcher, serve: Serve) -> None:
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (FILM[:3], FILM[3:])) + b"0\r\n\r\n"
    server = await serve(answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked))
    async with fetcher.open(server.url, LOOPBACK) as download:
        assert (download.content_length, download.content_type) == (None, None)
        assert b"".join([piece async for piece in download.chunks]) == FILM


async def test_no_key_and_no_cookie_go_along(fetcher: Fetcher, serve: Serve) -> None:
    server = await serve(answering(film_reply(headers="set-cookie: a=1; Path=/\r\n")))
    await fetch(fetcher, server.url)
    await fetch(fetcher, server.url)
    for request in server.requests:
        assert b"authorization" not in request.lower()
        assert b"cookie" not in request.lower()


async def test_signed_link_is_asked_for_as_it_was_written(fetcher: Fetcher, serve: Serve) -> None:
    server = await serve(show_film)
    await fetch(fetcher, f"{server.url}/a%2Fb/%7Ec.mp4?sig=a%2Bb%3d+c&x=1;y")
    assert server.requests[0].split(b" ")[1] == b"/a%2Fb/%7Ec.mp4?sig=a%2Bb%3d+c&x=1;y"


async def test_line_break_in_a_link_makes_no_header(fetcher: Fetcher, serve: Serve) -> None:
    server = await serve(show_film)
    await fetch(fetcher, f"{server.url}/a b.mp4?x=1\r\nx-smuggled: 1")
    head = server.requests[0].lower()
    assert b"\r\nx-smuggled" not in head


async def test_connection_ends_with_a_download_left_early(fetcher: Fetcher, serve: Serve) -> None:
    gone = asyncio.Event()

    async def endless(visit: Visit) -> None:
        await visit.request()
        try:
            await visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n" + LONG_FILM)
            await visit.reader.read()
        finally:
            gone.set()

    server = await serve(endless)
    async with fetcher.open(server.url, LOOPBACK) as download:
        await anext(aiter(download.chunks))
    await asyncio.wait_for(gone.wait(), 5)


async def test_errors_of_the_reader_stay_its_own(fetcher: Fetcher, serve: Serve) -> None:
    server = await serve(show_film)

    async def read_slowly() -> None:
        async with fetcher.open(server.url, LOOPBACK) as download:
            async for _ in download.chunks:
                raise TimeoutError("the disk is slow")

    with pytest.raises(TimeoutError, match="the disk is slow"):
        await read_slowly()


# Where it may come from


async def test_untrusted_host_at_a_private_address_is_refused(fetcher: Fetcher, serve: Serve) -> None:
    server = await serve(show_film)
    with pytest.raises(FileUnavailable) as caught:
        await fetch(fetcher, server.url, trusted=("other.example",))
    assert (caught.value.status, caught.value.retryable) == (None, False)
    assert server.connections == 0


async def test_name_that_resolves_to_a_private_address_is_refused(
    make_fetcher: Callable[..., Fetcher], serve: Serve
) -> None:
    server = await serve(show_film)
    fetcher = make_fetcher(resolver=Names(films_example="127.0.0.1"))
    with pytest.raises(FileUnavailable) as caught:
        await fetch(fetcher, server.at("films.example"), trusted=())
    assert "127.0.0.1" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert await fetch(fetcher, server.at("films.example"), trusted=("films.example",)) == FILM
    assert await fetch(fetcher, server.at("FILMS.example"), trusted=("films.example",)) == FILM


async def test_allowed_network_is_reached_without_trust(make_fetcher: Callable[..., Fetcher], serve: Serve) -> None:
    server = await serve(show_film)
    fetcher = make_fetcher(allowed_networks=parse_networks("127.0.0.0/8"))
    assert await fetch(fetcher, server.url, trusted=()) == FILM


async def test_redirect_is_followed_also_relative(fetcher: Fetcher, serve: Serve) -> None:
    async def move(visit: Visit) -> None:
        while request := await visit.request():
            moved = request.startswith(b"GET /new/f.mp4?b=2 ")
            await visit.send(
                film_reply() if moved else reply(b"", status="307 T", headers="location: new/f.mp4?b=2\r\n")
            )

    server = await serve(move)
    assert await fetch(fetcher, f"{server.url}/old.mp4?a=1") == FILM


async def refusal(fetcher: Fetcher, url: str, trusted: tuple[str, ...] = ()) -> str:
    """What the error says; a fresh link has to be asked for."""
    with pytest.raises(FileUnavailable) as caught:
        await fetch(fetcher, url, trusted)
    assert (caught.value.status, caught.value.retryable) == (None, False)
    return str(caught.value)


@pytest.mark.parametrize("case", REFUSED)
async def test_link_to_a_refused_place_tells_nothing_of_it(
    make_fetcher: Callable[..., Fetcher], serve: Serve, case: str
) -> None:
    server = await serve(show_film)
    host, addresses = REFUSED[case]
    told = await refusal(make_fetcher(resolver=names_for(host, addresses) if addresses else None), server.at(host))
    assert server.connections == 0
    assert [one for one in addresses.split() if one in told.replace(host, "")] == []


@pytest.mark.parametrize("case", REFUSED)
async def test_each_hop_passes_the_guard(make_fetcher: Callable[..., Fetcher], serve: Serve, case: str) -> None:
    host, addresses = REFUSED[case]
    inside = await serve(show_film)
    outside = await serve(redirecting(str(URL(inside.at(host)))))
    names = names_for(host, addresses or "127.0.0.1")
    names.addresses["start.example"] = "127.0.0.1"
    await refusal(make_fetcher(resolver=names), outside.at("start.example"), ("start.example",))
    assert (outside.connections, inside.connections) == (1, 0)


@pytest.mark.parametrize("who", ["a:b@", "a@", ":b@", "films.example@", "films.example:80@"])
async def test_link_with_somebodys_name_before_the_host_is_refused(fetcher: Fetcher, serve: Serve, who: str) -> None:
    server = await serve(show_film)
    await refusal(fetcher, server.url.replace("//", f"//{who}"), LOOPBACK)
    assert server.connections == 0


async def test_name_that_leads_elsewhere_a_moment_later_is_refused(
    make_fetcher: Callable[..., Fetcher], serve: Serve
) -> None:
    """Each connection is looked at by itself; here the name changes sides between two."""
    names = Names(films_example="127.0.0.1")
    inside = await serve(show_film)

    async def change_sides(visit: Visit) -> None:
        await visit.request()
        names.addresses["films.example"] = "127.0.0.2"
        await visit.send(reply(b"", status="302 Found", headers=f"location: {inside.at('films.example')}\r\n"))

    outside = await serve(change_sides)
    fetcher = make_fetcher(allowed_networks=parse_networks("127.0.0.1/32"), resolver=names)
    told = await refusal(fetcher, outside.at("films.example"))
    assert told == "films.example is not at an allowed address"
    assert (outside.connections, inside.connections) == (1, 0)


async def test_of_several_addresses_only_the_good_one_is_connected_to(
    make_fetcher: Callable[..., Fetcher], serve: Serve
) -> None:
    server = await serve(show_film)
    for addresses in ("10.0.0.1 127.0.0.1", "127.0.0.1 ::1 127.0.0.2"):
        fetcher = make_fetcher(allowed_networks=parse_networks("127.0.0.1/32"), resolver=Names(films_example=addresses))
        assert await fetch(fetcher, server.at("films.example"), trusted=()) == FILM


async def test_allowed_networks_let_exactly_those_through(make_fetcher: Callable[..., Fetcher], serve: Serve) -> None:
    server = await serve(show_film)
    fetcher = make_fetcher(allowed_networks=parse_networks("127.0.0.1/32"))
    assert await fetch(fetcher, server.url, trusted=()) == FILM
    for host in ("127.0.0.2", "[::1]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]", "2130706433", "10.0.0.1"):
        await refusal(fetcher, server.at(host))
    assert server.connections == 1


async def test_three_redirects_are_followed_and_no_fourth(fetcher: Fetcher, serve: Serve) -> None:
    server = await serve(show_film)
    for _ in range(3):
        server = await serve(redirecting(server.url))
    assert await fetch(fetcher, server.url) == FILM
    server = await serve(redirecting(server.url))
    with pytest.raises(FileUnavailable, match="too often"):
        await fetch(fetcher, server.url)


@pytest.mark.parametrize(
    "link",
    [
        "",
        "/f.mp4",
        "file:///etc/passwd",
        "ftp://127.0.0.1/f",
        "http://",
        "http://[",
        "http://a:b@127.0.0.1/",
        "data:,x",
    ],
)
async def test_only_plain_web_links_are_followed(fetcher: Fetcher, link: str) -> None:
    with pytest.raises(FileUnavailable) as caught:
        await fetch(fetcher, link)
    assert not caught.value.retryable


@pytest.mark.parametrize("link", ["file:///etc/passwd", "ftp://127.0.0.1/f", "http://a:b@127.0.0.1/", "data:,x"])
async def test_redirect_leads_to_plain_web_links_only(fetcher: Fetcher, serve: Serve, link: str) -> None:
    server = await serve(redirecting(link))
    with pytest.raises(FileUnavailable) as caught:
        await fetch(fetcher, server.url)
    assert not caught.value.retryable
    assert server.connections == 1


# What is no film


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        ("202 Accepted", False),
        ("206 Partial Content", False),
        ("301 Moved", False),
        ("403 Forbidden", False),
        ("404 Not Found", True),
        ("410 Gone", False),
        ("429 Too Many", True),
        ("503 Busy", True),
    ],
)
async def test_other_status_says_whether_to_ask_again(
    fetcher: Fetcher, serve: Serve, status: str, retryable: bool
) -> None:
    server = await serve(answering(reply(b"<secret>", status=status)))
    with pytest.raises(FileUnavailable) as caught:
        await fetch(fetcher, f"{server.url}/f.mp4?sig=secret")
    assert (caught.value.status, caught.value.retryable) == (int(status[:3]), retryable)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        film_reply(headers="content-type: text/html; charset=utf-8\r\n"),
        film_reply(headers="content-type: application/json\r\n"),
        film_reply(b"<html>expired</html>"),
        film_reply(b'{"error":"expired"}', headers=""),
        film_reply(b""),
        film_reply(b"\0\0\0"),
    ],
)
async def test_page_where_a_film_is_due_is_refused(fetcher: Fetcher, serve: Serve, answer: bytes) -> None:
    server = await serve(answering(answer))
    with pytest.raises(NotAFilm):
        await fetch(fetcher, server.url)


@pytest.mark.parametrize(
    "answer",
    [
        film_reply(LONG_FILM)[:-1],
        film_reply(LONG_FILM)[: 2 * 1024 * 1024],
        film_reply(FILM)[:-1],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffff\r\n" + FILM,
    ],
)
async def test_film_shorter_than_announced_is_an_error(fetcher: Fetcher, serve: Serve, answer: bytes) -> None:
    server = await serve(answering(answer))
    with pytest.raises(FileCutShort) as caught:
        await fetch(fetcher, server.url)
    assert caught.value.retryable


async def test_announced_size_over_the_cap_is_not_begun(make_fetcher: Callable[..., Fetcher], serve: Serve) -> None:
    server = await serve(answering(film_reply()))
    with pytest.raises(FileTooLarge):
        await fetch(make_fetcher(max_bytes=len(FILM) - 1), server.url)
    assert await fetch(make_fetcher(max_bytes=len(FILM)), server.url) == FILM


async def test_unannounced_size_over_the_cap_is_cut(make_fetcher: Callable[..., Fetcher], serve: Serve) -> None:
    server = await serve(answering(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + LONG_FILM))
    with pytest.raises(FileTooLarge):
        await fetch(make_fetcher(max_bytes=len(LONG_FILM) - 1), server.url)


# What does not come


async def test_refused_port_may_be_asked_again(fetcher: Fetcher, closed_port: int) -> None:
    with pytest.raises(FileUnavailable) as caught:
        await fetch(fetcher, f"http://127.0.0.1:{closed_port}/")
    assert (caught.value.status, caught.value.retryable) == (None, True)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200", b"220 no web\r\n\r\n"])
async def test_host_that_does_not_speak_may_be_asked_again(fetcher: Fetcher, serve: Serve, data: bytes) -> None:
    server = await serve(answering(data))
    with pytest.raises(FileUnavailable) as caught:
        await fetch(fetcher, server.url)
    assert caught.value.retryable


@pytest.mark.parametrize("said", [b"", film_reply(LONG_FILM)[: 2 * 1024 * 1024]])
async def test_silence_ends_a_download(make_fetcher: Callable[..., Fetcher], serve: Serve, said: bytes) -> None:
    async def stall(visit: Visit) -> None:
        await visit.request()
        await visit.send(said)
        await asyncio.sleep(60)

    server = await serve(stall)
    with pytest.raises(FileUnavailable) as caught:
        await fetch(make_fetcher(silence_s=0.2), server.url)
    assert caught.value.retryable


async def test_trickle_cannot_outlast_the_total_time(make_fetcher: Callable[..., Fetcher], serve: Serve) -> None:
    async def trickle(visit: Visit) -> None:
        await visit.request()
        await visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n" + LONG_FILM)
        while True:
            await visit.send(b"x")
            await asyncio.sleep(0.02)

    server = await serve(trickle)
    with pytest.raises(FileCutShort):
        await fetch(make_fetcher(total_s=0.5), server.url)
