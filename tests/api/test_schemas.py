"""The answers' shapes, as they go over the wire."""

from typing import Any

import msgspec
import pytest

from proxy.api.schemas import (
    Abilities,
    AttemptObject,
    ChangeObject,
    ModelList,
    ModelObject,
    ModelPrice,
    RoutingObject,
    SecondsRange,
    UsageObject,
    VideoDeleted,
    VideoError,
    VideoObject,
    error_body,
    video_page,
)

OFFICIAL_KEYS = [
    "id",
    "object",
    "model",
    "status",
    "progress",
    "created_at",
    "completed_at",
    "expires_at",
    "prompt",
    "size",
    "seconds",
    "remixed_from_video_id",
    "error",
]
OUR_KEYS = [
    "resolution",
    "aspect_ratio",
    "generate_audio",
    "seed",
    "content_filter",
    "tier",
    "end_user_id",
    "metadata",
    "usage",
    "routing",
]


def make_video(**changes: Any) -> VideoObject:
    fields: dict[str, Any] = {
        "id": "video_1",
        "model": "seedance-2.0",
        "status": "queued",
        "progress": 0,
        "created_at": 1_795_219_200,
        "prompt": "a boat",
        "size": "1280x720",
        "seconds": "5",
        "resolution": "720p",
        "aspect_ratio": "16:9",
        "generate_audio": True,
        "content_filter": True,
        "tier": "standard",
        "routing": RoutingObject(rule="default", strategy="cheapest"),
    }
    return VideoObject(**(fields | changes))


def as_json(answer: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(answer))


def test_a_video_has_all_official_keys_first_then_ours() -> None:
    assert list(as_json(make_video())) == OFFICIAL_KEYS + OUR_KEYS


def test_what_is_not_known_is_null_never_absent() -> None:
    video = as_json(make_video())

    assert video["error"] is None
    assert video["completed_at"] is None
    assert video["usage"] == {"duration_seconds": None, "cost_usd": None}
    assert video["routing"] == {
        "rule": "default",
        "strategy": "cheapest",
        "provider": None,
        "quoted_usd": None,
        "changed": {},
        "attempts": [],
    }


def test_warnings_and_the_sandbox_are_shown_only_where_there_are_any() -> None:
    video = as_json(make_video(warnings=("Unknown parameter: 'sed'.",), sandbox=True))

    assert video["warnings"] == ["Unknown parameter: 'sed'."]
    assert video["sandbox"] is True


def test_a_settled_video_shows_its_bill_and_its_way() -> None:
    attempt = AttemptObject(
        provider="fal", status="failed", error_code="capacity", cost_usd="0.000000", started_at=1, ended_at=2
    )
    video = as_json(
        make_video(
            status="failed",
            error=VideoError(code="provider_error", message="It broke."),
            usage=UsageObject(duration_seconds=5.04, cost_usd="0.992500"),
            routing=RoutingObject(
                rule="nearly-broke",
                strategy="cheapest",
                changed={"resolution": ChangeObject(asked="1080p", given="480p")},
                attempts=(attempt,),
            ),
        )
    )

    assert video["usage"] == {"duration_seconds": 5.04, "cost_usd": "0.992500"}
    assert video["error"] == {"code": "provider_error", "message": "It broke."}
    assert video["routing"]["changed"] == {"resolution": {"asked": "1080p", "given": "480p"}}
    assert list(video["routing"]["attempts"][0]) == [
        "provider",
        "status",
        "error_code",
        "cost_usd",
        "started_at",
        "ended_at",
    ]


def test_a_page_names_its_ends() -> None:
    page = as_json(video_page((make_video(id="video_1"), make_video(id="video_2")), has_more=True))

    assert list(page) == ["object", "data", "first_id", "last_id", "has_more"]
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("video_1", "video_2", True)


@pytest.mark.parametrize("has_more", [True, False])
def test_an_empty_page_ends_the_iteration(has_more: bool) -> None:
    assert as_json(video_page((), has_more=has_more)) == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


def test_a_deleted_video_answers_with_a_body() -> None:
    assert as_json(VideoDeleted(id="video_1")) == {"id": "video_1", "object": "video.deleted", "deleted": True}


def test_a_model_carries_abilities_and_prices() -> None:
    model = ModelObject(
        id="seedance-2.0",
        created=1,
        owned_by="reelay",
        abilities=Abilities(
            operations=("text-to-video",),
            tiers=("standard",),
            resolutions=("720p",),
            aspect_ratios=("16:9",),
            seconds=SecondsRange(min=4, max=15, auto=True),
            audio_switch=True,
            seed=True,
            filter_switch=False,
            web_search=False,
        ),
        prices=(
            ModelPrice(
                provider=None,
                operation="text-to-video",
                tier="standard",
                resolution="720p",
                usd_per_second="0.1985",
                basis="listed",
            ),
        ),
    )
    page = as_json(ModelList(data=(model,)))

    assert list(page["data"][0])[:4] == ["id", "object", "created", "owned_by"]
    assert page["data"][0]["prices"][0]["usd_per_second"] == "0.1985"


def test_the_error_envelope_always_has_four_keys() -> None:
    assert msgspec.json.decode(error_body("No.", "invalid_request_error", None, None)) == {
        "error": {"message": "No.", "type": "invalid_request_error", "param": None, "code": None}
    }
