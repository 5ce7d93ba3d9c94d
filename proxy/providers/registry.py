"""Which adapters there are: the built-in ones, then those that other packages install."""

from importlib.metadata import EntryPoint, entry_points

from proxy.core.errors import ConfigError
from proxy.providers.base import Adapter
from proxy.providers.evolink import EvoLink
from proxy.providers.fal import Fal
from proxy.providers.runflow import Runflow
from proxy.providers.runflow_legacy import RunflowLegacy
from proxy.providers.shortapi import ShortAPI

GROUP = "reelay.adapters"
"""Entry points of this group name a class, or anything else that gives an adapter when called without arguments."""


def builtin() -> dict[str, Adapter]:
    """Those that come with Reelay, by name."""
    adapters: list[Adapter] = [EvoLink(), Fal(), Runflow(), RunflowLegacy(), ShortAPI()]
    return {adapter.name: adapter for adapter in adapters}


def load_adapters() -> dict[str, Adapter]:
    """
    All adapters by name, built-in ones first.

    Raises ConfigError where an installed one cannot be loaded, bears another name than its entry
    point, or takes a name that is taken.
    """
    adapters = builtin()
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        if entry.name in adapters:
            raise ConfigError(f"adapter {entry.name!r} of {entry.value} has a name that is taken already")
        adapters[entry.name] = _load(entry)
    return adapters


def _load(entry: EntryPoint) -> Adapter:
    try:
        adapter: Adapter = entry.load()()
        name = adapter.name
    except Exception as exc:  # a stranger's code may fail in any way, and the operator needs one line
        reason = " ".join(str(exc).split())
        raise ConfigError(f"adapter {entry.name!r} of {entry.value} cannot be loaded: {reason}") from exc
    if name != entry.name:
        raise ConfigError(f"adapter {entry.name!r} of {entry.value} calls itself {name!r}")
    return adapter
