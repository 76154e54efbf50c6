"""Resume audit of generated scripts: false alarms, losses caught, and whether the lost piece is named first.

    python benchmarks/resume_fuzz.py [NUMBER OF SCRIPTS] [FIRST]

Each script is checked complete and with one piece of state lost (see `tests/helpers/generated_scripts.py`).
The resumed runs have another seed of string hashes, as from the command line.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.helpers.commands import LARGE_PAGES  # noqa: E402
from tests.helpers.generated_scripts import choose_loss, generate  # noqa: E402

from bygones.attach.isolation.environment import ALONE  # noqa: E402
from bygones.attach.isolation.fork import run_in_fork  # noqa: E402
from bygones.attach.isolation.fresh_interpreter import FreshInterpreter, other_hashes  # noqa: E402
from bygones.attach.isolation.script import Script  # noqa: E402
from bygones.attach.isolation.warmup import warm  # noqa: E402
from bygones.audit.resume_check import audit_resume  # noqa: E402
from bygones.audit.resuming.request import ResumeRequest  # noqa: E402


def main(count: int, first: int) -> None:
    """Print a line for each script that was not judged rightly, and the counts."""
    alarms, caught, named_first = 0, 0, 0
    warm()
    with tempfile.TemporaryDirectory() as folder, other_hashes() as interpreter:
        for number in range(first, first + count):
            recipe, losing = generate(number), choose_loss(number)
            for lost in ("", losing):
                place = Path(folder) / f"{number}{lost}"
                place.mkdir()
                (place / "train.py").write_text(recipe.script(lost))
                failed = check(place, recipe.at, interpreter)
                right = bool(failed) and failed[0].startswith(recipe.pieces.get(lost, ""))
                alarms += bool(failed) and not lost
                caught += bool(failed and lost)
                named_first += right and bool(lost)
                if failed if not lost else not right:
                    words = f"loses {lost}" if lost else "complete"
                    print(f"WRONG {number}, {words}: {failed} {recipe}", flush=True)
    counts = {
        "scripts": count,
        "false alarms": alarms,
        "caught": caught,
        "named first": named_first,
    }
    print(json.dumps(counts))


def check(place: Path, at: int, interpreter: FreshInterpreter | None) -> list[str]:
    """Return the sources that fail, in order; what is raised counts as one."""
    whole = Script("train.py", ("--seed", "{seed}"))
    resumed = Script("train.py", (*whole.arguments, "--resume", "last.pt"))

    def audit() -> list[str]:
        os.chdir(place)
        request = ResumeRequest(whole, resumed, at=at, seeds=(0,))
        return [*audit_resume(request, place, interpreter=interpreter).failed]

    try:
        return run_in_fork(audit)
    except Exception as error:
        return [f"raised {error}"]


def run_alone() -> None:
    """Replace this process by one with the environment in which scripts are forked."""
    if any(os.environ.get(name) != value for name, value in ALONE.items()):
        os.execve(
            sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALONE, **LARGE_PAGES}
        )


if __name__ == "__main__":
    run_alone()
    given = [int(word) for word in sys.argv[1:]]
    main(*(given + [20, 0][len(given) :]))
