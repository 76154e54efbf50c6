"""The command `bygones doctor`: what is installed here, and what of bygones works with it."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path

import typer

from bygones.cli.options import Json
from bygones.core.extras import EXTRAS, is_installed
from bygones.core.text import describe_error, format_bytes

_LEAST_DISK = 1_000_000_000  # bytes; the demo's store takes some 200 MB


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `advice`: what does not work, and what to do; "" where all is well."""

    what: str
    found: str
    advice: str = ""


def doctor(as_json: Json = False) -> None:
    """Say what is installed here, and what works with it.

    It looks at Python, torch, devices, forking, extras and disk space. The exit code is 1 if torch
    cannot be used, without which nothing can be trained.

    \b
    Example:
      bygones doctor
    """
    torch = _look_at_torch()
    findings = [
        Finding("bygones", version("bygones")),
        Finding("Python", f"{platform.python_version()} at {sys.executable}"),
        *torch,
        _look_at_forking(),
        *(_look_at_extra(extra) for extra in dict.fromkeys(EXTRAS.values())),
        _look_at_disk(Path.cwd()),
    ]
    if as_json:
        print(json.dumps([asdict(one) for one in findings], indent=2))
    else:
        from bygones.cli import terminal

        rows = [(one.what, ". ".join(filter(None, (one.found, one.advice)))) for one in findings]
        terminal.out.print(terminal.table("", ("", "found here"), rows))
    if torch[0].advice:
        raise typer.Exit(1)


def _look_at_torch() -> list[Finding]:
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # whatever a broken installation raises
        return [Finding("torch", describe_error(error), "Install it again: pip install torch")]
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cores = os.cpu_count() or 1
    return [
        Finding("torch", torch.__version__),
        Finding(
            "CPU", f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {cores} cores"
        ),
        Finding("GPU", ", ".join(gpus) or "none (studies train on the CPU)"),
    ]


def _look_at_forking() -> Finding:
    """Say how the arms of a script are made: by copying its process where the system can."""
    if hasattr(os, "fork") and sys.platform == "linux":
        return Finding("forking", "works: a script's process is copied, an arm each")
    if hasattr(os, "fork"):
        return Finding(
            "forking", "works", f"On {sys.platform} processes that a script leaves are not ended"
        )
    return Finding(
        "forking", "this system cannot", "Recipes can be trained; scripts cannot be studied"
    )


def _look_at_extra(extra: str) -> Finding:
    packages = [package for package, its in EXTRAS.items() if its == extra]
    missing = [package for package in packages if not is_installed(package)]
    found = ", ".join(
        f"{package} {_version(package)}" for package in packages if package not in missing
    )
    if not missing:
        return Finding(f"extra {extra}", found)
    lacks = f"{', '.join(missing)} missing"
    advice = f"To install: pip install 'bygones[{extra}]'"
    return Finding(f"extra {extra}", ", ".join(filter(None, (found, lacks))), advice)


def _version(package: str) -> str:
    brought_by = packages_distributions().get(package)
    return version(brought_by[0]) if brought_by else "of unknown version"


def _look_at_disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    found = f"{format_bytes(free)} free in {folder}"
    if not os.access(folder, os.W_OK):
        return Finding(
            "disk", found, "This folder cannot be written; pass --store and --out elsewhere"
        )
    return Finding("disk", found, "That is little for a store" if free < _LEAST_DISK else "")
