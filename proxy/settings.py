"""The environment, read once, as one frozen Struct."""

import difflib
import ipaddress
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from proxy.core.errors import ConfigError

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

LEAST_KEY_CHARS = 16
LEAST_SECRET_CHARS = 16

SANDBOX_KEY = "reelay-sandbox-key"
"""What `serve --sandbox` accepts where no bootstrap key is set: it buys from play sellers only."""


SECRETS = ("BOOTSTRAP_KEY", "SECRET", "METRICS_TOKEN")
"""Those that may stand in a file, named by the same name with `_FILE` behind it."""


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
    def database(self) -> Path | str:
        """A local file, or the address of a database on a PostgreSQL server. Raises ConfigError for neither."""
        scheme, _, rest = self.database_url.partition("://")
        if scheme in {"postgresql", "postgres"} and rest.strip("/"):
            return self.database_url
        path = rest.removeprefix("/")
        if scheme != "sqlite" or not rest.startswith("/") or not path or path.startswith((":", "file:")) or "?" in path:
            # A password may stand in the rest of the address.
            raise ConfigError(
                f"REELAY_DATABASE_URL {scheme + '://…'!r} is neither sqlite:///PATH nor postgresql://HOST/NAME"
            )
        return Path(path)

    @property
    def data_folder(self) -> Path:
        """Where the process itself may keep files: beside the database, where that is a file."""
        return self.database.parent if isinstance(self.database, Path) else Path("data")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the port."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


NAMES = tuple(name.upper() for name in Settings.__struct_fields__)
"""Every setting's name without `REELAY_`."""


