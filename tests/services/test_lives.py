"""The money of random lives of videos is right after every step, and the sellers' books are ours in the end."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.databases import ENGINES, Database, file_in, server
from tests.services.lives import Lives

LIVES = settings(
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=(Phase.generate,),  # making a failing life shorter would take minutes
)


@contextmanager
def empty(engine: str) -> Iterator[Database]:
    with tempfile.TemporaryDirectory() as name:
        if engine == "sqlite":
            yield file_in(Path(name))
            return
        url = server().new()
        yield Database(place=url, folder=Path(name))
        server().give_back(url)


def live(engine: str, film: bytes, *, on_unknown: str, billed: bool, houses: int) -> None:
    """So many houses, each with a life of its own of a dozen videos or so."""

    class Here(Lives):
        def __init__(self) -> None:
            super().__init__()
            self.database = self._stack.enter_context(empty(engine))
            self.film, self.on_unknown, self.billed = film, on_unknown, billed

    run_state_machine_as_test(Here, settings=settings(LIVES, max_examples=houses))


RULES = pytest.mark.parametrize(
    ("on_unknown", "billed"), [("wait", False), ("wait", True), ("fallback", False), ("fallback", True)]
)


@pytest.mark.parametrize("engine", ENGINES)
@RULES
def test_money_is_right_after_every_step_of_random_lives(
    film: bytes, engine: str, on_unknown: str, billed: bool
) -> None:
    live(engine, film, on_unknown=on_unknown, billed=billed, houses=6 if engine == "sqlite" else 3)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("engine", ENGINES)
@RULES
def test_money_is_right_in_many_houses(film: bytes, engine: str, on_unknown: str, billed: bool) -> None:
    live(engine, film, on_unknown=on_unknown, billed=billed, houses=60 if engine == "sqlite" else 20)
