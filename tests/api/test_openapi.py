"""The API's description speaks of the routes that there are."""

import re
from typing import Any

from proxy.api import admin, health, reports, statements, videos
from proxy.api.openapi import SHAPES, WORDS, describe
from proxy.api.site import route_templates


def test_every_shape_is_a_routes() -> None:
    routes = {f"{method} {path}" for path, methods in route_templates().items() for method in methods}
    assert set(SHAPES) <= routes
    assert {route for route in routes - set(SHAPES) if re.search("/v1/|/admin/", route)} == set()


def test_every_parameter_has_words_and_is_used() -> None:
    used = {name for shape in SHAPES.values() for name in (*shape.query, *shape.headers)}
    assert used == set(WORDS)


def described() -> Any:
    routes = (admin.ROUTES, health.METRICS_ROUTES, reports.ROUTES, statements.ROUTES, videos.ROUTES)
    return describe([route for room in routes for route in room])


def test_formats_of_a_report_and_of_a_statement_are_told() -> None:
    def told(path: str) -> list[str]:
        return list(described()["paths"][path]["get"]["responses"]["200"]["content"])

    assert told("/v1/spend") == told("/admin/reports/spend") == ["application/json", "text/csv"]
    formats = ["application/json", "text/csv", "text/html"]
    assert told("/v1/statements/{month}") == told("/admin/statements/{tenant}/{month}") == formats


def test_whole_number_in_an_address_is_told_from_a_text() -> None:
    parameters = described()["paths"]["/admin/attempts/{video}/{number}/resolve"]["post"]["parameters"]
    assert {one["name"]: one["schema"]["type"] for one in parameters} == {"video": "string", "number": "integer"}


def test_metrics_may_be_open() -> None:
    assert described()["paths"]["/metrics"]["get"]["security"] == [{}, {"key": []}]


def test_create_without_a_prompt_is_told_to_be_none() -> None:
    create = described()["components"]["schemas"]["CreateBody"]
    assert create["required"] == ["prompt"]
    assert create["properties"]["prompt"]["type"] == "string"


def test_film_may_be_answered_in_part_or_as_known() -> None:
    content = described()["paths"]["/v1/videos/{video_id}/content"]
    whole, part, known, _ = content["get"]["responses"].values()
    assert list(whole["content"]) == list(part["content"]) == ["video/mp4"]
    assert "content" not in known
    assert list(content["get"]["responses"]) == ["200", "206", "304", "default"]
    assert list(content["head"]["responses"]) == ["200", "304", "default"]
