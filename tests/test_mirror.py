"""tests/ mirrors proxy/: whoever looks for a module's tests knows where they are."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
PROXY, TESTS = ROOT / "proxy", ROOT / "tests"

ELSEWHERE = {
    "played with a store and sellers by script in tests/services, and with everything real in tests/whole": "services",
    "asked over HTTP in tests/whole": "api/admin api/auth api/books api/callbacks api/failures api/health api/models"
    " api/prices api/reports api/site api/statements api/videos api/views",
    "asked over the sellers' wires in tests/simulator": "simulator/admin simulator/app simulator/archive simulator/base"
    " simulator/desk simulator/exchange simulator/film simulator/job simulator/jobs simulator/journal"
    " simulator/ledger simulator/prices simulator/runflow_fields simulator/switches",
    "in tests/outside/test_outside_base.py, for other rooms have a base too": "outside/base",
    "run by tests/store/test_migrations_store.py": "store/migrations",
}
"""Where the tests of a module, or of a whole room, are instead."""


def modules() -> list[str]:
    """Every module that does something, as `room/name`."""
    found = (path.relative_to(PROXY).with_suffix("") for path in PROXY.rglob("*.py"))
    return sorted(path.as_posix() for path in found if not path.name.startswith("__"))


def excused() -> list[str]:
    return [place for places in ELSEWHERE.values() for place in places.split()]


def is_elsewhere(module: str) -> bool:
    return any(module == place or module.startswith(f"{place}/") for place in excused())


def has_its_test(module: str) -> bool:
    room, name = (TESTS / module).parent, Path(module).name
    return (room / f"test_{name}.py").is_file() or any(room.glob(f"test_{name}_*.py"))


def test_every_module_has_its_test_where_one_looks_for_it() -> None:
    missing = [module for module in modules() if not is_elsewhere(module) and not has_its_test(module)]
    assert not missing, f"no tests/<room>/test_<name>.py for: {', '.join(missing)}"


def test_what_is_excused_exists() -> None:
    gone = [place for place in excused() if not (PROXY / place).is_dir() and place not in modules()]
    assert not gone


def test_every_room_of_tests_is_one_of_the_proxy_or_a_whole() -> None:
    rooms = {path.name for path in TESTS.iterdir() if path.is_dir() and any(path.glob("test_*.py"))}
    proxy = {path.name for path in PROXY.iterdir() if path.is_dir()}
    assert rooms <= proxy | {"bench", "dashboards", "sdk", "torture", "whole"}
