"""The environment becomes settings, or one line that names the variable at fault."""

import stat
import threading
from pathlib import Path

import pytest

from proxy.core.errors import ConfigError
from proxy.settings import (
    NAMES,
    SANDBOX_KEY,
    SECRETS,
    Settings,
    WithFiles,
    exposures,
    keep_secret,
    read_settings,
    unknown_names,
)


def read(*, sandbox: bool = False, **env: str) -> Settings:
    """With `REELAY_` before each name."""
    return read_settings({f"REELAY_{name}": value for name, value in env.items()}, sandbox=sandbox)


def test_nothing_set_serves_on_this_machine_alone() -> None:
    settings = read()
    assert (settings.host, settings.port, settings.log) == ("127.0.0.1", 8080, "json")
    assert settings.database == Path("data/reelay.db")
    assert settings.storage_url == "file:data/videos"
    assert settings.bootstrap_key is None
    assert settings.is_loopback


def test_postgresql_is_an_address() -> None:
    settings = read(DATABASE_URL="postgresql://reelay:hush@db/reelay", SECRET="s" * 16)
    assert settings.database == "postgresql://reelay:hush@db/reelay"
    assert settings.data_folder == Path("data")


def test_sandbox_has_files_and_a_key_of_its_own() -> None:
    real, play = read(), read(sandbox=True)
    assert {real.database_url, real.storage_url}.isdisjoint({play.database_url, play.storage_url})
    assert play.bootstrap_key == SANDBOX_KEY
    assert read(sandbox=True, BOOTSTRAP_KEY="k" * 16).bootstrap_key == "k" * 16


def test_everything_can_be_set() -> None:
    settings = read(
        DATABASE_URL="sqlite:////var/lib/reelay/db",
        STORAGE_URL="s3://films/reelay",
        RULES="other.yaml",
        HOST="::",
        PORT="0",
        PUBLIC_URL="https://videos.example/api/",
        BOOTSTRAP_KEY="k" * 16,
        SECRET="a" * 16 + ", " + "b" * 16,
        ALLOW_MEDIA_NETWORKS="10.0.0.0/8, fd00::/8",
        ALLOW_WEBHOOK_NETWORKS="192.168.1.7",
        METRICS_TOKEN="token",
        METRICS_PORT="9464",
        LOG="console",
        SANDBOX_SPEED="100",
    )
    assert settings.database == Path("/var/lib/reelay/db")
    assert settings.rules == Path("other.yaml")
    assert settings.public_url == "https://videos.example/api"
    assert [str(one) for one in settings.allow_media_networks] == ["10.0.0.0/8", "fd00::/8"]
    assert [str(one) for one in settings.allow_webhook_networks] == ["192.168.1.7/32"]
    assert (settings.port, settings.metrics_port, settings.sandbox_speed) == (0, 9464, 100.0)
    assert settings.log == "console"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("BOOTSTRAP_KEY", "too-short", "REELAY_BOOTSTRAP_KEY needs at least 16 characters"),
        ("SECRET", "short", "each REELAY_SECRET needs at least 16 characters"),
        ("SECRET", "a" * 16 + ",", "each REELAY_SECRET needs at least 16 characters"),
        ("PORT", "80a", "REELAY_PORT '80a' is no port"),
        ("PORT", "65536", "REELAY_PORT '65536' is no port"),
        ("PORT", "-1", "REELAY_PORT '-1' is no port"),
        ("PORT", "८०", "is no port"),
        ("PORT", "9" * 5000, "is no port"),
        ("METRICS_PORT", "http", "REELAY_METRICS_PORT 'http' is no port"),
        ("METRICS_PORT", "8080", "REELAY_METRICS_PORT 8080 is REELAY_PORT too"),
        ("PUBLIC_URL", "videos.example", "REELAY_PUBLIC_URL 'videos.example' is no http or https address"),
        ("PUBLIC_URL", "https://", "is no http or https address"),
        ("PUBLIC_URL", "https://videos.example?a=b", "is no http or https address"),
        ("PUBLIC_URL", "https://videos.example:port", "is no http or https address"),
        ("ALLOW_MEDIA_NETWORKS", "10.0.0.0/33", "REELAY_ALLOW_MEDIA_NETWORKS: '10.0.0.0/33'"),
        ("ALLOW_WEBHOOK_NETWORKS", "10.0.0.1/8", "REELAY_ALLOW_WEBHOOK_NETWORKS: 10.0.0.1/8 has host bits set"),
        ("LOG", "xml", "REELAY_LOG 'xml' is neither json nor console"),
        ("SANDBOX_SPEED", "fast", "REELAY_SANDBOX_SPEED 'fast' is no positive number"),
        ("SANDBOX_SPEED", "0", "is no positive number"),
        ("SANDBOX_SPEED", "nan", "is no positive number"),
        ("DATABASE_URL", "data/reelay.db", "is neither sqlite:///PATH nor"),
        ("DATABASE_URL", "sqlite:///", "is neither sqlite:///PATH nor"),
        ("DATABASE_URL", "sqlite://data/reelay.db", "is neither sqlite:///PATH nor"),
        ("DATABASE_URL", "sqlite:///:memory:", "is neither sqlite:///PATH nor"),
        ("DATABASE_URL", "sqlite:///reelay.db?mode=ro", "is neither sqlite:///PATH nor"),
        ("DATABASE_URL", "postgresql://", "neither sqlite:///PATH nor postgresql://HOST/NAME"),
        ("DATABASE_URL", "postgresql+psycopg://db/reelay", "neither sqlite:///PATH nor postgresql://HOST/NAME"),
        ("DATABASE_URL", "postgresql://reelay:hush@db/reelay", "REELAY_SECRET is needed with PostgreSQL"),
    ],
)
def test_value_that_cannot_be_is_named_in_one_line(name: str, value: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings({f"REELAY_{name}": value})
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("name", SECRETS)
def test_secret_may_stand_in_a_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("a-secret-from-a-file\n")
    assert getattr(read_settings({f"REELAY_{name}_FILE": str(path)}), name.lower()) == "a-secret-from-a-file"


def test_secret_given_twice_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="REELAY_SECRET and REELAY_SECRET_FILE are both set"):
        read(SECRET="s" * 16, SECRET_FILE=str(tmp_path))


