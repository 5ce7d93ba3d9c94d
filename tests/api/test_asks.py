"""The fields of a create request: what each may say, and what it asks for."""

from decimal import Decimal
from typing import Any

import pytest

from proxy.api.asks import (
    CREATE_FIELDS,
    MAX_PROMPT_CHARS,
    MAX_URL_CHARS,
    NOT_SOLD,
    CreateBody,
    Medium,
    RoutingBody,
    build_ask,
    media_of,
)
from proxy.api.forms import UploadedFile
from proxy.core.errors import (
    InvalidType,
    InvalidValue,
    MissingParameter,
    RequestError,
    UnknownParameter,
    Unsupported,
)
from proxy.core.video import Ask, RoutingWish

URL = "https://example.com/a.png"


def make_file(*, size_bytes: int = 3) -> UploadedFile:
    return UploadedFile(field="input_reference", filename="a.png", size_bytes=size_bytes, sha256="ab", kind=None)


def ask(**fields: Any) -> Ask:
    return build_ask(CreateBody(**({"prompt": "a boat"} | fields)), ())


def refused(**fields: Any) -> tuple[type[RequestError], str | None]:
    with pytest.raises(RequestError) as caught:
        ask(**fields)
    return type(caught.value), caught.value.param


def test_what_is_left_open_stays_open() -> None:
    assert ask() == Ask(prompt="a boat")


def test_every_stated_field_is_asked_for() -> None:
    assert ask(
        model="seedance-2.0:cheapest",
        seconds="5",
        size="1280x720",
        resolution="720p",
        aspect_ratio="16:9",
        generate_audio=False,
        seed=7,
        content_filter=False,
        tier="fast",
        web_search=True,
        end_user_id="u-1",
        metadata={"stage": "preview"},
        routing=RoutingBody(
            sort="latency",
            only=("fal",),
            ignore=("evolink",),
            order=("fal", "runflow"),
            max_price_usd=Decimal("1.5"),
            max_wait_s=30,
            allow_fallbacks=False,
        ),
    ) == Ask(
        prompt="a boat",
        model="seedance-2.0:cheapest",
        seconds=5,
        size="1280x720",
        resolution="720p",
        aspect_ratio="16:9",
        generate_audio=False,
        seed=7,
        content_filter=False,
        tier="fast",
        web_search=True,
        end_user_id="u-1",
        metadata={"stage": "preview"},
        routing=RoutingWish(
            sort="latency",
            only=("fal",),
            ignore=("evolink",),
            order=("fal", "runflow"),
            max_price_microusd=1_500_000,
            max_wait_s=30,
            allow_fallbacks=False,
        ),
    )


@pytest.mark.parametrize(
    ("prompt", "refusal"),
    [(None, MissingParameter), ("", InvalidValue), (" \n", InvalidValue), ("x" * (MAX_PROMPT_CHARS + 1), InvalidValue)],
)
def test_a_prompt_that_says_nothing_or_too_much_is_refused(prompt: str | None, refusal: type[RequestError]) -> None:
    assert refused(prompt=prompt) == (refusal, "prompt")


def test_the_longest_prompt_passes() -> None:
    assert len(ask(prompt="x" * MAX_PROMPT_CHARS).prompt) == MAX_PROMPT_CHARS


@pytest.mark.parametrize(
    ("stated", "seconds"),
    [(5, 5), ("5", 5), (5.0, 5), ("5.0", 5), ("005", 5), ("auto", "auto"), (100_000, 100_000)],
)
def test_seconds_are_whole_or_auto_however_written(stated: Any, seconds: Any) -> None:
    assert ask(seconds=stated).seconds == seconds
    assert ask(duration=stated).seconds == seconds


@pytest.mark.parametrize(
    "stated",
    [
        0,
        -5,
        5.5,
        "5.5",
        "",
        " 5",
        "5s",
        "\u0665",
        "1e1",
        "-5",
        float("inf"),
        float("nan"),
        10**400,
        100_001,
        "1" * 5000,
    ],
)
def test_other_seconds_are_refused(stated: Any) -> None:
    assert refused(seconds=stated) == (InvalidValue, "seconds")
    assert refused(duration=stated) == (InvalidValue, "duration")


