"""Resume audit of a folder of cases, each with its fault and without: what is named, and first.

    python benchmarks/resume_cases.py FOLDER [WORD…]

A case is a script that loses a piece of memory when it is resumed, and the same without the fault. Prints
a line for each: whether it is right, the exit code, and the sources that fail, first one first. With WORDs,
only the cases whose name has one of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.helpers.commands import Said, ask, start_server, stop_server  # noqa: E402

SEED = ("--seed", "{seed}")


@dataclass(frozen=True)
class Case:
    """A script in its folder, the step of interruption, and how it is resumed.

    `named`: what the names of the lost sources begin with, of the first one first; empty for a script that
    loses nothing. `code`: the exit code, if another than 1 or 0.
    """

    name: str
    script: str
    at: int
    resume: str
    arguments: tuple[str, ...] = SEED
    named: tuple[str, ...] = ()
    code: int | None = None


# What the faults of the numbered cases lose.
LOST = {
    "01_cached_lr": "learner.learning_rate",
    "02_kl_controller": "controller.value",
    "04b_target_net_batched": "target",
    "04c_memory_lost": "memory",
    "05_temperature_float": "policy.temperature",
    "06_master_weights": "weights",
    "07_lr_mask_shift": "moments",
    "08_sched_micro": "scheduler",
    "09_untied_head": "weights",
    "14_ada_strength": "augment.",
    "15_dino_center": "criterion.center",
    "16_skips_everything": "",
    "17_lightning_callback": "trainer",
    "23_env_state": "streams/worlds.dice worlds.",
    "25_stale_rng_file": "streams/torch",
    "29_lazy_average": "average",
    "30_lazy_clip": "usual",
}
NO_STEP = 8  # the exit code where the resumed run takes no step
NOT_IN_THE_LIST = {"04b_target_net_batched": 33, "04c_memory_lost": 33}


def numbered(folder: Path) -> list[Case]:
    """Return the cases of `cases.json`: `fault.py` and `clean.py` in a folder each."""
    known = json.loads((folder / "cases.json").read_text())
    known |= {
        name: {"stop": at, "resume": "--resume last.pt"} for name, at in NOT_IN_THE_LIST.items()
    }
    cases = []
    for name, how in sorted(known.items()):
        if name in LOST:
            stop, resume = how["stop"], how["resume"]
            named, code = tuple(LOST[name].split()), None if LOST[name] else NO_STEP
            cases.append(Case(f"{name} fault", f"{name}/fault.py", stop, resume, SEED, named, code))
            cases.append(Case(f"{name} clean", f"{name}/clean.py", stop, resume))
    return cases


def held() -> list[Case]:
    """Return the cases of `held_state`: state in all the places where people keep it."""
    place = (("{seed}",), SEED)
    scripts = [
        ("hidden_min", place[0], "h"),
        ("lazy_ema", place[0], "ema"),
        ("best_state", place[1], "best"),
        ("list_ema", place[0], "ema."),
        ("list_min", place[0], "past"),
    ]
    cases = []
    for name, seed, named in scripts:
        script = f"held_state/{name}.py"
        cases.append(Case(f"{name} fault", script, 25, "--resume last.pt --fault", seed, (named,)))
        cases.append(Case(f"{name} clean", script, 25, "--resume last.pt", seed))
    return cases


def single() -> list[Case]:
    """Return the minimal cases, and those of the trainer object."""
    last, trainer = "--resume last.pt", "trainer_object/train.py"
    window = (*SEED, "--accumulate", "4", "--save-at", "18")
    return [
        Case("absent", "min/absent.py", 22, last, named=("average.kept",)),
        Case("two_optimizers", "min/two_optimizers.py", 5, last),
        Case("stale_model", "min/stale_model.py", 5, last),
        Case("unbatched", "min/unbatched.py", 5, last),
        Case("trainer clean", trainer, 17, f"{last} --fault none"),
        Case(
            "trainer position", trainer, 17, f"{last} --fault position", named=("trainer.position",)
        ),
        Case(
            "trainer average_count",
            trainer,
            17,
            f"{last} --fault average_count",
            named=("trainer.num_averaged",),
        ),
        Case("trainer in a window", trainer, 5, f"{last} --fault none", window),
    ]


def check(server: subprocess.Popen[str], folder: Path, case: Case) -> bool:
    """Check one case and print its line. Returns whether the answer is right."""
    script = folder / case.script
    asked = (
        "check-resume",
        "--seeds",
        "0",
        "--at",
        case.at,
        f"--resume={case.resume}",
        "--json",
        "--",
    )
    said = ask(server, script.parent, *asked, script.name, *case.arguments)
    failed, detail = failed_sources(said)
    first = failed[0] if failed else ""
    code = (1 if case.named else 0) if case.code is None else case.code
    right = said.code == code and bool(failed) == bool(case.named)
    right = (
        right
        and first.startswith(case.named[:1] or "")
        and all(f.startswith(case.named) for f in failed)
    )
    print(
        f"{'right' if right else 'WRONG'}  {case.name}: exit {said.code}, {failed} {detail}",
        flush=True,
    )
    return right


def failed_sources(said: Said) -> tuple[list[str], str]:
    """Return the sources that fail, first one first; and where comparing begins, with the first reason."""
    if not said.out:
        return [], said.err.strip()[-300:]
    found = json.loads(said.out)
    why = [v["why"] for v in found["verdicts"] if v["outcome"] == "FAIL"][:1]
    return list(found["failed"]), f"from {found['start']}: {' '.join(why)}"


def main() -> None:
    folder, words = Path(sys.argv[1]).resolve(), sys.argv[2:]
    cases = [*single(), *held(), *numbered(folder)]
    cases = [case for case in cases if not words or any(word in case.name for word in words)]
    server = start_server("bygones.audit.resume_check", fixes_hashes=False)
    try:
        right = [check(server, folder, case) for case in cases]
    finally:
        stop_server(server)
    print(f"{sum(right)} of {len(right)} are right")
    sys.exit(0 if all(right) else 1)


if __name__ == "__main__":
    main()
