"""
The Dockerfile's steps, carried out without a container engine, in trees of folders and namespaces of Linux.

A stage is an empty tree with this machine's /usr, /etc and Python below it, as the base image's are: what a
step writes there lies in layers of its own (overlayfs), and the machine stays as it was. It takes root.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
from docker.utils.build import exclude_paths
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parents[1]

_PREFIX = os.path.realpath(sys.base_prefix)
_BASE = tuple(dict.fromkeys(("/usr", "/etc", _PREFIX if not _PREFIX.startswith("/usr/") else "/usr")))
_NETWORK = re.compile(r"(?i)(PIP_|SSL_CERT|UV_INDEX|UV_DEFAULT_INDEX|(HTTPS?|NO|ALL)_PROXY$)")
"""How this machine reaches a registry, as a build gets it from outside."""


def context(root: Path = ROOT) -> set[str]:
    """The files that the engine would be sent, by .dockerignore."""
    lines = (root / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    return {path for path in exclude_paths(str(root), patterns) if (root / path).is_file()}


class Stage(msgspec.Struct, kw_only=True):
    """What a FROM begins; ends as an image."""

    folder: Path
    env: dict[str, str]
    workdir: str = "/"
    user: str = "0:0"
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    health: list[str] = msgspec.field(default_factory=list)
    entrypoint: list[str] = msgspec.field(default_factory=list)
    command: list[str] = msgspec.field(default_factory=list)
    volumes: list[str] = msgspec.field(default_factory=list)

    @property
    def tree(self) -> Path:
        return self.folder / "root"

    def layers(self) -> list[Path]:
        """Where everything lies that the steps have written."""
        return [self.tree, *(self.folder / "upper" / base.strip("/").replace("/", "-") for base in _BASE)]

    def inside(
        self,
        arguments: list[str],
        *,
        user: str | None = None,
        env: dict[str, str] | None = None,
        data: Path | None = None,
    ) -> list[str]:
        """
        The command that runs these in the tree, as process 1 of its own.

        `data`: as the finished image runs: without any privilege, and with nothing to write but this folder at
        /data, and /tmp.
        """
        uid, gid = (user or self.user).split(":")
        root = shlex.quote(str(self.tree))
        script = ["set -e", f"mount --bind {root} {root}"]
        for base, upper in zip(_BASE, self.layers()[1:], strict=True):
            work = self.folder / "work" / upper.name
            for needed in (upper, work, self.tree / base.strip("/")):
                needed.mkdir(parents=True, exist_ok=True)
            how = f"lowerdir={base},upperdir={upper},workdir={work}" + (",ro" if data else "")
            script.append(f"mount -t overlay overlay -o {shlex.quote(how)} {root}{base}")
        script += [
            f"mount -t proc proc {root}/proc",
            f"mount --rbind /dev {root}/dev",
            f"mount -t tmpfs tmpfs {root}/tmp",  # noqa: S108  # in there
        ]
        if data:
            script += [f"mount --bind {shlex.quote(str(data))} {root}/data", f"mount -o remount,bind,ro {root}"]
        given = [f"{name}={value}" for name, value in (self.env | (env or {})).items()]
        drop = ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"] if data else []
        run = [
            "chroot", str(self.tree), "setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *drop,
            "env", "-i", f"--chdir={self.workdir}", *given, *arguments,
        ]  # fmt: skip
        script.append(f"exec {shlex.join(run)}")
        apart = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--propagation=private"]
        return [*apart, "sh", "-c", "\n".join(script)]


def build(folder: Path, args: dict[str, str]) -> Stage:
    """Carries out every step; the last stage. Raises CalledProcessError where a step fails."""
    with (ROOT / "Dockerfile").open("rb") as file:
        steps = DockerfileParser(fileobj=file).structure
    stages: dict[str, Stage] = {}
    known: dict[str, str] = {}
    for step in steps:
        instruction, value = step["instruction"], step["value"]
        if instruction == "COMMENT":
            continue
        if instruction == "FROM":
            _, _, name = value.partition(" AS ")
            stage = stages[name or "last"] = _from(folder / (name or "last"))
            known = {}
        elif instruction == "ARG":
            name, _, default = value.partition("=")
            known[name] = args.get(name, default)
        else:
            _carry_out(stage, instruction, value, known, stages)
    return stage


def _from(folder: Path) -> Stage:
    """An image as the base image is: a Python, and the places that every system has."""
    stage = Stage(folder=folder, env={"PATH": f"{_PREFIX}/bin:/usr/local/bin:/usr/bin:/usr/sbin:/bin", "HOME": "/root"})
    for place in ("proc", "dev", "tmp", "root", "run", "var/tmp", *(base.strip("/") for base in _BASE)):
        (stage.tree / place).mkdir(parents=True, exist_ok=True)
    for link in ("bin", "sbin", "lib", "lib64"):
        (stage.tree / link).symlink_to(f"usr/{link}")
    uppers = dict(zip(_BASE, stage.layers()[1:], strict=True))
    programs = uppers["/usr"] / "local" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(os.path.realpath(sys.executable))
    (programs / "pip").write_text('#!/bin/sh\nexec python -m pip "$@"\n')
    (programs / "pip").chmod(0o755)
    uppers["/etc"].mkdir(parents=True)
    shutil.copy(os.path.realpath("/etc/resolv.conf"), uppers["/etc"] / "resolv.conf")
    return stage


def _carry_out(stage: Stage, instruction: str, value: str, known: dict[str, str], stages: dict[str, Stage]) -> None:  # noqa: C901  # a case each
    match instruction:
        case "RUN":
            outside = {name: text for name, text in os.environ.items() if _NETWORK.match(name)}
            # A machine's own Python may refuse what the image's takes.
            env = known | outside | {"PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_ROOT_USER_ACTION": "ignore"}
            subprocess.run(stage.inside(["sh", "-c", value], env=env), check=True)
        case "COPY":
            _copy(stage, value.split(), stages)
        case "ENV":
            stage.env |= {name: text.replace("$PATH", stage.env["PATH"]) for name, text in _pairs(value, {}).items()}
        case "LABEL":
            stage.labels |= _pairs(value, known)
        case "WORKDIR":
            stage.workdir = value
            (stage.tree / value.lstrip("/")).mkdir(parents=True, exist_ok=True)
        case "USER":
            stage.user = value
        case "HEALTHCHECK":
            stage.health = json.loads(value.partition("CMD")[2])
        case "ENTRYPOINT":
            stage.entrypoint = json.loads(value)
        case "CMD":
            stage.command = json.loads(value)
        case "VOLUME":
            stage.volumes.append(value)
        case "EXPOSE":
            pass
        case _:
            raise ValueError(f"{instruction} is no instruction that can be followed here")


def _pairs(value: str, known: dict[str, str]) -> dict[str, str]:
    pairs = dict(word.split("=", 1) for word in shlex.split(value))
    return {name: re.sub(r"\$(\w+)", lambda found: known.get(found[1], found[0]), text) for name, text in pairs.items()}


def _copy(stage: Stage, words: list[str], stages: dict[str, Stage]) -> None:
    """A folder's content goes to its target; files go into a target that ends as a folder does."""
    source = ROOT
    if words[0].startswith("--from="):
        source = stages[words.pop(0).removeprefix("--from=")].tree
    *names, target = words
    place = stage.tree / os.path.normpath(os.path.join(stage.workdir, target)).lstrip("/")  # noqa: PTH118  # no path of this machine
    for name in names:
        found = source / name.lstrip("/")
        if source == ROOT:
            for path in context():
                if path == name or path.startswith(f"{name}/"):
                    inner = path.removeprefix(name).lstrip("/")
                    goal = place / inner if inner or not target.endswith("/") else place / name
                    goal.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / path, goal)
        elif found.is_dir():
            shutil.copytree(found, place, symlinks=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(found, place)
