"""The command line: every verb says what it is for, and every mistake is one line."""

import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from proxy.cli import main, reelay

FLAGS_WITHOUT_HELP = {"help"}


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
