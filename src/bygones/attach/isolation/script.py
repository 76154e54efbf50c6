"""Script: run a training script in this process, as `python script.py …` would."""

from __future__ import annotations

import os
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from bygones.attach.isolation.environment import HASH_SEED
from bygones.core.code_digest import SCRIPTS, package_digest, source_digest
from bygones.core.errors import DesignError, ScriptError
from bygones.core.keyed_rng import mix
from bygones.core.script_digest import script_digest
from bygones.core.values import Digest

SEED = "{seed}"


@dataclass(frozen=True)
class Script:
    """A training script with its arguments, and how a seed reaches it.

    `{seed}` in an argument stands for the seed; `seed_env` names an environment variable that is set to
    it. With neither, bygones seeds the global generators of python, numpy and torch before the script runs.
    `files` are the digests of the script and of the modules of its folder, `versions` those of the
    packages it imports; both are known once it has run. `processes`: of a job; 0 if no launcher starts it.
    """

    path: str
    arguments: tuple[str, ...] = ()
    seed_env: str | None = None
    clock: int = 0
    files: tuple[tuple[str, Digest], ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    processes: int = 0

    def __str__(self) -> str:
        job = [f"torchrun --nproc-per-node {self.processes}"] if self.processes else []
        return " ".join([*job, self.path, *self.arguments])

    @property
    def seeded_by(self) -> str:
        """Say how a seed reaches the script."""
        if any(SEED in argument for argument in self.arguments):
            return "its arguments"
        if self.seed_env:
            return f"the environment variable {self.seed_env}"
        return "the global generators, seeded before it begins"

    def code(self) -> Digest:
        """Compute the digest of the script, its own modules, its arguments and the packages it imports."""
        return script_digest(self.parts(), package_digest(SCRIPTS))

    def parts(self) -> dict[str, Any]:
        """Return the fields by name: what the script's digest is made of, and its path."""
        parts = asdict(self)
        return parts if self.processes else {k: v for k, v in parts.items() if k != "processes"}

    def arguments_for(self, seed: int) -> list[str]:
        return [argument.replace(SEED, str(seed)) for argument in self.arguments]


def check_script(script: Script) -> None:
    """Raise unless the script is a Python file that compiles."""
    name = script.seed_env
    if name is not None and (not name or "=" in name or "\0" in name):
        raise DesignError(
            f"'{name}' is no name of an environment variable (--seed-env): expected one like SEED."
        )
    path = Path(script.path)
    if not path.is_file():
        raise DesignError(f"there is no script '{script.path}'. Expected a Python file after `--`.")
    try:
        compile(path.read_bytes(), str(path), "exec")
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        where = f" (line {line})" if line else ""
        raise ScriptError(f"{script.path} is no Python program{where}: {error}.") from None


def run_script(script: Script, seed: int, home: Path, rank: int = 0) -> None:
    """Run the script as the main program. Raises what it raises.

    `home` is the folder that it was called from: `script.path` is relative to it. `rank`: of this process in
    a job. Ranks have generators of their own; where bygones seeds them, each is seeded otherwise.
    """
    path = (home / script.path).resolve()
    main = ModuleType("__main__")
    main.__dict__.update(__file__=str(path), __builtins__=__builtins__, __cached__=None)
    sys.modules["__main__"] = main
    sys.argv = [script.path, *script.arguments_for(seed)]
    sys.path.insert(0, str(path.parent))
    if script.seed_env is not None:
        os.environ[script.seed_env] = str(seed)
    if script.seeded_by.startswith("the global"):
        seed_everything(seed if rank == 0 else mix(seed, "rank", rank))
    else:
        begin_unseeded(rank)
    exec(compile(path.read_bytes(), str(path), "exec"), vars(main))


def seed_everything(seed: int) -> None:
    """Seed the global generators of python, numpy and torch, as most scripts do first."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def begin_unseeded(rank: int = 0) -> None:
    """Put the global generators of python and numpy where they stay if the script does not seed them.

    A new Python begins them anywhere. Here the seed of string hashes decides, which is the same in every run
    of a store, and another one in a resumed run, as in a Python of its own. Seeds of a study do not decide:
    a script that does not use its seed is still the same run for each.
    """
    drawn = random.Random(
        f"unseeded {os.environ.get(HASH_SEED, '')}" + (f" {rank}" if rank else "")
    )
    random.seed(drawn.getrandbits(64))
    np.random.seed(drawn.getrandbits(32))


def own_files(script: Path) -> tuple[tuple[str, Digest], ...]:
    """Return path and digest of the script and of the modules of its folder that it has imported."""
    folder = script.resolve().parent
    paths = {script.resolve()}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        # Some modules of torch name a file that does not exist, with a relative path.
        if file and file.endswith(".py") and "site-packages" not in file and os.path.isabs(file):
            path = Path(file).resolve()
            if folder in path.parents and not module.__name__.startswith("bygones"):
                paths.add(path)
    return tuple(sorted((str(p.relative_to(folder)), source_digest(p)) for p in paths))
