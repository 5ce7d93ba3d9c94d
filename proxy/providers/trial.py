"""
What one paid trial order showed of a seller's wire, and how an assumed fact is judged by it. Pure.

A fact is a sentence that an adapter, the catalogue or a price relies on although no page of the seller
states it, with a check that reads the recorded replies. What was seen is told in few words; a link is
never quoted, for whoever holds one has the film.
"""

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import msgspec

from proxy.core.attempt import Order
from proxy.core.money import stated_microusd, usd_text
from proxy.core.video import PIXELS
from proxy.core.wire import Reply
from proxy.providers.base import UNREADABLE

Step = Literal["create", "early", "find", "stranger", "poll", "file"]
"""
create: the order. early: the file asked for right after it. find: the order looked for by its tag.
stranger: an id that nobody has. poll: where it stands. file: a reply that names the film.
"""

Verdict = Literal["confirmed", "broken", "not seen"]

FRAMES_PER_SECOND = 24
_SHOWN_CHARS = 60


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    step: Step
    reply: Reply


class Clip(msgspec.Struct, frozen=True, kw_only=True):
    """The film as fetched without any key, and measured."""

    duration_ms: int
    width_px: int
    height_px: int
    has_audio: bool
    content_type: str | None


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One order from its create to its film, as far as it came."""

    order: Order
    price_microusd: int
    """By the catalogue, without any margin for a derived price."""
    link_lifetime_s: int
    """By the catalogue."""
    exchanges: tuple[Exchange, ...] = ()
    links: tuple[str, ...] = ()
    """To the film, in the order of reading."""
    linked_at_s: int = 0
    """Unix seconds of the first link."""
    clip: Clip | None = None

    def replies(self, step: Step) -> list[Reply]:
        return [exchange.reply for exchange in self.exchanges if exchange.step == step]

    def bodies(self, step: Step) -> list[Any]:
        """Decoded; what is no JSON reads None."""
        return [body(reply) for reply in self.replies(step)]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict, and the words for what it rests on."""

    verdict: Verdict
    detail: str = ""


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """Something assumed of a seller."""

    says: str
    check: Callable[[Trial], Seen]


def listed(facts: Mapping[str, Callable[[Trial], Seen]]) -> tuple[Fact, ...]:
    """Facts from what each says to its check."""
    return tuple(Fact(says=says, check=check) for says, check in facts.items())


def judge(facts: tuple[Fact, ...], trial: Trial) -> Iterator[tuple[Fact, Seen]]:
    """Every fact with what the trial makes of it."""
    for fact in facts:
        yield fact, fact.check(trial)


# Verdicts


def not_seen(detail: str = "") -> Seen:
    return Seen(verdict="not seen", detail=detail)


def settled(holds: object, detail: str) -> Seen:
    """Confirmed or broken."""
    return Seen(verdict="confirmed" if holds else "broken", detail=detail)


def body(reply: Reply) -> Any:
    try:
        return msgspec.json.decode(reply.body)
    except UNREADABLE:
        return None


