"""Rules that a real Prometheus accepts; alerts that fire when they should, and lead to what helps."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from dashboards.alerting import Alert, alerts, recorded
from proxy.cli import reelay
from tests.dashboards.cases import CASES, Series
from tests.dashboards.prometheus import promtool
from tests.dashboards.test_pages import NAMES, SELECTION, busy_metrics, panels_of, read_page

FOLDER = Path(__file__).parents[2] / "dashboards"
RULES = tuple(FOLDER / "rules" / name for name in ("recording.yaml", "alerts.yaml"))
RUNBOOK = (FOLDER / "RUNBOOK.md").read_text(encoding="utf-8")
ALERTS = {alert.name: alert for alert in alerts()}
PARTS = ("It means", "Look at", "Do")


# The files


def written(name: str) -> list[dict[str, Any]]:
    [group] = yaml.safe_load((FOLDER / "rules" / name).read_text(encoding="utf-8"))["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def test_every_alert_has_a_name_of_ours_a_severity_and_what_helps() -> None:
    rules = written("alerts.yaml")
    assert [rule["alert"] for rule in rules] == list(ALERTS)
    for rule in rules:
        assert re.fullmatch(r"Reelay([A-Z][a-z]+)+", rule["alert"])
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert set(rule["annotations"]) == {"summary", "description", "action", "runbook_url"}
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["description"].endswith(".")
        assert rule["annotations"]["runbook_url"] == f"dashboards/RUNBOOK.md#{rule['alert'].lower()}"


def test_recorded_series_are_named_by_level_metric_and_operation() -> None:
    for rule in written("recording.yaml"):
        level, _, operation = rule["record"].split(":")
        assert f"by ({'job' if level == 'job' else f'job, {level}'})" in rule["expr"]
        assert re.fullmatch(r"(?:ratio_)?rate\d+[mhd]", operation)
        assert f"[{operation.rpartition('rate')[2]}]" in rule["expr"]


def test_rules_ask_only_for_what_is_exported_or_recorded() -> None:
    exported = {sample.name for family in busy_metrics().registry.collect() for sample in family.samples}
    asked: set[str] = set()
    for expr in [*recorded().values(), *(alert.expr for alert in alerts())]:
        known = re.findall(r"\b(?:job|provider):reelay_\w+:\w+", expr)
        assert set(known) <= set(recorded())
        asked |= {name for name, _ in SELECTION.findall(re.sub(r"\b\w+:reelay_\w+:\w+", "", expr))}
    assert asked <= exported, asked - exported
    used = {name for alert in alerts() for name in re.findall(r"\b\w+:reelay_\w+:\w+", alert.expr)}
    assert used == set(recorded()), "what is recorded is used"


def test_annotations_name_only_labels_that_the_alert_has() -> None:
    for alert in alerts():
        named = set(re.findall(r"\$labels\.(\w+)", alert.summary + alert.description))
        assert named <= set(CASES[alert.name].labels), alert.name


# The runbook


def sections() -> dict[str, str]:
    """Text below each heading of an alert."""
    pieces = re.split(r"^### (Reelay\w+)$", RUNBOOK, flags=re.MULTILINE)[1:]
    return {name: text.partition("\n## ")[0] for name, text in zip(pieces[::2], pieces[1::2], strict=True)}


def test_every_alert_has_its_section_in_the_runbook_and_no_section_is_left_over() -> None:
    assert list(sections()) == list(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_a_section_says_what_it_means_what_to_look_at_and_what_to_do(name: str) -> None:
    text = sections()[name]
    places = [text.find(f"**{part}:**") for part in PARTS]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize("rule", written("alerts.yaml"), ids=lambda rule: str(rule["alert"]))
def test_alert_carries_what_its_section_says_is_to_be_done(rule: dict[str, Any]) -> None:
    said = sections()[rule["alert"]].partition("**Do:** ")[2]
    action = rule["annotations"]["action"]
    assert " ".join(said.split()).startswith(action)
    assert len(action) > 40
    assert not action.startswith("as ")
    assert "{{" not in action, "Prometheus would fill it in"


def commands() -> set[str]:
    """Every call of `reelay` between ticks."""
    return {" ".join(found.split()) for found in re.findall(r"`(reelay\s[^`]+)`", RUNBOOK)}


@pytest.mark.parametrize("line", sorted(commands()))
def test_commands_of_the_runbook_exist(line: str) -> None:
    words = shlex.split(line)[1:]
    command: Any = reelay
    path: list[str] = []
    while words and words[0] in getattr(command, "commands", {}):
        path.append(words.pop(0))
        command = command.commands[path[-1]]
    assert path, line
    assert not getattr(command, "commands", {}), f"{line}: which of them?"
    shown = CliRunner().invoke(reelay, [*path, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert option in shown.output, line
    needed = [
        parameter for parameter in command.params if parameter.param_type_name == "argument" and parameter.required
    ]
    flags = {
        opt
        for parameter in command.params
        if getattr(parameter, "is_flag", False)
        for opt in (*parameter.opts, *parameter.secondary_opts)
    }
    plain = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if not word.startswith("--") and (not before.startswith("--") or before in flags)
    ]
    assert len(plain) >= len(needed), f"{line}: too few arguments"


def test_every_panel_that_the_runbook_names_exists() -> None:
    titles = {(name, panel["title"]) for name in NAMES for panel in panels_of(read_page(name))}
    text = " ".join(RUNBOOK.replace("**", "").split())
    named: set[tuple[str, str]] = set()
    for several, page in re.findall(rf"((?:\*[^*]+\*(?:, | and | beside )?)+) on ({'|'.join(NAMES)})\b", text):
        named |= {(page, title) for title in re.findall(r"\*([^*]+)\*", several)}
    assert len(named) > 20
    assert named <= titles, named - titles


def test_every_event_that_the_runbook_looks_for_is_logged() -> None:
    named: set[str] = set()
    for several in re.findall(r"the log for ((?:`[^`]+`(?:, | and )?)+)", " ".join(RUNBOOK.split())):
        named |= set(re.findall(r"`([^`]+)`", several))
    source = "".join(path.read_text(encoding="utf-8") for path in (FOLDER.parent / "proxy").rglob("*.py"))
    assert named
    assert not {event for event in named if f'("{event}"' not in source}


# The alerts


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    assert set(CASES) == set(ALERTS)
    for case in CASES.values():
        assert case.fires
        assert case.quiet
        assert all(case.quiet)


@pytest.mark.long
def test_prometheus_accepts_the_rules() -> None:
    said = promtool("check", "rules", "--lint-fatal", *RULES)
    assert f"SUCCESS: {len(recorded())} rules found" in said
    assert f"SUCCESS: {len(ALERTS)} rules found" in said


@pytest.mark.long
@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_fires_when_it_should_and_not_when_it_nearly_should(name: str, tmp_path: Path) -> None:
    case, alert = CASES[name], ALERTS[name]
    slow = case.at.endswith("h")
    told = {"alertname": name, "alertstate": "firing", "severity": alert.severity, **case.labels}
    labels = ",".join(f'{label}="{value}"' for label, value in told.items())
    firing = [{"labels": f"ALERTS{{{labels}}}", "value": 1}]
    tests = [_test(alert, case.at, case.fires, firing), *(_test(alert, case.at, quiet, []) for quiet in case.quiet)]
    file = tmp_path / "test.yaml"
    every = {"rule_files": [str(path) for path in RULES], "evaluation_interval": "5m" if slow else "1m"}
    file.write_text(yaml.safe_dump(every | {"tests": tests}))
    promtool("test", "rules", file)


def _test(alert: Alert, at: str, series: Series, wanted: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": f'ALERTS{{alertname="{alert.name}",alertstate="firing"}}', "eval_time": at, "exp_samples": wanted}
        ],
    }
