"""Built-in adapters and those that other packages install; the packages here are real ones, on a path of their own."""

from pathlib import Path

import pytest

from proxy.core.errors import ConfigError
from proxy.providers.base import Adapter
from proxy.providers.registry import GROUP, builtin, load_adapters

GOOD = """
from proxy.providers.fal import Fal

class Cousin(Fal):
    name = "cousin"
"""


def install(root: Path, monkeypatch: pytest.MonkeyPatch, *, module: str, source: str, entries: str) -> None:
    """A package with entry points, as an installer would leave it."""
    (root / f"{module}.py").write_text(source)
    info = root / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{entries}\n")
    monkeypatch.syspath_prepend(root)


def test_builtin_adapters_bear_their_names() -> None:
    adapters: dict[str, Adapter] = builtin()
    assert sorted(adapters) == ["evolink", "fal", "runflow", "runflow-legacy", "shortapi"]
    assert all(adapter.name == name for name, adapter in adapters.items())


def test_without_installed_ones_the_builtin_are_all() -> None:
    assert load_adapters().keys() == builtin().keys()


def test_installed_adapter_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, module="cousin_of_a", source=GOOD, entries="cousin = cousin_of_a:Cousin")
    adapters = load_adapters()
    assert list(adapters)[-1] == "cousin"
    assert adapters["cousin"].name == "cousin"


def test_builtin_name_cannot_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, module="cousin_of_b", source=GOOD, entries="fal = cousin_of_b:Cousin")
    with pytest.raises(ConfigError, match="'fal' of cousin_of_b:Cousin has a name that is taken"):
        load_adapters()


def test_two_installed_ones_cannot_share_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, module="cousin_of_c", source=GOOD, entries="cousin = cousin_of_c:Cousin")
    install(tmp_path, monkeypatch, module="cousin_of_d", source=GOOD, entries="cousin = cousin_of_d:Cousin")
    with pytest.raises(ConfigError, match="'cousin' of cousin_of_d:Cousin has a name that is taken"):
        load_adapters()


def test_adapter_that_calls_itself_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, module="cousin_of_e", source=GOOD, entries="uncle = cousin_of_e:Cousin")
    with pytest.raises(ConfigError, match="'uncle' of cousin_of_e:Cousin calls itself 'cousin'"):
        load_adapters()


@pytest.mark.parametrize(
    ("module", "source", "target"),
    [
        ("cousin_of_f", "raise RuntimeError('no\\nlicence')", "Cousin"),
        ("cousin_of_g", "", "Cousin"),
        ("cousin_of_h", "Cousin = 5", "Cousin"),
        ("cousin_of_i", "class Cousin: pass", "Cousin"),
    ],
)
def test_adapter_that_cannot_be_loaded_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, source: str, target: str
) -> None:
    install(tmp_path, monkeypatch, module=module, source=source, entries=f"cousin = {module}:{target}")
    with pytest.raises(ConfigError, match=f"'cousin' of {module}:{target} cannot be loaded") as caught:
        load_adapters()
    assert "\n" not in str(caught.value)
