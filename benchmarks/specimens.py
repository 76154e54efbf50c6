"""What a resume check says of each specimen and of its clean twin: writes docs/specimens.md.

    python benchmarks/specimens.py

Every cell comes from `bygones audit resume --json`, run on the scripts in tests/specimens as the tests run
them, in about three minutes on one core.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.helpers.commands import ask, start_server, stop_server  # noqa: E402
from tests.helpers.specimen_checks import SPECIMENS, Setting, Specimen  # noqa: E402

PROSE = """# Known ways to lose memory on resuming

Written by `python benchmarks/specimens.py`, which runs `bygones audit resume` on the scripts in
[`tests/specimens`](../tests/specimens); not edited by hand. Seen on {versions}, one thread.

Each script has one habit, a complete checkpoint, and faults that are chosen by `--fault`. They are
modelled on reports in public trackers. None imports bygones, and no rule of bygones knows any of them: a
check compares what the uninterrupted and the resumed run hold, are shown and become.

- *Named* is everything that the check says is lost; the specimen's own source comes first. Others follow
  from it or from the same fault: a variable that holds the next batch, the learning rate that lies in an
  optimizer.
- *Resumed at* is the boundary from which the two are compared: the resumed run's first step has this number.
- *First loss* is the first step whose training loss is another one if that source alone is lost; "never" is
  said of the whole window.
- *As resumed* is how far the function is from the uninterrupted run's at the end of the window, if that
  source alone is lost; *another seed* is how far the run of another seed is. Total variation, or the root
  mean square where outputs are no classes. Of one seed, so there are no intervals; after a few steps, so the
  numbers are small. The sham is exactly 0 in every row.
- *Clean twin* is the verdict on the same script without the fault.

| script | fault | named | resumed at | first loss | as resumed | another seed | clean twin |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""

CLOSE = """
What to read off it. A lost BatchNorm or averaged model shows in no training loss at all, and its function is
another one all the same. A dict of averaged weights is compared to the bit, but it is no module, so its own
function is not observed. How much state is lost says little of how far the function moves: a step counter
that is set to zero moves it further than the rounding of all moments. The second resume is compared by what
is held; its cost is not measured.
"""


def main() -> None:
    server = start_server("bygones.audit.resume_check")
    clean: dict[Setting, str] = {}
    rows = []
    try:
        for specimen in SPECIMENS:
            setting = specimen.setting
            if setting not in clean:
                failed = checked(server, setting)["failed"]
                clean[setting] = f"fails: {', '.join(failed)}" if failed else "passes"
            rows.append(row(specimen, checked(server, setting, specimen.fault), clean[setting]))
            print(rows[-1], flush=True)
    finally:
        stop_server(server)
    written = PROSE.format(versions=versions()) + "\n".join(rows) + "\n" + CLOSE
    (ROOT / "docs" / "specimens.md").write_text(written)


def checked(server: subprocess.Popen[str], setting: Setting, fault: str = "") -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        said = ask(server, Path(folder), *setting.command(fault))
    if not said.out:
        raise SystemExit(said.err)
    found = json.loads(said.out)
    assert found["floor"] == 0.0
    return found


def row(specimen: Specimen, found: dict[str, Any], clean: str) -> str:
    failed = sorted(found["failed"], key=lambda name: name != specimen.named)
    named = ", ".join(f"`{name}`" for name in failed) if failed else "nothing"
    mine = [v for v in found["verdicts"] if v["source"] == specimen.named]
    first = mine[0]["first_loss"] if mine else None
    costs = [cost for cost in found["costs"] if cost["source"] == specimen.named]
    moved = "; ".join(told(cost, cost["by_seed"][0]) for cost in costs) or "not measured"
    ceilings = [cost["ceiling"] for cost in costs if not cost["module"] and cost["ceiling"]]
    cells = (
        f"`{specimen.setting.script}`",
        specimen.fault,
        named,
        str(found["start"]),
        "not measured" if not costs else "never" if first is None else str(first),
        moved,
        f"{ceilings[0]:.2g}" if ceilings else "",
        clean,
    )
    return f"| {' | '.join(cells)} |"


def told(cost: dict[str, Any], value: float) -> str:
    unit = "" if cost["unit"] == "TV" else f"{cost['unit']} "
    return f"{unit}{value:.2g}" + (f" (`{cost['module']}`)" if cost["module"] else "")


def versions() -> str:
    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}, "
        f"{platform.system()} {platform.machine()}"
    )


if __name__ == "__main__":
    main()
