"""
A YAML file read with its marks: every mistake names its line, its column and the nearest good word.

Scalars are read as they are written. `on` is a word and no boolean, `16:9` a ratio and no number in
base sixty, and an amount of money never passes through a float.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Literal, TypeVar

import msgspec
import yaml

from proxy.core.errors import ConfigError
from proxy.core.money import parse_usd

T = TypeVar("T")
D = TypeVar("D")

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
# The loader in C reads the same language many times faster, and start-up is counted.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_DEPTH = 100
"""Of lists and mappings inside each other; far beyond that the parser in C overflows its stack and takes us along."""
MAX_VALUES = 100_000
"""In a file with all aliases put in, of which a few lines may make billions."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The file that is read, and the variables that `${…}` may name in it."""

    file: str
    env: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Source({self.file!r})"


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One value in the file; `what` names it in a message."""

    source: Source
    node: yaml.Node
    what: str

    def __repr__(self) -> str:
        return f"Item({self.what!r})"

    def fault(self, message: str) -> ConfigError:
        """One line that points at this value."""
        return _fault(self.source, self.node.start_mark, message)

    def wrong(self, allowed: str, hint: str = "") -> ConfigError:
        """
        The value is none of `allowed`.

        It is shown as it stands in the file, before variables are put in: a secret stays unseen.
        """
        return self.fault(f"{self.what} must be {allowed}, not {_shown(self.node)}{hint}")

    @property
    def kind(self) -> Literal["list", "mapping", "scalar", "nothing"]:
        if isinstance(self.node, yaml.SequenceNode):
            return "list"
        if isinstance(self.node, yaml.MappingNode):
            return "mapping"
        return "nothing" if self.node.tag.endswith(":null") else "scalar"


Reader = Callable[[Item], T]


def _fault(source: Source, mark: Any, message: str) -> ConfigError:
    return ConfigError(f"{source.file}:{mark.line + 1}:{mark.column + 1}: {_on_one_line(message)}")


def _on_one_line(message: str) -> str:
    """What is quoted from the file may hold line breaks, and orders to a terminal."""
    if message.isprintable():
        return message
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in message)


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return "nothing" if node.tag.endswith(":null") else f'"{node.value}"'


def nearest(word: str, good: Iterable[str]) -> str:
    """`; did you mean "…"?`, or nothing where no good word is near."""
    near = difflib.get_close_matches(word, list(good), n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


def compose(text: bytes, source: Source, what: str = "the file") -> Item:
    """The whole file as one Item. Raises ConfigError for what is no YAML, holds too much, or says a key twice."""
    try:
        _check_depth(source, text.decode())
        node = yaml.compose(text.decode(), Loader=_LOADER)
    except UnicodeDecodeError:
        raise ConfigError(f"{source.file}:1:1: the file is not UTF-8") from None
    except yaml.MarkedYAMLError as exc:
        raise _fault(source, exc.problem_mark or exc.context_mark, f"no valid YAML: {exc.problem}") from None
    except yaml.YAMLError:
        raise ConfigError(f"{source.file}:1:1: no valid YAML: a character that YAML does not allow") from None
    if node is None:
        raise ConfigError(f"{source.file}:1:1: the file is empty")
    _count_tree(source, node, {}, ())
    return Item(source=source, node=node, what=what)


def _check_depth(source: Source, text: str) -> None:
    """Event by event, which takes no stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _fault(source, event.start_mark, f"lists and mappings are nested more than {MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _count_tree(source: Source, node: Any, counted: dict[int, int], above: tuple[int, ...]) -> int:
    """How many values `node` holds, itself and what its aliases stand for among them; all of it is sound."""
    if id(node) in above:
        raise _fault(source, node.start_mark, "a value that holds itself")
    if id(node) in counted or isinstance(node, yaml.ScalarNode):
        return counted.get(id(node), 1)
    inside = (*above, id(node))
    values = 1 + sum(_count_tree(source, child, counted, inside) for child in _children(source, node))
    if values > MAX_VALUES:
        raise _fault(source, node.start_mark, f"with its aliases put in, this holds more than {MAX_VALUES} values")
    counted[id(node)] = values
    return values


def _children(source: Source, node: Any) -> Iterator[Any]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
        return
    keys: set[str] = set()
    for key, child in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _fault(source, key.start_mark, "a key must be one word")
        if key.value in keys:
            raise _fault(source, key.start_mark, f'the key "{key.value}" is here twice')
        keys.add(key.value)
        yield child


# --- mappings and lists


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A mapping whose keys are known."""

    item: Item
    entries: dict[str, Item]

    def need(self, key: str, how: Reader[T]) -> T:
        """Raises ConfigError where the key is missing."""
        if key not in self.entries:
            raise self.item.fault(f'{self.item.what} needs the key "{key}"')
        return how(self.entries[key])

    def read(self, key: str, how: Reader[T], default: D) -> T | D:
        return how(self.entries[key]) if key in self.entries else default


def mapping(item: Item, prefix: str = "") -> dict[str, Item]:
    """The entries of a mapping with keys of the operator's own; `prefix` goes before each in messages."""
    if item.kind != "mapping":
        raise item.wrong("a mapping")
    return {
        key.value: Item(source=item.source, node=value, what=f"{prefix}{key.value}") for key, value in item.node.value
    }


def section(item: Item, known: Iterable[str]) -> Section:
    """A mapping that may hold nothing but the known keys."""
    entries = mapping(item)
    for key, _ in item.node.value:
        refuse_unknown(item, key, known)
    return Section(item=item, entries=entries)


def refuse_unknown(item: Item, key: Any, known: Iterable[str]) -> None:
    """Raises ConfigError at the key's own place, with the nearest good one, unless it is known."""
    good = list(known)
    if key.value not in good:
        hint = nearest(key.value, good) or f"; known are: {', '.join(good)}"
        raise _fault(item.source, key.start_mark, f'unknown key "{key.value}" in {item.what}{hint}')


def items(item: Item) -> list[Item]:
    if item.kind != "list":
        raise item.wrong("a list")
    return [Item(source=item.source, node=node, what=item.what) for node in item.node.value]


def several(how: Reader[T]) -> Reader[tuple[T, ...]]:
    """A list without repetitions."""

    def read(item: Item) -> tuple[T, ...]:
        values: list[T] = []
        for one in items(item):
            value = how(one)
            if value in values:
                raise one.fault(f"{item.what} says {_shown(one.node)} twice")
            values.append(value)
        return tuple(values)

    return read


# --- scalars


def unset_variables(item: Item) -> list[str]:
    """Variables that the value names and the environment does not have, or has empty."""
    names = _VARIABLE.findall(_scalar(item, "text"))
    return [name for name in names if not item.source.env.get(name)]


def _scalar(item: Item, allowed: str) -> str:
    if item.kind != "scalar":
        raise item.wrong(allowed)
    return str(item.node.value)


def _expanded(item: Item, allowed: str) -> str:
    raw = _scalar(item, allowed)
    for name in unset_variables(item):
        raise item.fault(f"{item.what} needs the variable {name}, which is not set")
    return _VARIABLE.sub(lambda match: item.source.env[match[1]], raw)


def text(item: Item) -> str:
    """Not empty, variables put in."""
    value = _expanded(item, "text")
    if not value.strip():
        raise item.wrong("text")
    return value


def flag(item: Item) -> bool:
    value = _expanded(item, "true or false")
    if value not in {"true", "false"}:
        raise item.wrong("true or false")
    return value == "true"


def whole(low: int, high: int) -> Reader[int]:
    allowed = f"a whole number from {low} to {high}"

    def read(item: Item) -> int:
        value = _expanded(item, allowed)
        if not _WHOLE.fullmatch(value) or not low <= int(value) <= high:
            raise item.wrong(allowed)
        return int(value)

    return read


def decimal(low: str, high: str) -> Reader[Decimal]:
    """A decimal number, in quotes or not; both ends are allowed."""
    allowed = f"a decimal number from {low} to {high}"

    def read(item: Item) -> Decimal:
        try:
            value = parse_usd(_expanded(item, allowed))
        except ValueError:
            raise item.wrong(allowed) from None
        if not Decimal(low) <= value <= Decimal(high):
            raise item.wrong(allowed)
        return value

    return read


def choice(good: Iterable[str]) -> Reader[Any]:
    """One word of a closed set."""
    words = list(good)
    allowed = words[0] if len(words) == 1 else "one of " + ", ".join(words)

    def read(item: Item) -> str:
        value = _expanded(item, allowed)
        if value not in words:
            raise item.wrong(allowed, nearest(value, words))
        return value

    return read


def or_nothing(how: Reader[T]) -> Reader[T | None]:
    """`null`, or a value."""
    return lambda item: None if item.kind == "nothing" else how(item)
