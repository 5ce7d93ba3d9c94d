"""
The compose file of the whole stack, and what Prometheus and Alertmanager read in it.

No container is started: that the images behave as their documents say, and that they exist, is not shown.
Shown is that the file keeps to compose's own schema, names what there is, and agrees with the server, with
the object store of the other tests and with the configurations beside it, which Prometheus' and
Alertmanager's own programs accept.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.opening import read_rules
from proxy.settings import WithFiles, read_settings, unknown_names
from tests.dashboards.prometheus import promtool
from tests.debian import program
from tests.object_store import BUCKET, FLAGS, version

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "dashboards"
TEXT = (FOLDER / "compose.yaml").read_text()
STACK: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
OURS = ("migrate", "server", "worker")

_VARIABLE = re.compile(r"\$\{(\w+)(?:(:\?|:-)([^}]*))?\}")
SETTINGS = _VARIABLE.findall("\n".join(line for line in TEXT.splitlines() if not line.lstrip().startswith("#")))
"""Name, operator and what stands behind it, of each place that takes a variable."""


def filled(value: str) -> str:
    """As compose would read it, where whatever must be set is."""
    return _VARIABLE.sub(lambda found: found[3] if found[2] == ":-" else f"sixteen-chars-of-{found[1]}", value)


def listed(heading: str) -> set[str]:
    """The variables below a heading of the head comment."""
    lines = TEXT.partition(f"# {heading}:\n")[2].splitlines()
    block = []
    for line in lines:
        if not line.startswith("#   "):
            break
        block.append(line.split("  ", 2)[1].strip().split(" " * 3)[0])
    return {name for text in block for name in text.split() if name.isupper()}


def test_file_keeps_to_the_schema_of_compose() -> None:
    check = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, FOLDER / "compose.yaml"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_schema_finds_a_word_that_compose_does_not_know(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(TEXT.replace("healthcheck:", "healthchecks:", 1))
    check = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec"]
    assert subprocess.run([*check, wrong], check=False, capture_output=True).returncode == 1


def test_head_lists_every_variable_and_no_other() -> None:
    needed = {name for name, operator, _ in SETTINGS if operator == ":?"}
    optional = {name for name, operator, _ in SETTINGS if operator == ":-"}
    assert needed | optional == {name for name, _, _ in SETTINGS}, "one that is neither would be empty without a word"
    assert listed("Must be set") == needed
    assert listed("One of the sellers' keys, at least") | listed("May be set") == optional
    for name, operator, message in SETTINGS:
        assert operator != ":?" or message == f"set {name}"


def test_no_secret_has_a_default() -> None:
    for name, operator, default in SETTINGS:
        if re.search("PASSWORD|SECRET|KEY|TOKEN", name):
            assert operator == ":?" or default == "", name
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEY|TOKEN", name):
                assert _VARIABLE.fullmatch(value), name


@pytest.mark.parametrize("name", OURS)
def test_server_understands_its_environment(name: str, tmp_path: Path) -> None:
    env = {key: filled(value) for key, value in SERVICES[name]["environment"].items()}
    assert unknown_names(env) == []
    settings = read_settings(env)
    assert settings.database_url == "postgresql://reelay@postgres/reelay"
    assert settings.storage_url.startswith(f"s3://{BUCKET}/")
    assert settings.public_url is None
    rules = read_rules(Path(shutil.copy(ROOT / "routing_rules.yaml", tmp_path)), WithFiles(env))
    named = set(re.findall(r"\$\{(\w+)\}", (ROOT / "routing_rules.yaml").read_text()))
    assert named <= env.keys(), "a seller whose key does not get in"
    assert not [account.name for account in rules.accounts.values() if account.on], "an empty key is no key"


def sources() -> list[str]:
    """What is mounted of this machine."""
    volumes = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    return [source for source in volumes if source not in STACK["volumes"]]


def test_everything_that_is_mounted_or_built_exists() -> None:
    assert sources()
    assert [source for source in sources() if not (FOLDER / source).exists()] == []
    context = FOLDER / SERVICES["migrate"]["build"]["context"]
    assert (context / "Dockerfile").is_file()
    args = SERVICES["migrate"]["build"]["args"].keys()
    assert args <= set(re.findall(r"^ARG (\w+)", (context / "Dockerfile").read_text(), re.MULTILINE))


def test_nothing_of_this_machine_is_written_by_a_container() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, _, rest = volume.partition(":")
            assert source in STACK["volumes"] or rest.endswith(":ro"), volume


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_bounded_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"]
    assert service["logging"]["options"]["max-size"]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert re.search(r":(v?\d+\.\d+(\.\d+)?|\$\{REELAY_VERSION:-local\})$", service["image"]), (
        "a version, not a fashion"
    )
    if name == "migrate":
        assert service["healthcheck"] == {"disable": True}
    else:
        assert service["healthcheck"]["test"][0] == "CMD"


def test_who_needs_another_waits_until_it_is_ready() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            ready = "service_completed_successfully" if other == "migrate" else "service_healthy"
            assert how == {"condition": ready}, f"{name} on {other}"
    assert SERVICES["server"]["depends_on"].keys() == SERVICES["worker"]["depends_on"].keys() == {"migrate", "objects"}
    assert SERVICES["migrate"]["depends_on"].keys() == {"postgres"}


def test_there_are_two_servers_and_two_workers() -> None:
    assert {name: SERVICES[name]["deploy"].get("replicas", 1) for name in OURS} == {
        "migrate": 1,
        "server": 2,
        "worker": 2,
    }


def test_only_the_api_and_grafana_are_published_and_on_loopback_unless_told() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert {name: [filled(port) for port in ports] for name, ports in published.items()} == {
        "server": ["127.0.0.1:8080-8081:8080"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_data_are_reached_by_their_users_alone() -> None:
    networks = {name: set(service["networks"]) for name, service in SERVICES.items()}
    assert STACK["networks"]["data"] == STACK["networks"]["watch"] == {"internal": True}
    assert {name for name, joined in networks.items() if "data" in joined} == {*OURS, "postgres", "objects", "grafana"}
    assert networks["postgres"] == networks["objects"] == {"data"}
    for name, service in SERVICES.items():
        for other in service.get("depends_on", {}):
            assert other == "migrate" or networks[name] & networks[other], f"{name} does not reach {other}"


def test_object_store_is_the_one_that_the_tests_use() -> None:
    store = SERVICES["objects"]
    assert store["image"] == f"chrislusf/seaweedfs:{version()}"
    place = ["-dir=/data", "-ip=objects", "-ip.bind=0.0.0.0"]
    assert store["command"] == ["-logtostderr=true", "mini", *place, *FLAGS]
    assert SERVICES["server"]["environment"]["AWS_ENDPOINT_URL"] == "http://objects:8333"


# Prometheus and Alertmanager


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    """With the rules beside it, where it will find them."""
    text = (FOLDER / "prometheus.yml").read_text()
    assert "./rules:/etc/prometheus/rules:ro" in SERVICES["prometheus"]["volumes"]
    assert "/etc/prometheus/rules/*.yaml" in text
    config = tmp_path / "prometheus.yml"
    config.write_text(text.replace("/etc/prometheus/rules", str(FOLDER / "rules")))
    promtool("check", "config", config)


def test_prometheus_asks_those_who_are_there() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    (reelay,) = jobs["reelay"]["dns_sd_configs"]
    assert reelay["names"] == ["server", "worker"]
    assert str(reelay["port"]) == SERVICES["server"]["environment"]["REELAY_METRICS_PORT"]
    (manager,) = config["alerting"]["alertmanagers"]
    assert manager["static_configs"] == jobs["alertmanager"]["static_configs"] == [{"targets": ["alertmanager:9093"]}]
    for name in ("server", "worker", "alertmanager", "grafana"):
        assert set(SERVICES["prometheus"]["networks"]) & set(SERVICES[name]["networks"])


def test_alertmanager_takes_its_configuration_and_its_secrets() -> None:
    check = [str(program("prometheus-alertmanager", "amtool")), "check-config", str(FOLDER / "alertmanager.yml")]
    done = subprocess.run(check, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    named = re.findall(r"/run/secrets/(\w+)", (FOLDER / "alertmanager.yml").read_text())
    assert set(named) == set(SERVICES["alertmanager"]["secrets"]) == STACK["secrets"].keys()


def test_grafana_finds_what_is_provisioned() -> None:
    grafana = SERVICES["grafana"]
    mounted = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    assert mounted["./provisioning/dashboards.yaml"].startswith("/etc/grafana/provisioning/dashboards/")
    assert mounted["./provisioning/datasources.yaml"].startswith("/etc/grafana/provisioning/datasources/")
    (provider,) = yaml.safe_load((FOLDER / "provisioning/dashboards.yaml").read_text())["providers"]
    place = provider["options"]["path"]
    pages = {f"./{path.name}": f"{place}/{path.name}" for path in FOLDER.glob("*.json")}
    assert {source: target for source, target in mounted.items() if source.endswith(".json")} == pages
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{place}/overview.json"
    named = set(re.findall(r"\$(\w+)", (FOLDER / "provisioning/datasources.yaml").read_text()))
    assert named <= grafana["environment"].keys()