def test_two_names_may_say_the_same() -> None:
    assert ask(seconds="5", duration=5.0).seconds == 5
    assert ask(user="u", end_user_id="u").end_user_id == "u"
    assert ask(user="u").end_user_id == "u"


def test_two_names_that_differ_contradict_each_other() -> None:
    assert refused(seconds="5", duration=6) == (InvalidValue, "duration")
    assert refused(seconds="auto", duration=6) == (InvalidValue, "duration")
    assert refused(user="u", end_user_id="v") == (InvalidValue, "user")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("resolution", "4k"),
        ("resolution", ""),
        ("aspect_ratio", "2:1"),
        ("tier", "pro"),
        ("size", ""),
        ("size", "x" * 200),
        ("model", " "),
        ("model", "x" * 200),
        ("seed", 2**32),
        ("seed", -1),
        ("end_user_id", ""),
        ("end_user_id", "x" * 129),
        ("user", "x" * 129),
    ],
)
def test_values_outside_their_bounds_are_refused(field: str, value: Any) -> None:
    assert refused(**{field: value}) == (InvalidValue, field)


def test_a_closed_set_is_listed_in_its_refusal() -> None:
    with pytest.raises(InvalidValue, match="480p, 720p, 1080p"):
        ask(resolution="4k")


def test_any_size_is_handed_on_for_the_plan_to_judge() -> None:
    assert ask(size="1792x1024").size == "1792x1024"
    assert ask(aspect_ratio="auto").aspect_ratio == "auto"


@pytest.mark.parametrize(
    ("metadata", "param"),
    [
        ({str(number): "x" for number in range(17)}, "metadata"),
        ({"": "x"}, "metadata"),
        ({"k" * 65: "x"}, "metadata"),
        ({"k": "x" * 513}, "metadata.k"),
    ],
)
def test_metadata_keeps_its_bounds(metadata: dict[str, str], param: str) -> None:
    assert refused(metadata=metadata) == (InvalidValue, param)


def test_metadata_at_its_bounds_passes() -> None:
    metadata = {f"{number:064}": "x" * 512 for number in range(16)}

    assert ask(metadata=metadata).metadata == metadata


@pytest.mark.parametrize(
    ("routing", "param"),
    [
        (RoutingBody(sort="cheap"), "routing.sort"),
        (RoutingBody(only=("fal", "")), "routing.only[1]"),
        (RoutingBody(ignore=("x" * 200,)), "routing.ignore[0]"),
        (RoutingBody(order=(" ",)), "routing.order[0]"),
        (RoutingBody(only=("fal",) * 101), "routing.only"),
        (RoutingBody(max_wait_s=0), "routing.max_wait_s"),
        (RoutingBody(max_wait_s=10**30), "routing.max_wait_s"),
        *(
            (RoutingBody(max_price_usd=Decimal(text)), "routing.max_price_usd")
            for text in ("0", "-1", "NaN", "sNaN", "Infinity", "1e999999999", "1000000.01")
        ),
    ],
)
def test_routing_wishes_that_make_no_sense_are_refused(routing: RoutingBody, param: str) -> None:
    assert refused(routing=routing) == (InvalidValue, param)


@pytest.mark.parametrize(
    ("usd", "microusd"),
    [("1.50", 1_500_000), ("0.1", 100_000), ("0.0000019", 1), ("1e-30", 0), ("1000000", 10**12)],
)
def test_a_price_limit_is_rounded_down(usd: str, microusd: int) -> None:
    assert ask(routing=RoutingBody(max_price_usd=Decimal(usd))).routing.max_price_microusd == microusd


def test_an_empty_list_of_providers_says_nothing() -> None:
    assert ask(routing=RoutingBody(only=(), ignore=(), order=())).routing == RoutingWish()


def test_callbacks_are_not_promised_yet() -> None:
    assert refused(callback_url="https://example.com") == (Unsupported, "callback_url")