def dig(value: Any, *path: str | int) -> Any:
    """What lies at `path`; None where the way ends before."""
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def shown(value: Any) -> str:
    """A value as JSON, cut short."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


_KINDS: dict[type, str] = {
    type(None): "missing",
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


# Makers of checks


def unshown(why: str) -> Callable[[Trial], Seen]:
    """For what one good order cannot show."""
    return lambda _: not_seen(why)


def answers(step: Step, status: int) -> Callable[[Trial], Seen]:
    """Every reply of a step has this status."""

    def check(trial: Trial) -> Seen:
        statuses = sorted({reply.status for reply in trial.replies(step)})
        if not statuses:
            return not_seen()
        return settled(statuses == [status], ", ".join(map(str, statuses)))

    return check


def holds(step: Step, path: tuple[str | int, ...], kind: type | tuple[type, ...]) -> Callable[[Trial], Seen]:
    """The last reply of a step has a value of this kind at `path`; the value itself is not told."""

    def check(trial: Trial) -> Seen:
        bodies = trial.bodies(step)
        if not bodies:
            return not_seen()
        value = dig(bodies[-1], *path)
        return settled(isinstance(value, kind), _KINDS[type(value)])

    return check


def reads(step: Step, path: tuple[str | int, ...], wanted: Callable[[Trial], Any]) -> Callable[[Trial], Seen]:
    """The last reply of a step has what is `wanted` at `path`."""

    def check(trial: Trial) -> Seen:
        bodies = trial.bodies(step)
        if not bodies:
            return not_seen()
        value = dig(bodies[-1], *path)
        return settled(value == wanted(trial), shown(value))

    return check


def words(path: tuple[str | int, ...], known: tuple[str | int, ...]) -> Callable[[Trial], Seen]:
    """Polls speak at `path` only in words that are `known`."""

    def check(trial: Trial) -> Seen:
        heard = list(dict.fromkeys(shown(dig(one, *path)) for one in trial.bodies("poll")))
        if not heard:
            return not_seen()
        unheard = [shown(word) for word in known if shown(word) not in heard]
        rest = f"; not heard: {', '.join(unheard)}" if unheard else ""
        return settled(set(heard) <= {shown(word) for word in known}, ", ".join(heard) + rest)

    return check


def states_price(
    step: Step, path: tuple[str | int, ...], *, usd_per_unit: str = "1", within: str = "0"
) -> Callable[[Trial], Seen]:
    """The last reply of a step names the price at `path`, in units of so many USD, give or take a ratio."""

    def check(trial: Trial) -> Seen:
        bodies = trial.bodies(step)
        if not bodies:
            return not_seen()
        value = dig(bodies[-1], *path)
        if value is None:
            return settled(holds=False, detail="no amount")
        price = f"the price is ${usd_text(trial.price_microusd)}"
        try:
            stated = stated_microusd(Decimal(str(value)) * Decimal(usd_per_unit))
        except (InvalidOperation, ValueError):
            return settled(holds=False, detail=f"{shown(value)}, {price}")
        off = abs((stated or 0) - trial.price_microusd)
        near = off <= trial.price_microusd * Decimal(within)
        return settled(near, f"{shown(value)}" if near else f"{shown(value)}, {price}")

    return check


# Facts that all sellers of this model share


def _frames(trial: Trial) -> Seen:
    if trial.clip is None or trial.order.seconds is None:
        return not_seen()
    wanted_ms = 1000 * (FRAMES_PER_SECOND * trial.order.seconds + 1) / FRAMES_PER_SECOND
    half_a_frame_ms = 500 / FRAMES_PER_SECOND
    return settled(abs(trial.clip.duration_ms - wanted_ms) < half_a_frame_ms, f"{trial.clip.duration_ms / 1000} s")


def _pixels(trial: Trial) -> Seen:
    if trial.clip is None:
        return not_seen()
    size = (trial.clip.width_px, trial.clip.height_px)
    return settled(size == PIXELS[trial.order.resolution, trial.order.aspect_ratio], f"{size[0]}x{size[1]}")


def _audio(trial: Trial) -> Seen:
    if trial.clip is None:
        return not_seen()
    return settled(trial.clip.has_audio == trial.order.generate_audio, "sound" if trial.clip.has_audio else "silent")


def _open_link(trial: Trial) -> Seen:
    if not trial.links:
        return not_seen()
    return settled(trial.clip is not None, "fetched without" if trial.clip else "the film could not be fetched")


def _content_type(trial: Trial) -> Seen:
    if trial.clip is None:
        return not_seen()
    return settled(trial.clip.content_type == "video/mp4", shown(trial.clip.content_type))


_ENDS = ("exp", "expires", "se", "x-expires")
"""Queries in which links of the usual file hosts say when they end, in Unix seconds."""


def _lifetime(trial: Trial) -> Seen:
    if not trial.links:
        return not_seen()
    query = {name.lower(): values[0] for name, values in parse_qs(urlsplit(trial.links[0]).query).items()}
    ends = [int(query[name]) - trial.linked_at_s for name in _ENDS if query.get(name, "").isdecimal()]
    if query.get("x-amz-expires", "").isdecimal():
        ends.append(int(query["x-amz-expires"]))
    if not ends:
        return not_seen("the link does not say when it ends")
    # What is said in whole seconds was said some seconds ago.
    return settled(
        min(ends) >= trial.link_lifetime_s - 60, f"{min(ends)} s, the catalogue says {trial.link_lifetime_s}"
    )


SHARED = listed(
    {
        "the film has 24 frames a second, and one more": _frames,
        "the film has the pixels of its resolution and ratio": _pixels,
        "the film has sound where it was ordered": _audio,
        "the link to the film needs no key": _open_link,
        "the film comes as video/mp4": _content_type,
        "the link lives as long as the catalogue says": _lifetime,
    }
)
"""Of every seller, also of one whose adapter was installed."""
