"""The tree of errors is the one drawn in its docstring, and every leaf says its code."""

import inspect
import re

import pytest

from proxy.core import errors
from proxy.core.errors import Overloaded, RateLimited, ReelayError, Refusal, RequestError

NAME = re.compile(r"[A-Z]\w+")
BRANCH = re.compile(r"^(?P<indent>[│ ]*)(?:[├└]── )?(?P<names>[A-Z]\w+(?:, [A-Z]\w+)*)(?:  .*)?$")
CODES = frozenset(
    {
        "invalid_value",
        "invalid_type",
        "missing_parameter",
        "unknown_parameter",
        "unsupported_request",
        "model_not_found",
        "not_found",
        "invalid_api_key",
        "permission_denied",
        "insufficient_quota",
        "rate_limit_exceeded",
        "payload_too_large",
        "method_not_allowed",
        "unsupported_media_type",
        "no_provider_available",
        "server_is_overloaded",
        "internal_error",
        "config_error",
        "no_price",
        "lease_lost",
        "provider_error",
        "outcome_unknown",
    }
)


def drawn() -> set[tuple[str, str]]:
    """Each pair (parent, child) of the drawing."""
    above: dict[int, str] = {}
    pairs: set[tuple[str, str]] = set()
    for line in inspect.getdoc(errors).splitlines()[2:]:  # type: ignore[union-attr]  # the module has one
        branch = BRANCH.match(line)
        assert branch, f"not part of a tree: {line!r}"
        depth = len(branch["indent"]) // 4 + ("── " in line)
        names = NAME.findall(branch["names"])
        pairs |= {(above[depth - 1], name) for name in names if depth}
        above[depth] = names[0]
    return pairs


def defined() -> list[type[ReelayError]]:
    found = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, ReelayError)]
    return [each for each in found if each is not ReelayError]


def test_tree_of_errors_is_the_one_that_is_drawn() -> None:
    assert drawn() == {(each.__bases__[0].__name__, each.__name__) for each in defined()}


def test_every_code_is_one_of_the_known() -> None:
    assert {ReelayError.code} | {each.code for each in defined()} == CODES


def test_errors_of_a_request_name_the_field_at_fault() -> None:
    requests = [each for each in defined() if issubclass(each, RequestError) and each is not RateLimited]
    for each in requests:
        assert each("no", param="size").param == "size"
        assert each("no").param is None


@pytest.mark.parametrize("error", [RateLimited("later", retry_after_s=7), Overloaded("later", retry_after_s=7)])
def test_wait_is_a_fact_and_no_part_of_the_message(error: RateLimited | Overloaded) -> None:
    assert (str(error), error.retry_after_s) == ("later", 7)


def test_refusal_says_nothing_that_the_seller_did_not() -> None:
    refusal = Refusal("capacity", "full")
    assert (refusal.seller_code, refusal.retry_after_s, refusal.cost_microusd) == (None, None, None)
    assert (refusal.kind, str(refusal), refusal.code) == ("capacity", "full", "provider_error")
