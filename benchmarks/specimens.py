"""Resume audit of each specimen, with its fault and without: writes docs/specimens.md.

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
[`tests/specimens`](../tests/specimens); do not edit it by hand. Measured on {versions}, one thread.

Each script has one particular training loop, a complete checkpoint, and faults that `--fault` selects. The
faults are modelled on reports in public trackers. No script imports bygones, and no rule of bygones is
specific to one of them: an audit compares the state, the batches and the result of the uninterrupted and the
resumed run.

- *Named*: all sources that the audit reports as lost, the source of the fault first. Others follow from it or
  from the same fault: a variable that holds the next batch, the learning rate in an optimizer.
- *Resumed at*: the boundary from which the two runs are compared; the resumed run's first step has this
  number.
- *First loss*: the first step whose training loss differs if that source alone is lost; "never" refers to the
  whole window.
- *As resumed*: the distance between the function and the uninterrupted run's at the end of the window, if
  that source alone is lost. *Another seed*: the distance to the run of another seed. Both are total
  variation, or the root mean square if the outputs are not classes. They are of one seed, so there are no
  intervals, and after a few steps, so they are small. The sham is exactly 0 in every row.
- *Without fault*: the verdict on the same script without the fault.

| script | fault | named | resumed at | first loss | as resumed | another seed | without fault |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""

CLOSE = """
Three observations. The loss of BatchNorm statistics or of an averaged model changes no training loss, but it
does change the function. The amount of lost state says little about how far the function moves: a step
counter that is set to zero moves it further than the rounding of all moments. An average that lies where the
audit does not look is caught by the last checkpoint alone.

The second resume is compared by its state; its cost is not measured.
"""


def main() -> None:
    server = start_server("bygones.audit.resume_check")
    without_fault: dict[Setting, str] = {}
    rows = []
    try:
        for specimen in SPECIMENS:
            setting = specimen.setting
            if setting not in without_fault:
                failed = checked(server, setting)["failed"]
                verdict = f"fails: {', '.join(failed)}" if failed else "passes"
                without_fault[setting] = verdict
            found = checked(server, setting, specimen.fault)
            rows.append(row(specimen, found, without_fault[setting]))
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


def row(specimen: Specimen, found: dict[str, Any], without_fault: str) -> str:
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
        without_fault,
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
