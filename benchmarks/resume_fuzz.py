"""Resume audit of generated scripts: false alarms, losses caught, and whether the lost piece is named first.

    python benchmarks/resume_fuzz.py [NUMBER OF SCRIPTS] [FIRST]

Each script is checked complete and with one piece of state lost (see `tests/helpers/generated_scripts.py`).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.resume_cases import failed_sources  # noqa: E402
from tests.helpers.commands import ask, start_server, stop_server  # noqa: E402
from tests.helpers.generated_scripts import choose_loss, generate  # noqa: E402


def main(count: int, first: int) -> None:
    """Print a line for each script that was not judged rightly, and the counts."""
    alarms, caught, named_first = 0, 0, 0
    server = start_server("bygones.audit.resume_check", fixes_hashes=False)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            recipe, losing = generate(number), choose_loss(number)
            for lost in ("", losing):
                place = Path(folder) / f"{number}{lost}"
                place.mkdir()
                (place / "train.py").write_text(recipe.script(lost))
                asked = (
                    "check-resume",
                    "--seeds",
                    "0",
                    "--at",
                    recipe.at,
                    "--resume=--resume last.pt",
                    "--json",
                )
                said = ask(server, place, *asked, "--", "train.py", "--seed", "{seed}")
                failed, detail = failed_sources(said)
                if not lost:
                    wrong = said.code != 0
                    alarms += wrong
                else:
                    caught += said.code == 1
                    right = bool(failed) and failed[0].startswith(recipe.pieces[lost])
                    named_first += right
                    wrong = said.code != 1 or not right
                if wrong:
                    words = f"loses {lost}" if lost else "complete"
                    print(
                        f"WRONG {number}, {words}: exit {said.code}, {failed} {detail} {recipe}",
                        flush=True,
                    )
    stop_server(server)
    counts = {
        "scripts": count,
        "false alarms": alarms,
        "caught": caught,
        "named first": named_first,
    }
    print(json.dumps(counts))


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*(given + [20, 0][len(given) :]))
