"""Lantern's wire: a film is ordered, asked for until it is ready, and then linked to."""

from urllib.parse import quote

from msgspec import Struct

from proxy.core.attempt import Accepted, Order, Progress, Result, Ticket
from proxy.core.errors import FailureKind, Garbled, OutcomeUnknown, Refusal, SellerError
from proxy.core.wire import Call, Reply
from proxy.providers.base import decode, default_refusal, json_body

_SPOILED: dict[str, FailureKind] = {"indecent": "moderation", "impossible": "invalid_input"}


class _Film(Struct, frozen=True, kw_only=True):
    film: str | None = None
    state: str | None = None
    percent: int | None = None
    link: str | None = None
    why: str | None = None


class Lantern:
    """`api.lantern.example`; the key is a header of its own."""

    name = "lantern"
    base_url = "https://api.lantern.example"

    def authorize(self, api_key: str) -> tuple[str, str]:
        return "X-Lantern-Key", api_key

    def submit(self, order: Order) -> Call:
        fields = {
            "show": order.prompt,
            "seconds": order.seconds,
            "lines": order.resolution,
            "shape": order.aspect_ratio,
        }
        return Call(method="POST", path="/films", body=json_body(fields))

    def accepted(self, reply: Reply) -> Accepted:
        try:
            film = decode(reply, _Film)
        except Garbled as exc:
            raise OutcomeUnknown(f"Lantern may have begun a film: {exc}") from exc
        if not film.film:
            raise OutcomeUnknown("Lantern may have begun a film: the answer names none")
        return Accepted(seller_id=film.film)

    def poll(self, ticket: Ticket) -> Call:
        return Call(method="GET", path=f"/films/{quote(ticket.seller_id, safe='')}")

    def progress(self, reply: Reply) -> Progress:
        film = decode(reply, _Film)
        match film.state:
            case "waiting":
                return Progress(state="queued")
            case "drawing":
                return Progress(state="running", percent=film.percent)
            case "ready":
                return Progress(state="succeeded", result=_result(film))
            case "spoiled":
                why = film.why or "no reason given"
                raise Refusal(_SPOILED.get(why, "provider_error"), why, seller_code=film.why, cost_microusd=0)
            case other:
                raise Garbled(f"Lantern speaks of an unheard-of state {other!r}")

    def collect(self, ticket: Ticket) -> Call:
        return self.poll(ticket)

    def result(self, reply: Reply) -> Result:
        return _result(decode(reply, _Film))

    def refusal(self, reply: Reply) -> SellerError:
        try:
            why = decode(reply, _Film).why
        except Garbled:
            why = None
        return default_refusal(reply, why or f"status {reply.status}", kind=_SPOILED.get(why or ""), seller_code=why)


def _result(film: _Film) -> Result:
    if film.state != "ready":
        raise Garbled("the film is not ready")
    if not film.link:
        raise Refusal("provider_error", "the film is ready, but nobody says where")
    return Result(url=film.link)
