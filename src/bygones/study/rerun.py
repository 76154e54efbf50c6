"""Runs a study again from its written design: a program of its own, which `bygones.publish.bundle` starts.

    python -m bygones.study.rerun question.json answer.json

    question  {"design": …, "roots": [folder of code], "recipe": digest, "seeds": […], "store": folder,
               "lanes": seeds that take their steps together, "device": where, as torch says}
    answer    {"own": digest of the recipe's source, "versions": {package: version}, "study": digest}
              or {"error": sentence}

The seeds are trained into the store, if there is one. The study's digest is that of the design under the
recipe's recorded digest, so it can be compared on a machine with other versions of packages.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bygones.core.code_digest import code_parts
from bygones.core.errors import BygonesError, DesignError
from bygones.core.values import Digest
from bygones.store import FolderStore
from bygones.study.design_json import split_versions, study_from_json
from bygones.study.measure import measure
from bygones.training.devices import check_device


@dataclass(frozen=True)
class _RecordedRecipe:
    """A recipe that is known by its recorded digest alone."""

    digest: Digest

    def code(self) -> Digest:
        return self.digest


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Imports the code, says what it is, and trains what is asked for."""
    sys.path[:0] = question["roots"]
    roots = [Path(root) for root in question["roots"]]
    study = study_from_json(question["design"], roots, question["seeds"])
    own, versions = split_versions(code_parts(study.recipe.load()))
    recorded = replace(study, recipe=_RecordedRecipe(question["recipe"]))
    if question["store"] is not None:
        store, device = FolderStore(question["store"]), _here(question["device"])
        measure(study, store, lanes=question["lanes"], device=device)
    return {"own": own, "versions": versions, "study": recorded.digest()}


def _here(device: str) -> str:
    """The device that the study was trained on, or the CPU where there is no such; the contract tells."""
    try:
        return check_device(device)
    except DesignError:
        return "cpu"


def main() -> None:
    question, place = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        said = answer(json.loads(question.read_text()))
    except BygonesError as error:
        said = {"error": str(error)}
    except Exception as error:
        said = {"error": f"it raised {type(error).__name__}: {error}"}
    place.write_text(json.dumps(said))


if __name__ == "__main__":
    main()
