"""Which keys are looked up at all; who gets in with one is asked over HTTP."""

import pytest

from proxy.api.auth import Keyring
from proxy.core.errors import InvalidApiKey
from proxy.core.ids import Secrets, new_api_key
from tests.databases import Database

BOOTSTRAP = "a-bootstrap-key-for-tests"


@pytest.fixture
def keyring(database: Database) -> Keyring:
    """One whose database was never opened: whatever is looked up there is an error."""
    store = database.store(lambda: 0)
    return Keyring(store, Secrets(masters=("a-secret-of-tests-only",)), lambda: 0, BOOTSTRAP)


def with_another_end(key: str) -> str:
    return key[:-1] + ("0" if key[-1] != "0" else "1")


@pytest.mark.parametrize(
    "key",
    ["", "rly_", "sk-1234567890", BOOTSTRAP + "x", BOOTSTRAP[:-1], with_another_end(new_api_key()),
     new_api_key().swapcase(), new_api_key() + "0", "rly_" + "é" * 38, "\0" * 42],
    ids=["empty", "begun", "of others", "longer bootstrap", "shorter bootstrap", "wrong sum",
         "other case", "longer", "no Base62", "NUL"],
)  # fmt: skip
async def test_key_that_cannot_be_one_is_looked_up_nowhere(keyring: Keyring, key: str) -> None:
    with pytest.raises(InvalidApiKey, match="Incorrect API key"):
        await keyring.caller(key)


@pytest.mark.parametrize("key", [BOOTSTRAP, new_api_key()], ids=["bootstrap", "right sum"])
async def test_key_that_may_be_one_is_looked_up(keyring: Keyring, key: str) -> None:
    with pytest.raises(Exception, match=r"^(?!Incorrect API key)"):
        await keyring.caller(key)
