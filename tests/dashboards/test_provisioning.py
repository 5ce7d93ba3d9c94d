"""What Grafana is given to read: the same pages, data sources that the pages can use, and no secret."""

from pathlib import Path
from typing import Any

import msgspec
import yaml

from tests.dashboards.test_pages import DATABASE, NAMES, SOURCE, read_page

FOLDER = Path(__file__).parents[2] / "dashboards" / "provisioning"
KUBECTL_MOST_BYTES = 256 * 1024
"""Of what `kubectl apply` writes beside an object."""


def read(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


def test_each_page_is_in_a_config_map_that_the_sidecar_finds() -> None:
    maps = {one["metadata"]["name"]: one for one in read("configmaps.yaml")}
    assert set(maps) == {f"reelay-{name}" for name in NAMES}
    for name in NAMES:
        found = maps[f"reelay-{name}"]
        assert (found["apiVersion"], found["kind"]) == ("v1", "ConfigMap")
        assert found["metadata"]["labels"] == {"grafana_dashboard": "1"}
        assert list(found["data"]) == [f"reelay-{name}.json"]
        [text] = found["data"].values()
        assert msgspec.json.decode(text) == read_page(name)
        assert len(msgspec.json.encode(found)) < KUBECTL_MOST_BYTES


def test_pages_are_read_from_a_folder_and_stay_as_they_are() -> None:
    [file] = read("dashboards.yaml")
    [provider] = file["providers"]
    assert file["apiVersion"] == 1
    assert provider["type"] == "file"
    assert provider["allowUiUpdates"] is False
    assert provider["options"] == {"path": "/etc/grafana/dashboards/reelay"}


def test_data_sources_are_of_the_kinds_that_the_pages_ask_and_tell_no_secret() -> None:
    [file] = read("datasources.yaml")
    sources = {source["type"]: source for source in file["datasources"]}
    assert set(sources) == {SOURCE["type"], DATABASE["type"]}
    for source in sources.values():
        assert source["uid"].startswith("reelay-")
        assert source["url"].startswith("$")
        assert all(value.startswith("$") for value in source.get("secureJsonData", {}).values())
    runbook = (FOLDER.parent / "RUNBOOK.md").read_text(encoding="utf-8")
    assert f"CREATE ROLE {sources[DATABASE['type']]['user']} " in runbook
