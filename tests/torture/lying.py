"""
Sellers that lie: every fault of the catalogue at every seller that can fail so, alone and mixed.

Whenever a seller is left that is able, the video is made; the exceptions are named here, with their ends.
"""

import random
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import yaml

from proxy.simulator.faults import CATALOGUE, SELLERS, Fault
from tests.torture.revived import SUBMIT_TIMEOUT_S, Order, Revived
from tests.torture.verdict import Tally, judge_each, summed
from tests.whole.scenes import rule
from tests.whole.stage import ROOT

SPEED = 100.0
LINK_LIFETIME_S = 60
"""After which a film that cannot be fetched is given up."""
BRIEF_S = 10
MARKUP = "0.12345"
MIXED = 240
"""Videos whose sellers lie at random."""
MIXED_RATIO = 0.3
"""Of the orders at a seller that meet a fault; a tenth of those meet a second one."""
ARMED = "revoked"
"""A marked one would last for ever; armed, it strikes whoever asks next."""
ARMED_COUNT = 5

WITHOUT_END = ("never_ends", "lost@shortapi")
"""The order runs until the deadline; ShortAPI has no word of its own for an order that it does not know."""
NO_FILM = ("url_404", "html_file", "truncated", "expired")
"""Marked, they stay with their job: the film was made and paid, and is never rendered again."""
MOVES_ON = (
    "unauthorized", "no_credit", "invalid", "moderation", "throttled", "throttled_seconds", "throttled_date",
    "error_503", "error_503_html", "moderation_late", "render_failed", "no_url",
    "reset_before", "error_500", "error_502_html", "error_504", "lost",
)  # fmt: skip
"""Nothing comes of the order: the seller says so, or in the end an operator."""


def cases() -> list[tuple[Fault, str]]:
    """Every fault with every seller that can fail so."""
    calling = ("fal", "runflow", "shortapi")  # evolink calls https only, and nobody here has a certificate
    return [
        (fault, seller)
        for fault in CATALOGUE.values()
        for seller in fault.sellers
        if fault.stage != "callback" or seller in calling
    ]


def is_without_end(fault: str, seller: str) -> bool:
    """Whether nothing but our deadline ends an order that has this fault."""
    return fault in WITHOUT_END or f"{fault}@{seller}" in WITHOUT_END


def rules(written: dict[str, Any], origin: str) -> None:
    """Every seller there is, and rules that go on after whatever failure."""
    blocking = "runflow-legacy"
    offers = yaml.safe_load((ROOT / f"proxy/catalog/{blocking}.yaml").read_text())["offers"]
    written["providers"][blocking] = written["providers"]["runflow"] | {
        "adapter": blocking, "base_url": f"{origin}/{blocking}", "offers": offers
    }  # fmt: skip
    for provider in written["providers"].values():
        for offer in provider["offers"]:
            offer["link_lifetime_s"] = LINK_LIFETIME_S
            offer["submit_timeout_s"] = SUBMIT_TIMEOUT_S
    on = ["throttled", "capacity", "provider_error", "seller_timeout", "account", "invalid_input"]
    onwards = {"on": on, "on_moderation": "next"}
    written["rules"] = [
        rule("brief", {"metadata.brief": "yes"}, fallback={**onwards, "deadline_s": BRIEF_S}),
        rule("bold", {"metadata.bold": "yes"}, fallback={**onwards, "on_unknown": "fallback"}),
        rule("default", fallback=onwards),
    ]


def alone() -> list[Order]:
    """One order for each case, under both rules for what nobody knows the end of."""
    return [
        Order(
            name=f"{fault.id}-{seller}-{'bold' if bold else 'wait'}",
            faults=() if fault.id == ARMED else (f"{fault.id}@{seller}",),
            order=(seller, *_others(seller)),
            bold=bold,
            brief=is_without_end(fault.id, seller),
        )
        for fault, seller in cases()
        for bold in (False, True)
    ]


