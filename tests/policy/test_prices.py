"""Dated prices, quotes rounded up, and charges that never exceed what was held."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.errors import PriceMissing
from proxy.core.offer import InputSeconds, Price
from proxy.core.video import ASPECT_RATIOS, PIXELS, RESOLUTIONS, Spec
from proxy.policy.prices import Charge, Rated, billed_seconds, charge, price_in_force, quote, rate, resolution_of
from tests.policy.policies import make_candidate, make_offer, make_price, make_spec

DAY = "2026-11-21"
HD, SMALL, FULL = (1280, 720), (864, 496), (1920, 1080)


def settled(asked: Spec | None = None, *, markup: str = "0", hold: int = 10_000_000, **fields: Any) -> Charge:
    """The charge for a clip that is as asked, but for what `fields` say of it."""
    delivered = {
        "delivered_seconds": fields.pop("seconds", 5.04),
        "delivered_px": fields.pop("px", HD),
        "stated_cost_microusd": fields.pop("stated", None),
    }
    return charge(make_candidate(**fields), markup, asked or make_spec(), **delivered, hold_microusd=hold)


def test_latest_price_that_has_started_is_in_force() -> None:
    offer = make_offer(
        prices=(
            make_price("0.30", starts="2026-12-01"),
            make_price("0.20", starts="2026-04-01"),
            make_price("0.25", starts="2026-11-21"),
        )
    )
    assert price_in_force(offer, "720p", "2026-11-20").usd_per_second == "0.20"
    assert price_in_force(offer, "720p", "2026-11-21").usd_per_second == "0.25"
    assert price_in_force(offer, "720p", "2026-12-31").usd_per_second == "0.30"


def test_price_is_never_guessed() -> None:
    with pytest.raises(PriceMissing):
        price_in_force(make_offer(), "720p", "2026-03-31")
    with pytest.raises(PriceMissing):
        rate(make_offer(prices=()), make_spec(), DAY, discount="0")


def test_rate_is_list_less_discount_with_surcharges() -> None:
    offer = make_offer(filter_switch=True, filter_off_factor="1.1", web_search=True, web_search_usd="0.0006")
    rated = rate(offer, make_spec(content_filter=False, web_search=True), DAY, discount="0.10")
    assert rated.usd_per_second == Decimal("0.198")
    assert {name: Decimal(usd) for name, usd in rated.rates.items()} == {
        "480p": Decimal("0.099"),
        "720p": Decimal("0.198"),
    }
    assert rated.fixed_usd == Decimal("0.00054")


def test_search_that_the_offer_cannot_do_costs_nothing() -> None:
    rated = rate(make_offer(web_search_usd="0.0006"), make_spec(web_search=True), DAY, discount="0")
    assert rated.fixed_usd == 0


def test_smaller_resolution_without_a_price_has_no_rate() -> None:
    rated = rate(make_offer(prices=(make_price("0.24"),)), make_spec(), DAY, discount="0")
    assert list(rated.rates) == ["720p"]


def test_larger_resolution_is_not_among_the_rates() -> None:
    assert list(rate(make_offer(), make_spec(resolution="480p"), DAY, discount="0").rates) == ["480p"]


def by_tokens(usd: str, resolution: str = "720p") -> Price:
    return make_price(usd, resolution, unit="usd_per_million_tokens")


@pytest.mark.parametrize(
    ("resolution", "aspect_ratio", "usd_per_second"),
    [
        ("720p", "16:9", "0.3024"),
        ("720p", "21:9", "0.3038765625"),
        ("720p", "9:16", "0.3024"),
        ("480p", "16:9", "0.140616"),
        ("480p", "1:1", "0.1344"),
    ],
)
def test_price_by_tokens_is_that_of_the_frames_own_pixels(
    resolution: str, aspect_ratio: str, usd_per_second: str
) -> None:
    offer = make_offer(prices=(by_tokens("14"), by_tokens("14", "480p")))
    rated = rate(offer, make_spec(resolution=resolution, aspect_ratio=aspect_ratio), DAY, discount="0")
    assert rated.usd_per_second == Decimal(usd_per_second)


def test_price_by_tokens_of_an_open_ratio_is_the_dearest_that_the_offer_makes() -> None:
    wide = make_offer(aspect_ratios=("16:9", "1:1", "21:9", "auto"), prices=(by_tokens("14"),))
    plain = make_offer(aspect_ratios=("16:9", "1:1", "auto"), prices=(by_tokens("14"),))
    any_ratio = make_offer(aspect_ratios=("auto",), prices=(by_tokens("14"),))
    spec = make_spec(aspect_ratio="auto")
    assert rate(wide, spec, DAY, discount="0").usd_per_second == Decimal("0.3038765625")
    assert rate(plain, spec, DAY, discount="0").usd_per_second == Decimal("0.3024")
    assert rate(any_ratio, spec, DAY, discount="0").usd_per_second == Decimal("0.30430575")


def test_price_that_states_no_amount_is_none_and_not_free() -> None:
    nothing = msgspec.structs.replace(make_price("0.1"), usd_per_second=None)
    with pytest.raises(PriceMissing, match="states no amount"):
        rate(make_offer(prices=(nothing,)), make_spec(), DAY, discount="0")


def test_smaller_film_of_a_price_by_tokens_costs_its_own_pixels() -> None:
    offer = make_offer(prices=(by_tokens("14"), make_price("0.1", "480p")))
    rates = rate(offer, make_spec(), DAY, discount="0.5").rates
    assert {name: Decimal(usd) for name, usd in rates.items()} == {"480p": Decimal("0.05"), "720p": Decimal("0.1512")}


def test_quote_is_rounded_up_once_for_each_party() -> None:
    rated = rate(make_offer(prices=(make_price("0.00000033"),)), make_spec(), DAY, discount="0")
    found = quote(rated, 5, "0.15")
    assert (found.seller_microusd, found.tenant_microusd, found.hold_microusd) == (2, 2, 2)


def test_derived_price_is_held_a_quarter_higher() -> None:
    rated = rate(make_offer(prices=(make_price("0.495", basis="derived"),)), make_spec(), DAY, discount="0")
    found = quote(rated, 5, "0")
    assert (found.tenant_microusd, found.hold_microusd) == (2_475_000, 3_093_750)


@pytest.mark.parametrize(("key", "size"), list(PIXELS.items()))
def test_every_size_of_the_table_is_known(key: tuple[str, str], size: tuple[int, int]) -> None:
    assert resolution_of(size) == key[0]


@pytest.mark.parametrize(
    ("size", "resolution"), [((854, 480), "480p"), ((1472, 640), "720p"), ((1918, 1080), "1080p"), ((2, 2), "480p")]
)
def test_unlisted_size_counts_as_the_nearest_in_area(size: tuple[int, int], resolution: str) -> None:
    assert resolution_of(size) == resolution


def test_clip_one_frame_longer_costs_the_seconds_asked() -> None:
    found = settled(seconds=5.04)
    assert (found.tenant_microusd, found.billed_seconds, found.billed_resolution) == (1_000_000, 5, "720p")


@pytest.mark.parametrize(("seconds", "billed"), [(4.5, 5), (4.49, 4), (9.0, 5), (2.2, 2), (0.0, 0)])
def test_shorter_clip_costs_less_and_longer_one_no_more(seconds: float, billed: int) -> None:
    found = settled(seconds=seconds)
    assert (found.billed_seconds, found.tenant_microusd) == (billed, billed * 200_000)


def test_smaller_clip_costs_less_and_larger_one_no_more() -> None:
    assert settled(px=SMALL).tenant_microusd == 500_000
    assert settled(px=FULL).tenant_microusd == 1_000_000


def test_smaller_clip_without_a_price_of_its_own_costs_the_next_one() -> None:
    found = settled(px=SMALL, rates={"720p": "0.24"})
    assert (found.tenant_microusd, found.billed_resolution) == (1_200_000, "480p")


@pytest.mark.parametrize(("seconds", "billed"), [(3.2, 4), (6.5, 7), (7.04, 7), (15.5, 15)])
def test_auto_length_costs_the_measured_whole_seconds(seconds: float, billed: int) -> None:
    found = settled(make_spec(seconds=None), seconds=seconds)
    assert (found.billed_seconds, found.tenant_microusd) == (billed, billed * 200_000)
    assert found.seller_microusd == billed * 200_000


def test_markup_and_fixed_part_are_charged() -> None:
    assert settled(markup="0.15", fixed_usd="0.0006").tenant_microusd == 1_150_690


def test_charge_is_rounded_half_to_even_once() -> None:
    assert settled(rates={"720p": "0.0000005"}).tenant_microusd == 2
    assert settled(rates={"720p": "0.0000003"}).tenant_microusd == 2


def test_listed_price_ignores_what_the_seller_says_for_the_tenant() -> None:
    found = settled(stated=700_000)
    assert (found.tenant_microusd, found.seller_microusd) == (1_000_000, 700_000)


def test_derived_price_settles_at_the_stated_cost_with_markup() -> None:
    found = settled(basis="derived", stated=1_100_000, markup="0.1")
    assert (found.tenant_microusd, found.seller_microusd) == (1_210_000, 1_100_000)


def test_derived_price_without_a_stated_cost_settles_at_its_rate() -> None:
    assert settled(basis="derived").tenant_microusd == 1_000_000


@pytest.mark.parametrize("changed", [{"seconds": 10.0}, {"px": FULL}])
def test_derived_price_is_not_charged_for_more_than_was_asked(changed: dict[str, Any]) -> None:
    assert settled(basis="derived", stated=2_000_000, **changed).tenant_microusd == 1_000_000


@pytest.mark.parametrize(("stated", "charged"), [(900_000, 800_000), (700_000, 700_000)])
def test_derived_price_for_less_is_the_lower_one(stated: int, charged: int) -> None:
    assert settled(basis="derived", stated=stated, seconds=4.0).tenant_microusd == charged


def test_charge_stops_at_the_hold_and_the_rest_is_overrun() -> None:
    found = settled(basis="derived", stated=1_400_000, hold=1_250_000)
    assert (found.tenant_microusd, found.overrun_microusd) == (1_250_000, 150_000)


def test_overrun_of_a_listed_price_is_what_the_seller_takes_beyond_the_hold() -> None:
    found = settled(stated=1_200_000, hold=1_000_000)
    assert (found.tenant_microusd, found.seller_microusd, found.overrun_microusd) == (1_000_000, 1_200_000, 200_000)


def test_seller_that_says_nothing_took_the_full_rate_of_what_was_asked() -> None:
    found = settled(seconds=4.0, px=SMALL)
    assert (found.tenant_microusd, found.seller_microusd) == (400_000, 1_000_000)


# Seconds of reference videos


@pytest.mark.parametrize(
    ("how", "film_s", "input_s", "billed"),
    [
        (None, 5, 9, 5),
        ("added", 5, 0, 5),
        ("added", 5, 9, 14),
        ("longest_added", 5, 0, 5),
        ("longest_added", 5, 9, 14),
        ("longest_added", 9, 5, 18),
    ],
)
def test_seconds_of_reference_videos_count_as_the_seller_counts_them(
    how: InputSeconds | None, film_s: int, input_s: int, billed: int
) -> None:
    assert billed_seconds(how, film_s, input_s) == billed


def test_price_with_a_reference_video_is_the_one_of_its_own_or_the_plain_one() -> None:
    own = make_price("0.12", with_video=True, id="with", starts="2026-05-01")
    offer = make_offer(
        prices=(make_price("0.10", "480p"), own, make_price("0.20"), make_price("0.30", starts="2026-06-01"))
    )
    plain, videos = make_spec(), make_spec(input_video_s=9)
    assert rate(offer, plain, DAY, discount="0").price_id == "720p@2026-06-01"
    rated = rate(offer, videos, DAY, discount="0")
    assert (rated.price_id, rated.rates) == ("with", {"480p": "0.10", "720p": "0.12"})
    assert rate(offer, videos, "2026-04-30", discount="0").price_id == "720p@2026-04-01"


def test_seconds_of_reference_videos_are_charged_and_what_is_missing_of_the_film_is_not() -> None:
    spec = make_spec(input_video_s=9)
    full = settled(spec, input_seconds="added")
    assert (full.tenant_microusd, full.tariff.quantity, full.billed_seconds) == (2_800_000, 14, 5)
    short = settled(spec, input_seconds="longest_added", seconds=3.0)
    assert (short.tenant_microusd, short.seller_microusd, short.billed_seconds) == (2_400_000, 2_800_000, 3)
    assert settled(spec).tenant_microusd == 1_000_000


unit = st.sampled_from(["usd_per_second", "usd_per_million_tokens"])
usd = st.decimals(min_value=0, max_value=10, places=7).map(lambda value: f"{value:f}")
ratio = st.decimals(min_value=0, max_value=1, places=3).map(lambda value: f"{value:f}")


@given(
    rates=st.fixed_dictionaries(dict.fromkeys(RESOLUTIONS, st.tuples(usd, unit))),
    ratio_asked=st.sampled_from([*ASPECT_RATIOS, "auto"]),
    asked=st.sampled_from(RESOLUTIONS),
    seconds=st.none() | st.integers(4, 15),
    markup=ratio,
    discount=ratio,
    basis=st.sampled_from(["listed", "derived"]),
    delivered=st.floats(0, 20),
    size=st.sampled_from(list(PIXELS.values())),
    stated=st.none() | st.integers(0, 10**9),
    input_seconds=st.sampled_from([None, "added", "longest_added"]),
    input_s=st.integers(0, 45),
    filtered=st.booleans(),
)
def test_charge_never_exceeds_quote_or_hold(
    rates: dict[str, tuple[str, str]],
    ratio_asked: str,
    asked: str,
    seconds: int | None,
    markup: str,
    discount: str,
    basis: str,
    delivered: float,
    size: tuple[int, int],
    stated: int | None,
    input_seconds: InputSeconds | None,
    input_s: int,
    *,
    filtered: bool,
) -> None:
    offer = make_offer(
        resolutions=RESOLUTIONS,
        filter_off_factor="1.1",
        aspect_ratios=(*ASPECT_RATIOS, "auto"),
        prices=tuple(make_price(value, name, basis=basis, unit=by) for name, (value, by) in rates.items()),
    )
    spec = make_spec(
        resolution=asked, aspect_ratio=ratio_asked, seconds=seconds, content_filter=filtered, input_video_s=input_s
    )
    rated: Rated = rate(offer, spec, DAY, discount=discount)
    quoted = quote(rated, billed_seconds(input_seconds, 15 if seconds is None else seconds, input_s), markup)
    found = charge(
        make_candidate(
            rates=rated.rates, basis=rated.basis, fixed_usd=f"{rated.fixed_usd:f}", input_seconds=input_seconds
        ),
        markup,
        spec,
        delivered_seconds=delivered,
        delivered_px=size,
        stated_cost_microusd=stated,
        hold_microusd=quoted.hold_microusd,
    )
    assert quoted.seller_microusd <= quoted.tenant_microusd <= quoted.hold_microusd
    assert 0 <= found.tenant_microusd <= quoted.hold_microusd
    if basis == "listed" or stated is None:
        assert found.tenant_microusd <= quoted.tenant_microusd
    assert found.seller_microusd - found.overrun_microusd <= quoted.hold_microusd
    assert RESOLUTIONS.index(found.billed_resolution) <= RESOLUTIONS.index(asked)
    if found.tenant_microusd < quoted.hold_microusd:
        assert found.tariff.microusd() == found.tenant_microusd, "the charge can be worked out again"