@pytest.mark.parametrize(
    ("field", "operation"),
    [
        ("input_reference", "image-to-video"),
        ("end_image", "image-to-video"),
        ("reference_images", "reference-to-video"),
        ("reference_videos", "reference-to-video"),
        ("reference_audios", "reference-to-video"),
    ],
)
def test_pictures_and_references_make_the_operation(field: str, operation: str) -> None:
    value = [URL] if field.startswith("reference_") else URL
    made = build_ask(CreateBody(prompt="a"), media_of({field: value}))

    assert (made.operation, made.operation_param) == (operation, field)


def test_the_first_picture_names_the_operation() -> None:
    made = build_ask(CreateBody(prompt="a"), media_of({"end_image": URL, "input_reference": URL}))

    assert made.operation_param == "input_reference"


def test_a_picture_to_begin_with_and_references_do_not_mix() -> None:
    with pytest.raises(InvalidValue) as caught:
        build_ask(CreateBody(prompt="a"), media_of({"end_image": URL, "reference_audios": [URL]}))

    assert caught.value.param == "reference_audios"


def test_an_image_may_come_in_every_form() -> None:
    (link,) = media_of({"input_reference": URL})

    assert media_of({"input_reference": {"image_url": URL, "file_id": None}}) == (link,)
    assert media_of({"input_reference": make_file()})[0] == Medium(field="input_reference", source="file", digest="ab")
    assert media_of({"input_reference": {"file_id": "file-1"}})[0].source == "file_id"
    assert media_of({"input_reference": "data:image/png;base64,AAAA"})[0].source == "url"


def test_references_are_a_list_in_every_form() -> None:
    links = media_of({"reference_videos": [URL, {"video_url": URL}]})

    assert links == media_of({"reference_videos": {"0": URL, "1": {"video_url": URL}}})
    assert len(links) == 2
    assert media_of({"reference_videos": [], "reference_images": None}) == ()


@pytest.mark.parametrize(
    ("stated", "refusal", "param"),
    [
        ({"input_reference": {"image_url": URL, "file_id": "f"}}, InvalidValue, "input_reference"),
        ({"input_reference": {}}, InvalidValue, "input_reference"),
        ({"input_reference": {"image_url": None}}, InvalidValue, "input_reference"),
        ({"input_reference": {"url": URL}}, UnknownParameter, "input_reference.url"),
        ({"input_reference": {"image_url": 1}}, InvalidType, "input_reference.image_url"),
        ({"input_reference": {"image_url": make_file()}}, InvalidType, "input_reference.image_url"),
        ({"input_reference": {"image_url": "ftp://a/b"}}, InvalidValue, "input_reference.image_url"),
        ({"input_reference": {"file_id": ""}}, InvalidValue, "input_reference.file_id"),
        ({"input_reference": {"file_id": "x" * 200}}, InvalidValue, "input_reference.file_id"),
        ({"input_reference": "a boat"}, InvalidValue, "input_reference"),
        ({"input_reference": "https://"}, InvalidValue, "input_reference"),
        ({"input_reference": "https://a/\0"}, InvalidValue, "input_reference"),
        ({"input_reference": "data:" + "x" * MAX_URL_CHARS}, InvalidValue, "input_reference"),
        ({"input_reference": 5}, InvalidType, "input_reference"),
        ({"input_reference": [URL]}, InvalidType, "input_reference"),
        ({"input_reference": make_file(size_bytes=0)}, InvalidValue, "input_reference"),
        ({"reference_images": URL}, InvalidType, "reference_images"),
        ({"reference_images": {"image_url": URL}}, InvalidType, "reference_images"),
        ({"reference_images": [URL] * 101}, InvalidValue, "reference_images"),
        ({"reference_images": [URL, 5]}, InvalidType, "reference_images[1]"),
        ({"reference_audios": [{"image_url": URL}]}, UnknownParameter, "reference_audios[0].image_url"),
    ],
)
def test_media_that_cannot_be_meant_are_refused(
    stated: dict[str, Any], refusal: type[RequestError], param: str
) -> None:
    with pytest.raises(RequestError) as caught:
        media_of(stated)

    assert (type(caught.value), caught.value.param) == (refusal, param)


def test_what_is_not_sold_is_no_field_of_ours() -> None:
    assert not set(NOT_SOLD) & set(CREATE_FIELDS)
