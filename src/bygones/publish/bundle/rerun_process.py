"""Re-run process: a recipe's code, run in a separate process from a copy, so that a bundle is not changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bygones.core.errors import BundleError
from bygones.publish.bundle.archive import files_of
from bygones.publish.bundle.code_files import check_code_files


def ask(question: Mapping[str, Any], code: Path, design: Mapping[str, Any]) -> dict[str, Any]:
    """Ask `bygones.study.rerun` about a design. This runs the code of the bundle.

    The code is copied into a new folder that holds nothing else, so what is compiled is the source that can
    be read in the bundle. `code`: the folder that the roots of the design's code are relative to. The process
    stays in the folder that this one is in, where a recipe may find its data; but no module is taken from
    there (-P).
    """
    with TemporaryDirectory(prefix="bygones-rerun-") as name:
        here = Path(name).resolve()
        (here / "code").mkdir()
        for path in check_code_files(code, files_of(code)):
            copy = here / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((code / path).read_bytes())
        roots = [str(here / row["root"]) for row in design["code"]]
        (here / "question.json").write_text(
            json.dumps({**question, "design": design, "roots": roots}), encoding="utf-8"
        )
        ran = subprocess.run(
            [
                *(sys.executable, "-P", "-B", "-m", "bygones.study.rerun"),
                *(here / "question.json", here / "answer.json"),
            ],
            stdout=sys.stderr.fileno() if _has_number(sys.stderr) else subprocess.DEVNULL,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
        )
        try:
            answer = json.loads((here / "answer.json").read_text("utf-8"))
        except (OSError, ValueError):
            raise BundleError(
                f"the process that ran the bundle's code ended with status {ran.returncode} and no answer."
            ) from None
    if "error" in answer:
        raise BundleError(
            f"the bundle's code cannot be run as it was: {answer['error'].rstrip('.')}."
        )
    return answer


def _has_number(stream: Any) -> bool:
    try:
        return stream.fileno() >= 0
    except (OSError, ValueError, AttributeError):
        return False
