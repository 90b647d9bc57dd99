"""The units of deploy/systemd, read and run as systemd does it, as far as processes can tell."""

import re
import shlex
import shutil
from pathlib import Path

from tests.containers import PROGRAMS, ROOT, Machine

FOLDER = ROOT / "deploy" / "systemd"
FAMILIES = sorted(path.name.split("@")[1].removesuffix(".service.d") for path in FOLDER.glob("shop-worker@*.d"))
SERVICES = sorted(path.name for path in FOLDER.glob("*.service") if "@" not in path.name)
SERVICES += [f"shop-worker@{name}.service" for name in FAMILIES]


def installed(home: Path) -> Path:
    """Copy the units to a folder where this checkout is /opt/lantern-loom."""
    copy = home / "systemd"
    shutil.copytree(FOLDER, copy)
    for path in (path for path in copy.rglob("*") if path.is_file()):
        text = path.read_text().replace("/opt/lantern-loom/.venv/bin", str(PROGRAMS))
        path.write_text(text.replace("/opt/lantern-loom", str(ROOT)))
    return copy


def directives(unit: str, folder: Path = FOLDER) -> dict[str, list[str]]:
    """Return what the unit and its drop-ins set, in systemd's order, each directive with all its values."""
    name, instance = unit.removesuffix(".service"), ""
    if "@" in name:
        name, instance = name.split("@")[0] + "@", name.split("@")[1]
    files = [folder / f"{name}.service", folder / "shop-.service.d" / "common.conf"]
    files += sorted((folder / f"{name}{instance}.service.d").glob("*.conf")) if instance else []
    found: dict[str, list[str]] = {}
    for line in (line for file in files for line in file.read_text().splitlines()):
        if pair := re.fullmatch(r"(\w+)=(.*)", line):
            found.setdefault(pair[1], []).append(pair[2].replace("%i", instance).replace("%H", "here"))
    return found


def command(unit: str, folder: Path = FOLDER) -> list[str]:
    """Return the last command of the unit, with the variables of `Environment` in it."""
    given = dict(pair.split("=", 1) for line in directives(unit, folder)["Environment"] for pair in line.split())
    text = re.sub(r"\$\{(\w+)\}", lambda found: given[found[1]], directives(unit, folder)["ExecStart"][-1])
    return shlex.split(text)


def environment(unit: str, machine: Machine) -> dict[str, str]:
    """Return what the unit gives its process, with the machine's servers in /etc/lantern-loom/shop.env."""
    given = dict(pair.split("=", 1) for line in directives(unit)["Environment"] for pair in line.split())
    folders = {"/var/lib/lantern-loom": str(machine.home / "data"), "%t": str(machine.tmp("run"))}
    for name, here in folders.items():
        given = {key: value.replace(name, here) for key, value in given.items()}
    shop_env = machine.environment("web")
    others = [name for line in directives(unit).get("UnsetEnvironment", []) for name in line.split()]
    dropped = ("STATIC_ROOT", "MEDIA_ROOT", "WEB_BIND", "VAR_DIR", *others)
    return {name: value for name, value in shop_env.items() if name not in dropped} | given
