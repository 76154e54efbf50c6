"""Re-run a study from its written design, as a process that `bygones.publish.bundle` starts.

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
    """Import the code, return its digests, and train the seeds if a store is given."""
    sys.path[:0] = question["roots"]
    roots = [Path(root) for root in question["roots"]]
    study = study_from_json(question["design"], roots, question["seeds"])
    own, versions = split_versions(code_parts(study.recipe.load()))
    recorded = replace(study, recipe=_RecordedRecipe(question["recipe"]))
    if question["store"] is not None:
        store, device = FolderStore(question["store"]), available_device(question["device"])
        measure(study, store, lanes=question["lanes"], device=device, merge=False)
    return {"own": own, "versions": versions, "study": recorded.digest()}


def available_device(device: str) -> str:
    """The recorded device, or the CPU where there is none like it; the contract then differs and says so."""
    try:
        return check_device(device)
    except DesignError:
        return "cpu"


def main() -> None:
    question, place = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        result = answer(json.loads(question.read_text("utf-8")))
    except BygonesError as error:
        result = {"error": str(error)}
    except Exception as error:
        result = {"error": f"it raised {type(error).__name__}: {error}"}
    place.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