def _others(seller: str) -> tuple[str, str]:
    """Two that are able, whichever it is that is not."""
    first, second = [one for one in ("evolink", "fal", "shortapi") if one != seller][:2]
    return first, second


def mixed(dice: random.Random, count: int) -> list[Order]:
    """Each seller in a video's order meets a fault of any kind, by chance, or two."""
    orders = []
    for number in range(count):
        order = tuple(dice.sample([one for one in SELLERS if one != "runflow-legacy"], 3))
        faults = tuple(f"{fault}@{seller}" for seller in order for fault in _some_faults(dice, seller))
        wish = Order(name=f"mixed-{number}", faults=faults, order=order, bold=dice.random() < 0.5)
        # Where nobody is able, there is nothing to wait for.
        endless = any(is_without_end(*fault.split("@")) for fault in faults)
        orders.append(msgspec.structs.replace(wish, brief=endless or not must_be_made(wish)))
    return orders


def _some_faults(dice: random.Random, seller: str) -> list[str]:
    able = [fault for fault, one in cases() if one == seller and fault.id != ARMED]
    found: list[str] = []
    while len(found) < 2 and dice.random() < (MIXED_RATIO if not found else 0.1):
        found.append(dice.choice(able).id)
    return found


def must_be_made(order: Order) -> bool:
    """Whether a seller that is able comes before one that takes the order and never gives the film."""
    for seller in order.order:
        faults = {fault.split("@")[0] for fault in order.faults if fault.split("@")[1] == seller}
        if any(is_without_end(fault, seller) for fault in faults):
            return False
        if faults & {*MOVES_ON}:
            continue
        if seller == "runflow":
            faults -= {"expired"}  # which tells another link when it is asked again
        return not faults & {*NO_FILM}
    return False


def fault_of(order: Order) -> str:
    """The line of the table that an order belongs to."""
    kind = order.name.split("-")[0]
    return f"mixed at {MIXED_RATIO:.0%}" if kind == "mixed" else kind


async def struck(stage: Revived) -> set[tuple[str, str]]:
    """Fault and seller, by the sellers' own record."""
    told = (await stage.admin.get("/admin/faults")).raise_for_status().json()["struck"]
    found = {(fault, seller) for seller, faults in told.items() for fault in faults}
    # What concerns a job's life or its film shows once it is under way; what is no fault of its end, once it has ended.
    running = {"never_ends": "running"}
    for job in await stage.books():
        for fault in job["faults"]:
            is_so = job["state"] == running[fault] if fault in running else job["ended_at"] is not None
            if CATALOGUE[fault].stage in {"life", "output"} and is_so:
                found.add((fault, job["seller"]))
    return found


async def torture(folder: Path, engine: str, *, seed: int = 1, mix: int = MIXED) -> list[Tally]:
    """All cases at once on one server, so that sellers are asked by many while they lie."""
    async with AsyncExitStack() as stack:
        stage = Revived(folder, stack)
        await stage.start_sellers(speed=SPEED)
        origin = stage.sellers.origin
        await stage.move(folder / "lies", engine, lambda written: rules(written, origin))
        stage.begin()
        await stage.mark_up(MARKUP)
        for seller in CATALOGUE[ARMED].sellers:
            await stage.arm(seller, ARMED, count=ARMED_COUNT)
        orders = alone() + mixed(random.Random(seed), mix)
        for order in orders:
            await stage.order(order)
        tallies = await judge_each(stage, fault_of, whole="the lies together", within_s=400)
        told = await struck(stage)
        tallies += [
            Tally(fault=fault.id, differences=[f"it never struck at {seller}"])
            for fault, seller in cases()
            if (fault.id, seller) not in told
        ]
        for video_id, order in stage.accepted.items():
            video = (await stage.ask("GET", f"/v1/videos/{video_id}")).json()
            code = (video["error"] or {}).get("code")
            if code is not None and must_be_made(order) and not order.brief:
                tallies.append(Tally(fault=fault_of(order), differences=[f"{order.name} was not made: {code}"]))
    return summed(tallies)