def test_file_that_holds_no_secret_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name, told in (("empty", "is empty"), ("binary", "is no text"), ("missing", "No such file")):
        with pytest.raises(ConfigError, match=told):
            read(METRICS_TOKEN_FILE=str(tmp_path / name))


def test_sellers_key_may_stand_in_a_file_that_is_read_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("seller-key\n")
    env = WithFiles(
        {
            "PLAIN": "as it is",
            "SELLER_KEY_FILE": str(tmp_path / "key"),
            "BOTH": "plain wins",
            "BOTH_FILE": str(tmp_path / "key"),
            "STRANGERS_TLS_KEY_FILE": "/nowhere",
        }
    )
    assert env["SELLER_KEY"] == "seller-key"
    assert (env["PLAIN"], env["BOTH"]) == ("as it is", "plain wins")
    assert env.get("ABSENT") is None
    assert len(env) == len(list(env)) == 5
    with pytest.raises(ConfigError, match="STRANGERS_TLS_KEY_FILE: /nowhere cannot be read: No such file"):
        env.get("STRANGERS_TLS_KEY")


def test_misspelt_setting_is_noticed() -> None:
    env = {"REELAY_PROT": "1", "REELAY_SECRET_FILE": "x", "REELAY_ZZZZ": "", "PATH": "/bin", "REELAY_PORT": "1"}
    assert unknown_names(env) == ["REELAY_PROT is no setting; did you mean REELAY_PORT?", "REELAY_ZZZZ is no setting"]


def test_every_setting_is_read_under_its_own_name() -> None:
    assert len(NAMES) == len(set(NAMES)) == len(Settings.__struct_fields__)


@pytest.mark.parametrize(
    ("host", "alone"), [("localhost", True), ("127.0.0.9", True), ("::1", True), ("::", False), ("box", False)]
)
def test_strangers_are_warned_of_where_they_can_come_in(host: str, *, alone: bool) -> None:
    found = exposures(read(sandbox=True, HOST=host))
    assert [("metrics" in one, "sandbox" in one) for one in found] == ([] if alone else [(True, False), (False, True)])


def test_token_or_port_for_metrics_and_a_key_of_ones_own_end_the_warnings() -> None:
    assert len(exposures(read(sandbox=True, HOST="::", METRICS_TOKEN="t"))) == 1
    assert len(exposures(read(sandbox=True, HOST="::", METRICS_PORT="1", BOOTSTRAP_KEY="k" * 16))) == 0


# The secret beside the database


def test_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "secret"
    first = keep_secret(path)
    assert len(first) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keep_secret(path) == first
    assert [one.name for one in path.parent.iterdir()] == ["secret"]


def test_processes_that_start_together_keep_one_secret(tmp_path: Path) -> None:
    found: list[str] = []
    gate = threading.Barrier(8)

    def start() -> None:
        gate.wait()
        found.append(keep_secret(tmp_path / "secret"))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1


def test_secret_that_is_none_is_refused_rather_than_used(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("")
    (tmp_path / "odd").write_bytes(b"\xff" * 40)
    (tmp_path / "file").write_text("")
    for path, told in (
        (tmp_path / "short", "is shorter than 16 characters"),
        (tmp_path / "odd", "holds no secret of ours"),
        (tmp_path / "file" / "secret", "cannot be read or made"),
    ):
        with pytest.raises(ConfigError, match=told):
            keep_secret(path)
