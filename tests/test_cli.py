"""The command line: every verb says what it is for, and every mistake is one line."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from proxy.cli import main, reelay
from tests.office import Office, open_office
from tests.terminal import Terminal, plain

NO_DATA = {
    "backup", "budgets change", "budgets create", "budgets remove", "completion", "demo", "keys change", "keys create",
    "keys revoke", "migrate", "attempts resolve", "prices remove", "prices set", "refund", "sandbox", "serve",
    "tenants change", "tenants create", "tenants erase-end-user", "work",
}  # fmt: skip
"""They run or change something, and say what became of it in a sentence, or print the one id that was made."""

DATA = {
    "attempts list": "", "audit": "", "budgets list": "", "check": "", "doctor": "", "explain": "--sandbox",
    "keys list": "", "log": "", "prices list": "", "prune": "--dry-run", "report savings": "", "report spend": "",
    "statements close": "2020-01", "statements list": "", "statements show": "films 2020-01", "tenants list": "",
    "top": "--once",
}  # fmt: skip
"""With the arguments that they are tried with."""

FLAGS_WITHOUT_HELP = {"help"}


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with open_office(tmp_path) as office:
        yield office


def commands(
    group: click.Group = reelay, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every verb with its path, groups too."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize(("path", "command"), [pytest.param(*one, id=" ".join(one[0])) for one in commands()])
def test_every_verb_and_option_says_what_it_is_for(
    path: tuple[str, ...], command: click.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    shown = CliRunner().invoke(reelay, [*path, "--help"])
    assert shown.exit_code == 0
    assert command.help
    summary = command.help.strip().splitlines()[0]
    assert summary.endswith((".", ",")) or len(command.help.splitlines()) > 1, "a sentence"
    assert " ".join(summary.split()[:4]) in " ".join(shown.output.split())
    options = [one for one in command.params if isinstance(one, click.Option) and one.name not in FLAGS_WITHOUT_HELP]
    assert [one.name for one in options if not one.help] == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nonsense"], "reelay: No such command 'nonsense'. See `reelay --help`."),
        (["--nonsense"], "reelay: No such option '--nonsense'. See `reelay --help`."),
        (["tenants", "create"], "reelay: Missing argument 'NAME'. See `reelay tenants create --help`."),
        (["attempts", "list", "--state", "x"], "reelay: Invalid value for '--state': 'x' is not one of"),
        (
            ["attempts", "resolve", "video_0", "1", "--reason", "x"],
            "reelay: Say either --bought or --not-bought.",
        ),
        (["attempts", "resolve", "video_0", "1", "--bought"], "reelay: Missing option '--reason'."),
        (["attempts", "list", "--limit", "0"], "reelay: Invalid value for '--limit': 0 is not in the range"),
        (["sandbox", "--speed", "0"], "reelay: Invalid value for '--speed': 0.0 is not in the range"),
        (["report", "spend", "--by", "colour"], "reelay: --by is a list of tenant, end_user, key, provider, model,"),
        (["report", "spend", "--start", "today"], "reelay: --start must be a day such as 2026-11-21."),
        (["report", "spend", "--start", "2026-11-21", "--end", "2026-11-20"], "reelay: --end must be later than"),
        (["doctor", "--live", "nobody"], "reelay: routing_rules.yaml: the rules cannot be read"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, list) else None,
)
def test_mistake_is_one_line_and_exit_2(
    arguments: list[str],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    monkeypatch.setattr(sys, "argv", ["reelay", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    told = capsys.readouterr()
    assert (exit_.value.code, told.out) == (2, "")
    assert told.err.startswith(line)
    assert told.err.count("\n") == 1


def test_every_verb_prints_data_or_is_known_to_print_none() -> None:
    verbs = {" ".join(path) for path, command in commands() if not isinstance(command, click.Group)}
    assert verbs == NO_DATA | set(DATA)
    assert not NO_DATA & set(DATA)


@pytest.mark.parametrize("verb", DATA)
def test_data_is_printed_as_json_too_and_no_colour_reaches_a_pipe(verb: str, office: Office) -> None:
    office.says("tenants", "create", "films")
    arguments = [*verb.split(), *DATA[verb].split()]
    done = CliRunner().invoke(reelay, [*arguments, "--json"], env=office.env, catch_exceptions=False)
    assert done.exit_code in {0, 1}, done.output
    json.loads(done.stdout)
    assert "\x1b" not in done.output
    if verb == "statements close":
        return  # a month is closed once
    in_words = CliRunner().invoke(reelay, arguments, env=office.env, catch_exceptions=False)
    assert in_words.exit_code == done.exit_code
    assert in_words.stdout
    assert "\x1b" not in in_words.output


def test_terminal_is_shown_colours_and_that_work_goes_on_unless_it_wants_none(office: Office) -> None:
    office.says("tenants", "create", "films")
    with Terminal(["audit"], office.env, size=(30, 100)) as terminal:
        assert terminal.ends() == 0
        assert "Going through the books" in plain(terminal.text)
        assert (
            plain(terminal.text).replace("\r\n", "\n").endswith("0 charges of $0.000000 were worked out again.\nnone\n")
        )
    with Terminal(["doctor"], office.env, size=(30, 100)) as terminal:
        assert terminal.ends() == 1
        assert "\x1b[31mproblem" in terminal.text
    with Terminal(["doctor"], office.env | {"NO_COLOR": "1"}, size=(30, 100)) as terminal:
        assert terminal.ends() == 1
        assert "problem" in terminal.text
        assert "\x1b" not in terminal.text
