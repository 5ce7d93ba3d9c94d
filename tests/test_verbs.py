"""Verbs on a database that nobody else has open."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxy.cli import reelay
from tests.office import Office, open_office


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with open_office(tmp_path) as office:
        yield office


def test_first_verb_makes_the_database(office: Office) -> None:
    assert office.says("migrate").startswith(f"{office.database} is at schema ")
    assert office.says("tenants", "list") == "none\n"
    assert json.loads(office.says("keys", "list", "--json")) == []


def test_tenant_is_made_changed_and_listed(office: Office) -> None:
    tenant = office.says("tenants", "create", "films", "--markup", "0.15", "--require-end-user-id").strip()
    assert office.says("tenants", "change", "films", "--name", "movies", "--markup", "0") == f"{tenant} is changed.\n"
    (listed,) = json.loads(office.says("tenants", "list", "--json"))
    assert {"id": tenant, "name": "movies", "markup": "0", "require_end_user_id": True}.items() <= listed.items()
    table = office.says("tenants", "list").splitlines()
    assert table[0].split()[:2] == ["id", "name"]
    assert table[1].split()[:2] == [tenant, "movies"]
    assert office.refuses("tenants", "create", "movies") == "There is a tenant 'movies' already."
    assert "'markup' is a ratio" in office.refuses("tenants", "change", "movies", "--markup", "much")
    assert office.refuses("tenants", "change", "films") == "There is no tenant 'films'."


def test_key_is_shown_once_and_revoked(office: Office) -> None:
    office.says("tenants", "create", "films")
    key = office.says("keys", "create", "--tenant", "films", "--name", "build", "--scope", "admin").strip()
    assert key.startswith("rly_")
    listing = office.says("keys", "list", "--tenant", "films", "--json")
    (listed,) = json.loads(listing)
    assert key not in listing
    assert {"last4": key[-4:], "name": "build", "scopes": ["admin"], "revoked_at": None}.items() <= listed.items()
    assert office.says("keys", "revoke", listed["id"], "--reason", "lost") == f"{listed['id']} is revoked.\n"
    assert "There is no live key" in office.refuses("keys", "revoke", listed["id"])
    assert "Scopes are videos, reports, admin." in office.refuses("keys", "create", "--tenant", "films", "--scope", "x")
    with sqlite3.connect(office.database) as database:
        acts = database.execute("SELECT actor, action, reason FROM admin_log ORDER BY at").fetchall()
    database.close()
    assert acts == [("cli", "tenant.create", None), ("cli", "key.create", None), ("cli", "key.revoke", "lost")]


def test_end_user_is_erased_by_name(office: Office) -> None:
    tenant = office.says("tenants", "create", "films").strip()
    with closing(sqlite3.connect(office.database)) as database, database:
        database.execute("INSERT INTO end_users VALUES (?, 'eu_1', 'ann')", (tenant,))
    told = office.refuses("tenants", "erase-end-user", "films", "ann", "--reason", "Ann wrote to us")
    assert told == "'reason' is kept for ever and may not hold the name."
    erased = office.says("tenants", "erase-end-user", "films", "ann", "--reason", "a letter")
    assert erased == "0 videos are erased; the ledger calls their end user eu_1.\n"
    assert "no end user of that name" in office.refuses("tenants", "erase-end-user", "films", "ann")
    with closing(sqlite3.connect(office.database)) as database:
        assert database.execute("SELECT name FROM end_users").fetchall() == [(None,)]
        (act,) = database.execute("SELECT * FROM admin_log WHERE action = 'end_user.erase'")
    assert {"cli", f"{tenant}/eu_1", "a letter"} <= set(act)
    assert "ann" not in act


def test_attempt_that_is_not_there_cannot_be_resolved(office: Office) -> None:
    office.says("migrate")
    told = office.refuses("attempts", "resolve", "video_0", "1", "--not-bought", "--reason", "a test")
    assert told == "There is no attempt 1 of a video 'video_0'."


def test_attempt_is_bought_or_not_but_not_both(office: Office) -> None:
    office.says("migrate")
    asked = ("attempts", "resolve", "video_0", "1", "--reason", "a test")
    for said in ((), ("--bought", "--not-bought")):
        done = CliRunner().invoke(reelay, (*asked, *said))
        assert (done.exit_code, "Say either --bought or --not-bought." in done.output) == (2, True)


@pytest.mark.parametrize(
    "verb",
    ["attempts list", "tenants list", "keys list", "budgets list", "keys revoke key_1", "tenants change x --name a",
     "attempts resolve video_0 1 --bought --reason r"],
)  # fmt: skip
def test_operator_in_the_wrong_place_is_told_and_leaves_nothing(office: Office, verb: str) -> None:
    assert office.refuses(*verb.split()).startswith("there is no database at ")
    assert not office.database.parent.exists()


def test_nothing_unknown_is_told(office: Office) -> None:
    office.says("migrate")
    assert office.says("attempts", "list") == "none\n"
    assert json.loads(office.says("attempts", "list", "--state", "running", "--json")) == []
