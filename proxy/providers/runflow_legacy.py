"""
Runflow's older interface: one call that lasts as long as the render, and is answered with the film.

There is no run to ask about, so whatever keeps the answer from arriving leaves the order unknown.
"""

from typing import Any
from urllib.parse import quote

from msgspec import Struct

from proxy.core.attempt import Done, Order, Result
from proxy.core.errors import Garbled, OutcomeUnknown, Refusal, SellerError
from proxy.core.wire import Call, Reply
from proxy.providers.base import decode, json_body
from proxy.providers.runflow import model_fields, odd_key, refusal_of

SWITCHED_OFF = "MODEL_UNAVAILABLE"
"""Runflow's own word with a 503."""


class _File(Struct, frozen=True, kw_only=True):
    url: str | None = None


class _Answer(Struct, frozen=True, kw_only=True):
    """Only `video.url` is printed; the other fields are read where they are there."""

    video: _File | None = None
    seed: Any = None
    id: Any = None
    run_id: Any = None
    request_id: Any = None


class RunflowLegacy:
    """`api.runflow.io` under `/v1/run`; the model's fields are the body, and the seed goes as text."""

    name = "runflow-legacy"
    base_url = "https://api.runflow.io"

    def authorize(self, api_key: str) -> tuple[str, str]:
        return "Authorization", f"Bearer {api_key}"

    def odd_key(self, api_key: str) -> str | None:
        return odd_key(api_key)

    def submit(self, order: Order) -> Call:
        fields = model_fields(order)
        if order.seed is not None:
            fields["seed"] = str(order.seed)
        return Call(method="POST", path=f"/v1/run/{quote(order.seller_model)}", body=json_body(fields))

    def accepted(self, reply: Reply) -> Done:
        try:
            answer = decode(reply, _Answer)
        except Garbled as exc:
            raise OutcomeUnknown(f"Runflow may have made a film: {exc}") from exc
        if answer.video is None or not answer.video.url:
            raise OutcomeUnknown("Runflow may have made a film: the answer names none")
        # A film in hand is not lost over an odd seed or id.
        seed = answer.seed if type(answer.seed) is int else None
        names = (answer.id, answer.run_id, answer.request_id)
        seller_id = next((name for name in names if isinstance(name, str) and name), None)
        return Done(result=Result(url=answer.video.url, seed=seed), seller_id=seller_id)

    def refusal(self, reply: Reply) -> SellerError:
        """
        As of the newer interface, whose errors this one is assumed to share.

        But a 503 only in Runflow's own words: an ingress says it also of a render that it lost sight of.
        """
        named = refusal_of(reply)
        if reply.status == 503 and isinstance(named, Refusal) and named.seller_code != SWITCHED_OFF:
            return OutcomeUnknown(f"status 503: {named}")
        return named