def read_settings(env: Mapping[str, str], *, sandbox: bool = False) -> Settings:
    """
    Raises ConfigError with one line that tells every value that cannot be.

    The sandbox has files of its own, so that play money never meets real money.
    """
    value = _Reader(env)
    bootstrap_key = value.secret("BOOTSTRAP_KEY")
    if bootstrap_key is not None and len(bootstrap_key) < LEAST_KEY_CHARS:
        value.wrong.append(f"REELAY_BOOTSTRAP_KEY needs at least {LEAST_KEY_CHARS} characters")
    secret = value.secret("SECRET")
    if secret is not None and any(len(one.strip()) < LEAST_SECRET_CHARS for one in secret.split(",")):
        value.wrong.append(f"each REELAY_SECRET needs at least {LEAST_SECRET_CHARS} characters")
    if bootstrap_key is None and sandbox:
        bootstrap_key = SANDBOX_KEY
    stem = "sandbox" if sandbox else "reelay"
    settings = Settings(
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
    if settings.port and settings.port == settings.metrics_port:
        value.wrong.append(f"REELAY_METRICS_PORT {settings.port} is REELAY_PORT too; metrics need a port of their own")
    try:
        if not isinstance(settings.database, Path) and settings.secret is None:
            value.wrong.append(
                "REELAY_SECRET is needed with PostgreSQL: every process that serves it must have the same"
            )
    except ConfigError as exc:
        value.wrong.append(str(exc))
    if value.wrong:
        raise ConfigError("; ".join(value.wrong))
    return settings


def unknown_names(env: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that looks like a setting and is none."""
    known = [*NAMES, *(f"{name}_FILE" for name in SECRETS)]
    odd = sorted({name.removeprefix("REELAY_") for name in env if name.startswith("REELAY_")} - set(known))
    nearest = {name: difflib.get_close_matches(name, known, 1) for name in odd}
    return [
        f"REELAY_{name} is no setting" + "".join(f"; did you mean REELAY_{one}?" for one in near)
        for name, near in nearest.items()
    ]


def exposures(settings: Settings) -> list[str]:
    """What strangers could do, where the port can be reached from other machines."""
    if settings.is_loopback:
        return []
    found = []
    if settings.metrics_token is None and settings.metrics_port is None:
        found.append("anybody who reaches this port may read /metrics; set REELAY_METRICS_TOKEN or REELAY_METRICS_PORT")
    if settings.bootstrap_key == SANDBOX_KEY:
        found.append("this port takes the key of the sandbox, which everybody knows; set REELAY_BOOTSTRAP_KEY")
    return found


class WithFiles(Mapping[str, str]):
    """
    The environment, where `NAME_FILE` stands for a NAME that is not set.

    A file is read when its name is asked for, so that another program's variables matter to nobody.
    Asking raises ConfigError where it cannot be read or is empty.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def __getitem__(self, name: str) -> str:
        path = self._env.get(f"{name}_FILE")
        if self._env.get(name) or not path:
            return self._env[name]
        return _contents(f"{name}_FILE", path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._env)

    def __len__(self) -> int:
        return len(self._env)


def _contents(name: str, path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except OSError as exc:
        raise ConfigError(f"{name}: {path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{name}: {path} is no text") from exc
    if not text:
        raise ConfigError(f"{name}: {path} is empty")
    return text


def keep_secret(path: Path) -> str:
    """
    The secret in this file, made at the first time, readable by its owner alone.

    Raises ConfigError where it can be neither read nor made, or is too short to be one.
    """
    try:
        if not path.exists():
            _make_secret(path)
        text = path.read_text(encoding="ascii").strip()
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read or made: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} holds no secret of ours") from exc
    if len(text) < LEAST_SECRET_CHARS:
        raise ConfigError(f"{path} is shorter than {LEAST_SECRET_CHARS} characters; every key and token depends on it")
    return text


def _make_secret(path: Path) -> None:
    """In place with all its bytes or not at all; where another process was faster, its secret stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".secret-") as draft:  # mode 0600
        draft.write(secrets.token_urlsafe(32) + "\n")
        draft.flush()
        os.fsync(draft.fileno())
        try:
            os.link(draft.name, path)
        except FileExistsError:
            return


class _Reader:
    """Whatever cannot be stands in `wrong` then, and what is read in its place means nothing."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.wrong: list[str] = []

    def text(self, name: str) -> str | None:
        return self._env.get(f"REELAY_{name}", "").strip() or None

    def secret(self, name: str) -> str | None:
        plain, path = self.text(name), self.text(f"{name}_FILE")
        if plain is not None and path is not None:
            self.wrong.append(f"REELAY_{name} and REELAY_{name}_FILE are both set; one is enough")
        elif path is not None:
            try:
                return _contents(f"REELAY_{name}_FILE", path)
            except ConfigError as exc:
                self.wrong.append(str(exc))
        return plain

    def port(self, name: str, default: int | None) -> int | None:
        text = self.text(name)
        if text is None:
            return default
        if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65535:
            self.wrong.append(f"REELAY_{name} {text!r} is no port")
            return default
        return int(text)

    def url(self, name: str) -> str | None:
        text = self.text(name)
        if text is None:
            return None
        try:
            parts = urlsplit(text)
            plain = parts.scheme in {"http", "https"} and parts.hostname and not (parts.query or parts.fragment)
            parts.port  # noqa: B018 - raises for a port that cannot be
        except ValueError:
            plain = None
        if not plain:
            self.wrong.append(f"REELAY_{name} {text!r} is no http or https address")
        return text.rstrip("/")

    def networks(self, name: str) -> tuple[IPNetwork, ...]:
        try:
            return tuple(ipaddress.ip_network(one.strip()) for one in (self.text(name) or "").split(",") if one.strip())
        except ValueError as exc:
            self.wrong.append(f"REELAY_{name}: {exc}")
            return ()

    def log(self) -> Literal["json", "console"]:
        text = self.text("LOG")
        if text not in {None, "json", "console"}:
            self.wrong.append(f"REELAY_LOG {text!r} is neither json nor console")
        return "console" if text == "console" else "json"

    def positive(self, name: str, default: float) -> float:
        text = self.text(name)
        try:
            number = default if text is None else float(text)
        except ValueError:
            number = 0
        if not 0 < number < 1e6:
            self.wrong.append(f"REELAY_{name} {text!r} is no positive number")
        return number
