"""How a fact is judged by what one order showed."""

from typing import Any

import msgspec
import pytest

from proxy.providers.trial import SHARED, Seen, Trial, answers, dig, holds, judge, reads, shown, states_price, words
from tests.providers.trials import CLIP, ORDER, make_trial


def verdict(says: str, trial: Trial) -> Seen:
    return next(seen for fact, seen in judge(SHARED, trial) if says in fact.says)


def test_good_film_confirms_what_all_sellers_share() -> None:
    assert {fact.says: seen.verdict for fact, seen in judge(SHARED, make_trial())} == {
        fact.says: "confirmed" for fact in SHARED
    }


def test_without_a_film_nothing_is_claimed() -> None:
    assert {seen.verdict for _, seen in judge(SHARED, make_trial(clip=None, links=()))} == {"not seen"}


@pytest.mark.parametrize(
    ("says", "change", "detail"),
    [
        ("24 frames", {"duration_ms": 4000}, "4.0 s"),
        ("24 frames", {"duration_ms": 5042}, "5.042 s"),
        ("pixels", {"width_px": 854, "height_px": 480}, "854x480"),
        ("sound", {"has_audio": False}, "silent"),
        ("video/mp4", {"content_type": None}, "null"),
    ],
)
def test_film_that_is_otherwise_breaks_one_fact(says: str, change: dict[str, Any], detail: str) -> None:
    trial = make_trial(clip=msgspec.structs.replace(CLIP, **change))
    assert verdict(says, trial) == Seen(verdict="broken", detail=detail)


def test_silent_film_is_right_where_silence_was_ordered() -> None:
    silent = msgspec.structs.replace(CLIP, has_audio=False)
    order = msgspec.structs.replace(ORDER, generate_audio=False)
    assert verdict("sound", make_trial(clip=silent, order=order)).verdict == "confirmed"


def test_length_that_the_seller_chose_says_nothing_of_frames() -> None:
    assert verdict("24 frames", make_trial(order=msgspec.structs.replace(ORDER, seconds=None))).verdict == "not seen"


def test_link_that_gives_no_film_may_need_a_key() -> None:
    assert verdict("needs no key", make_trial(clip=None)).verdict == "broken"


@pytest.mark.parametrize(
    ("query", "expected", "detail"),
    [
        ("?exp=3700", "confirmed", "3600 s, the catalogue says 3600"),
        ("?Expires=3650", "confirmed", "3550 s, the catalogue says 3600"),
        ("?se=700", "broken", "600 s, the catalogue says 3600"),
        ("?X-Amz-Expires=7200&X-Amz-Date=x", "confirmed", "7200 s, the catalogue says 3600"),
        ("?exp=soon", "not seen", "the link does not say when it ends"),
        ("", "not seen", "the link does not say when it ends"),
    ],
)
def test_lifetime_is_read_from_the_link(query: str, expected: str, detail: str) -> None:
    trial = make_trial(links=(f"https://files.example/a.mp4{query}",))
    assert verdict("lives", trial) == Seen(verdict=expected, detail=detail)  # type: ignore[arg-type]  # a Verdict


# Makers of checks


def test_status_counts_in_every_reply_of_a_step() -> None:
    check = answers("poll", 200)
    assert check(make_trial()).verdict == "not seen"
    assert check(make_trial(said={"poll": [(200, {}), (200, {})]})) == Seen(verdict="confirmed", detail="200")
    assert check(make_trial(said={"poll": [(200, {}), (204, {})]})) == Seen(verdict="broken", detail="200, 204")


def test_kind_of_a_value_is_told_but_never_the_value() -> None:
    check = holds("file", ("video", "url"), str)
    assert check(make_trial()).verdict == "not seen"
    good = check(make_trial(said={"file": [(200, {"video": {"url": "https://files.example/?sig=hush"}})]}))
    assert good == Seen(verdict="confirmed", detail="text")
    for value, kind in ((None, "missing"), (3, "a number"), (True, "true or false"), ([], "a list"), ({}, "an object")):
        assert check(make_trial(said={"file": [(200, {"video": {"url": value}})]})) == Seen(
            verdict="broken", detail=kind
        )


def test_value_is_compared_with_what_was_ordered() -> None:
    check = reads("file", ("seed",), lambda trial: trial.order.seed)
    assert check(make_trial()).verdict == "not seen"
    assert check(make_trial(said={"file": [(200, {"seed": 7})]})) == Seen(verdict="confirmed", detail="7")
    assert check(make_trial(said={"file": [(200, {"seed": "7"})]})) == Seen(verdict="broken", detail='"7"')


def test_words_are_told_heard_and_unheard() -> None:
    check = words(("status",), ("queued", "done"))
    assert check(make_trial()).verdict == "not seen"
    assert check(make_trial(said={"poll": [(200, {"status": "queued"}), (200, {"status": "done"})]})) == Seen(
        verdict="confirmed", detail='"queued", "done"'
    )
    assert check(make_trial(said={"poll": [(200, {"status": "done"})]})) == Seen(
        verdict="confirmed", detail='"done"; not heard: "queued"'
    )
    assert check(make_trial(said={"poll": [(200, {"status": "done"}), (200, {"status": "resting"})]})) == Seen(
        verdict="broken", detail='"done", "resting"; not heard: "queued"'
    )


@pytest.mark.parametrize(
    ("amount", "expected", "detail"),
    [
        ("0.45", "confirmed", '"0.45"'),
        (0.45, "confirmed", "0.45"),
        ("0.46", "broken", '"0.46", the price is $0.450000'),
        ("45 cents", "broken", '"45 cents", the price is $0.450000'),
        (-1, "broken", "-1, the price is $0.450000"),
        (None, "broken", "no amount"),
    ],
)
def test_amount_must_be_the_price(amount: Any, expected: str, detail: str) -> None:
    seen = states_price("create", ("amount",))(make_trial(said={"create": [(200, {"amount": amount})]}))
    assert (seen.verdict, seen.detail) == (expected, detail)


def test_amount_in_another_unit_may_be_off_by_a_little() -> None:
    check = states_price("create", ("credits",), usd_per_unit="0.0147", within="0.02")
    assert check(make_trial()).verdict == "not seen"
    for credit, expected in ((30.6, "confirmed"), (31.0, "confirmed"), (45, "broken")):
        assert check(make_trial(said={"create": [(200, {"credits": credit})]})).verdict == expected


# Reading


def test_way_into_a_value_ends_where_it_breaks_off() -> None:
    value = {"runs": [{"id": 1}]}
    assert dig(value, "runs", 0, "id") == 1
    for path in (("runs", 1, "id"), ("runs", "id"), ("jobs", 0), ("runs", 0, "id", "more")):
        assert dig(value, *path) is None


def test_body_that_is_no_json_reads_as_nothing() -> None:
    trial = make_trial(said={"poll": [(200, b"<html>"), (200, b"\xff")]})
    assert trial.bodies("poll") == [None, None]


def test_long_values_are_cut() -> None:
    assert shown("x" * 100) == '"' + "x" * 59 + "…"
