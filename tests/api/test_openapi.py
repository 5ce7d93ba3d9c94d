"""The API's description speaks of the routes that there are."""

import re

from proxy.api.openapi import SHAPES, WORDS
from proxy.api.site import route_templates


def test_every_shape_is_a_routes() -> None:
    routes = {f"{method} {path}" for path, methods in route_templates().items() for method in methods}
    assert set(SHAPES) <= routes
    assert {route for route in routes - set(SHAPES) if re.search("/v1/|/admin/", route)} == set()


def test_every_parameter_has_words_and_is_used() -> None:
    used = {name for shape in SHAPES.values() for name in (*shape.query, *shape.headers)}
    assert used == set(WORDS)
