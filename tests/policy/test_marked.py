"""Mistakes name their place and the nearest good word; scalars are read as they are written."""

from decimal import Decimal

import pytest

from proxy.core.errors import ConfigError
from proxy.policy.marked import (
    Item,
    Reader,
    Source,
    choice,
    compose,
    decimal,
    flag,
    items,
    mapping,
    or_nothing,
    section,
    several,
    text,
    unset_variables,
    whole,
)
from tests.policy.policies import parse


def mistake(how: Reader[object], piece: str, **env: str) -> str:
    with pytest.raises(ConfigError) as caught:
        how(parse(piece, env=env))
    return str(caught.value)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"a: [1\n", "some.yaml:2:1: no valid YAML: did not find expected ',' or ']'"),
        (b"a: 1\n b: 2\n", "some.yaml:2:3: no valid YAML: mapping values are not allowed in this context"),
        (b"--- a\n--- b\n", "some.yaml:2:1: no valid YAML: but found another document"),
        (b"a: \x07\n", "some.yaml:1:1: no valid YAML: a character that YAML does not allow"),
        (b"a: \xff\n", "some.yaml:1:1: the file is not UTF-8"),
        (b"# nothing\n", "some.yaml:1:1: the file is empty"),
        (b"a: 1\nb: {c: 1, c: 2}\n", 'some.yaml:2:11: the key "c" is here twice'),
        (b"- {[a]: 1}\n", "some.yaml:1:4: a key must be one word"),
        (b"a: &all\n  - *all\n", "some.yaml:1:4: a value that holds itself"),
    ],
)
def test_broken_file_is_one_line_with_its_place(file: bytes, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(file, Source(file="some.yaml", env={}))
    assert str(caught.value) == message


@pytest.mark.parametrize("piece", [b"[", b"- ", b"? ", b"{a: "])
@pytest.mark.parametrize("times", [101, 1_500, 200_000])
def test_nesting_beyond_sense_is_one_line_with_its_place(piece: bytes, times: int) -> None:
    # Deep enough, the parser in C would take the whole process with it.
    with pytest.raises(ConfigError) as caught:
        compose(piece * times, Source(file="some.yaml", env={}))
    message = f"some.yaml:1:{100 * len(piece) + 1}: lists and mappings are nested more than 100 deep"
    assert str(caught.value) == message


def test_nesting_up_to_the_bound_is_read() -> None:
    item = parse("[" * 100 + "]" * 100)
    for _ in range(99):
        [item] = items(item)
    assert items(item) == []


def test_aliases_that_multiply_are_refused_before_anybody_follows_them() -> None:
    bomb = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"b{one}: &a{one} [{', '.join([f'*a{one - 1}'] * 10)}]\n" for one in range(1, 30))
    with pytest.raises(ConfigError) as caught:
        parse(bomb)
    assert str(caught.value) == "some.yaml:5:5: with its aliases put in, this holds more than 100000 values"


def test_message_is_one_line_whatever_the_file_says() -> None:
    assert mistake(flag, '"a\\nb\\e[31m\\u2028"') == (
        r'some.yaml:1:1: the file must be true or false, not "a\nb\x1b[31m\u2028"'
    )


def test_anchor_may_be_used_twice() -> None:
    found = mapping(parse("{a: &x [1], b: *x}"))
    assert [len(items(one)) for one in found.values()] == [1, 1]


def test_unknown_key_names_its_place_and_the_nearest() -> None:
    message = mistake(lambda item: section(item, ("strategy", "tier")), "tier: fast\nstrategie: cheapest")
    assert message == 'some.yaml:2:1: unknown key "strategie" in the file; did you mean "strategy"?'


def test_unknown_key_without_a_near_one_lists_all() -> None:
    message = mistake(lambda item: section(item, ("strategy", "tier")), "xyz: 1")
    assert message == 'some.yaml:1:1: unknown key "xyz" in the file; known are: strategy, tier'


def test_missing_key_is_named() -> None:
    message = mistake(lambda item: section(item, ("name",)).need("name", text), "{}")
    assert message == 'some.yaml:1:1: the file needs the key "name"'


def test_key_that_is_not_there_has_its_default() -> None:
    fields = section(parse("a: 5"), ("a", "b"))
    assert fields.read("a", whole(1, 9), 0) == 5
    assert fields.read("b", whole(1, 9), 0) == 0
    assert fields.need("a", text) == "5"


@pytest.mark.parametrize(
    ("how", "piece", "value"),
    [
        (text, "16:9", "16:9"),
        (text, "on", "on"),
        (flag, "true", True),
        (flag, '"false"', False),
        (whole(0, 20), "15", 15),
        (whole(-1, 20), '"-1"', -1),
        (decimal("0", "1"), "0.10", Decimal("0.10")),
        (choice(("stop", "next")), "next", "next"),
        (several(text), "[a, b]", ("a", "b")),
        (or_nothing(whole(1, 5)), "~", None),
        (or_nothing(whole(1, 5)), "5", 5),
    ],
)
def test_scalars_are_read_as_written(how: Reader[object], piece: str, value: object) -> None:
    assert how(parse(piece)) == value


@pytest.mark.parametrize(
    ("how", "piece", "message"),
    [
        (text, "~", "the file must be text, not nothing"),
        (text, '" "', 'the file must be text, not " "'),
        (text, "[a]", "the file must be text, not a list"),
        (flag, "yes", 'the file must be true or false, not "yes"'),
        (whole(1, 20), "21", 'the file must be a whole number from 1 to 20, not "21"'),
        (whole(1, 20), "1.0", 'the file must be a whole number from 1 to 20, not "1.0"'),
        (whole(1, 20), "9" * 5000, f'the file must be a whole number from 1 to 20, not "{"9" * 5000}"'),
        (decimal("0", "1"), "1.01", 'the file must be a decimal number from 0 to 1, not "1.01"'),
        (decimal("0", "1"), "nan", 'the file must be a decimal number from 0 to 1, not "nan"'),
        (decimal("0", "1"), "{a: 1}", "the file must be a decimal number from 0 to 1, not a mapping"),
        (choice(("stop", "next")), "stopp", 'must be one of stop, next, not "stopp"; did you mean "stop"?'),
        (choice(("1",)), "2", 'the file must be 1, not "2"'),
        (several(text), "a", 'the file must be a list, not "a"'),
        (several(text), "[a, b, a]", 'the file says "a" twice'),
        (mapping, "[a]", "the file must be a mapping, not a list"),
    ],
)
def test_wrong_value_names_what_is_allowed(how: Reader[object], piece: str, message: str) -> None:
    assert mistake(how, piece).endswith(message)


def test_variables_are_put_in() -> None:
    assert text(parse("https://${HOST}:${PORT}/", env={"HOST": "seller.example", "PORT": "8443"})) == (
        "https://seller.example:8443/"
    )
    assert whole(1, 9)(parse('"${MAX}"', env={"MAX": "7"})) == 7


def test_variable_that_is_not_set_is_named() -> None:
    assert mistake(text, "${HOST}") == "some.yaml:1:1: the file needs the variable HOST, which is not set"
    assert unset_variables(parse("${A}${B}${C}", env={"B": "", "C": "c"})) == ["A", "B"]


def test_secret_is_never_shown() -> None:
    message = mistake(choice(("a", "b")), "${KEY}", KEY="sk-secret")
    assert "sk-secret" not in message
    assert '"${KEY}"' in message
    item: Item = parse("sk-secret", env={"KEY": "sk-secret"})
    assert "sk-secret" not in repr(item)
    assert "sk-secret" not in repr(item.source)
