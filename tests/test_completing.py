"""A real shell completes what somebody begins to type."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.office import RULES, Office, open_office
from tests.terminal import ROOT, Terminal, plain


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with open_office(tmp_path) as office:
        (tmp_path / "bin").mkdir()
        program = tmp_path / "bin" / "reelay"
        program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m proxy "$@"\n')
        program.chmod(0o755)
        office.env["PATH"] = f"{tmp_path}/bin:/usr/bin:/bin"
        yield office


def completed(office: Office, line: str) -> list[str]:
    """What bash would offer behind this line, asked of the function that it was given for `reelay`."""
    words = line.split(" ")
    script = (
        'eval "$(reelay completion bash)"; complete -p reelay >&2; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1));'
        ' _reelay_completion reelay; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", *words],
        env=office.env, capture_output=True, text=True, timeout=150, check=True,
    )  # fmt: skip
    assert "_reelay_completion" in done.stderr
    return sorted(done.stdout.split())


def test_bash_completes_verbs_options_and_choices(office: Office) -> None:
    assert completed(office, "reelay ten") == ["tenants"]
    assert completed(office, "reelay tenants ") == ["change", "create", "erase-end-user", "list"]
    assert completed(office, "reelay attempts list --state unk") == ["unknown"]
    assert completed(office, "reelay doctor --js") == ["--json"]


def test_bash_completes_names_out_of_rules_and_database(office: Office) -> None:
    assert completed(office, "reelay keys list --tenant ") == []
    assert not office.database.exists(), "completing makes nothing"
    for name in ("films", "fashion", "games"):
        office.says("tenants", "create", name)
    assert completed(office, "reelay keys list --tenant f") == ["fashion", "films"]
    assert completed(office, "reelay tenants change g") == ["games"]
    assert completed(office, "reelay doctor --live ") == ["first"]
    office.rules.write_text(RULES + "nonsense: 1\n")
    assert completed(office, "reelay explain --only ") == [], "mistakes are told elsewhere"


def test_terminal_with_bash_types_the_rest(office: Office) -> None:
    env = office.env | {"PS1": "$ "}
    with Terminal([], env, program=("bash", "--norc", "--noprofile", "-i"), size=(30, 100)) as terminal:
        terminal.types('eval "$(reelay completion bash)"; echo re"ady"\n')
        ready = terminal.until("[\r\n]ready")
        terminal.types("reelay mig\t")
        terminal.until("reelay migrate ", after=ready)
        terminal.types("\n")
        terminal.until("is at schema", after=ready)
        terminal.types("exit\n")
        assert terminal.ends() == 0
        assert "is at schema" in plain(terminal.text)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_of_their_own(office: Office, shell: str) -> None:
    script = office.says("completion", shell)
    assert f"_REELAY_COMPLETE={shell}_complete" in script
