"""The environment, read once, as one frozen Struct."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from proxy.core.errors import ConfigError

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

LEAST_KEY_CHARS = 16
LEAST_SECRET_CHARS = 16

SANDBOX_KEY = "reelay-sandbox-key"
"""What `serve --sandbox` accepts where no bootstrap key is set: it buys from play sellers only."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting of README's table, under its name without `REELAY_`."""

    database_url: str
    storage_url: str
    rules: Path
    host: str
    port: int
    public_url: str | None
    bootstrap_key: str | None
    secret: str | None
    """A comma list, the newest first; None: made once beside the database."""
    allow_media_networks: tuple[IPNetwork, ...]
    allow_webhook_networks: tuple[IPNetwork, ...]
    metrics_token: str | None
    metrics_port: int | None
    log: Literal["json", "console"]
    sandbox_speed: float
    """How many times faster than real sellers the play sellers are."""

    @property
    def database_path(self) -> Path:
        """Raises ConfigError for a database that is not a local file."""
        scheme, _, rest = self.database_url.partition(":///")
        if scheme != "sqlite" or not rest:
            raise ConfigError(f"REELAY_DATABASE_URL {self._database_shown()} is not sqlite:///PATH")
        return Path(rest)

    def _database_shown(self) -> str:
        # A password may stand in the address.
        return repr(self.database_url.partition("://")[0] + "://…")


def read_settings(env: Mapping[str, str], *, sandbox: bool = False) -> Settings:
    """
    Raises ConfigError with one line for a value that cannot be.

    The sandbox has files of its own, so that play money never meets real money.
    """
    value = _Reader(env)
    bootstrap_key = value.secret("BOOTSTRAP_KEY")
    if bootstrap_key is not None and len(bootstrap_key) < LEAST_KEY_CHARS:
        raise ConfigError(f"REELAY_BOOTSTRAP_KEY needs at least {LEAST_KEY_CHARS} characters")
    secret = value.secret("SECRET")
    if secret is not None and any(len(one.strip()) < LEAST_SECRET_CHARS for one in secret.split(",")):
        raise ConfigError(f"each REELAY_SECRET needs at least {LEAST_SECRET_CHARS} characters")
    if bootstrap_key is None and sandbox:
        bootstrap_key = SANDBOX_KEY
    stem = "sandbox" if sandbox else "reelay"
    return Settings(
        database_url=value.text("DATABASE_URL") or f"sqlite:///data/{stem}.db",
        storage_url=value.text("STORAGE_URL") or ("file:data/sandbox-videos" if sandbox else "file:data/videos"),
        rules=Path(value.text("RULES") or "routing_rules.yaml"),
        host=value.text("HOST") or "127.0.0.1",
        port=value.port("PORT", 8080) or 0,
        public_url=value.url("PUBLIC_URL"),
        bootstrap_key=bootstrap_key,
        secret=secret,
        allow_media_networks=value.networks("ALLOW_MEDIA_NETWORKS"),
        allow_webhook_networks=value.networks("ALLOW_WEBHOOK_NETWORKS"),
        metrics_token=value.secret("METRICS_TOKEN"),
        metrics_port=value.port("METRICS_PORT", None),
        log=value.log(),
        sandbox_speed=value.positive("SANDBOX_SPEED", 40.0),
    )


def with_files(env: Mapping[str, str]) -> dict[str, str]:
    """The environment, each `NAME_FILE` read into NAME where NAME itself is not set. Raises ConfigError."""
    merged = dict(env)
    for name, path in env.items():
        plain = name.removesuffix("_FILE")
        if plain == name or not path or merged.get(plain) or not plain.endswith(("_KEY", "_SECRET", "_TOKEN")):
            continue
        merged[plain] = _contents(name, path)
    return merged


def _contents(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{name}: {path} cannot be read: {type(exc).__name__}") from exc


class _Reader:
    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def text(self, name: str) -> str | None:
        return self._env.get(f"REELAY_{name}", "").strip() or None

    def secret(self, name: str) -> str | None:
        plain, path = self.text(name), self.text(f"{name}_FILE")
        if plain is not None and path is not None:
            raise ConfigError(f"REELAY_{name} and REELAY_{name}_FILE are both set; one is enough")
        return _contents(f"REELAY_{name}_FILE", path) or None if path is not None else plain

    def port(self, name: str, default: int | None) -> int | None:
        text = self.text(name)
        if text is None:
            return default
        if not text.isascii() or not text.isdigit() or int(text) > 65535:
            raise ConfigError(f"REELAY_{name} {text!r} is no port")
        return int(text)

    def url(self, name: str) -> str | None:
        text = self.text(name)
        if text is not None and not text.startswith(("http://", "https://")):
            raise ConfigError(f"REELAY_{name} {text!r} does not begin with http:// or https://")
        return None if text is None else text.rstrip("/")

    def networks(self, name: str) -> tuple[IPNetwork, ...]:
        try:
            return tuple(ipaddress.ip_network(one.strip()) for one in (self.text(name) or "").split(",") if one.strip())
        except ValueError as exc:
            raise ConfigError(f"REELAY_{name}: {exc}") from exc

    def log(self) -> Literal["json", "console"]:
        text = self.text("LOG")
        if text not in {None, "json", "console"}:
            raise ConfigError(f"REELAY_LOG {text!r} is neither json nor console")
        return "console" if text == "console" else "json"

    def positive(self, name: str, default: float) -> float:
        text = self.text(name)
        try:
            number = default if text is None else float(text)
        except ValueError:
            number = 0
        if not 0 < number < 1e6:
            raise ConfigError(f"REELAY_{name} {text!r} is no positive number")
        return number
