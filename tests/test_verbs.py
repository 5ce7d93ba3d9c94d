"""Verbs on a database that nobody else has open."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

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
    told = office.refuses("attempts", "resolve", "video_0", "1", "--not-bought", "--reason", "a test")
    assert told == "There is no attempt 1 of a video 'video_0'."


def test_nothing_unknown_is_told(office: Office) -> None:
    assert office.says("attempts", "list") == "none\n"
    assert json.loads(office.says("attempts", "list", "--state", "running", "--json")) == []


def test_price_is_set_listed_and_removed(office: Office) -> None:
    fast = ("--provider", "first", "--model", "seedance-2.0", "--tier", "fast", "--resolution", "720p")
    wish = (*fast, "--source", "a contract", "--usd-per-second")
    price = office.says("prices", "set", *wish, "0.2", "--starts", "2026-01-01", "--reason", "agreed").strip()
    assert price.startswith("price_")
    told = office.refuses("prices", "set", *wish, "0.3", "--starts", "2026-01-01")
    assert told == f"{price} is such a price from 2026-01-01 on; remove it first."
    assert "'usd_per_second' is USD from 0 to 1000" in office.refuses("prices", "set", *wish, "much")
    assert "A price needs 'usd_per_second' or" in office.refuses("prices", "set", *wish[:-1])
    later = office.says("prices", "set", *wish[:-1], "--usd-per-million-tokens", "9", "--starts", "2999-01-01").strip()
    listed = json.loads(office.says("prices", "list", "--model", "seedance", "--provider", "first", "--json"))
    assert listed == [], "no alias of the rules"
    with_video = office.says("prices", "set", *wish, "0.1", "--with-video").strip()
    (row,) = [row for row in office.says("prices", "list").splitlines() if row.split()[0] == with_video]
    assert "720p, with video" in row
    office.says("prices", "remove", with_video)
    every = json.loads(office.says("prices", "list", "--json"))
    assert {line["origin"] for line in every} == {"catalogue", "override"}
    own = [(line["id"], line["discounted_usd"], line["in_force"]) for line in every if line["override"]]
    assert own == [(price, "0.2", True), (later, "9", False)]
    table = office.says("prices", "list", "--provider", "first").splitlines()
    assert (table[0].split()[0], len(table)) == ("id", 1 + len(every))
    office.says("prices", "list", "--sandbox")
    assert office.says("prices", "remove", price, "--reason", "over") == f"{price} is removed.\n"
    assert "No price" in office.refuses("prices", "remove", price)
    with closing(sqlite3.connect(office.database)) as database:
        acts = database.execute("SELECT actor, action, subject, reason FROM admin_log ORDER BY at, id").fetchall()
    assert [act for act in acts if act[2] == price] == [
        ("cli", "price.set", price, "agreed"),
        ("cli", "price.remove", price, "over"),
    ]
