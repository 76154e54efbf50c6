"""Record a recipe's run as a ledger: one hash-chained entry at every few boundaries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bygones.core.errors import DesignError
from bygones.core.text import format_count
from bygones.core.values import Digest
from bygones.store.ledger import Writer
from bygones.training.contract import Contract
from bygones.training.recipe import Recipe
from bygones.training.rng_contract import addressed_contract
from bygones.training.run import Run


@dataclass(frozen=True)
class Recorded:
    """A ledger that was written: its number of entries, the last boundary, and the last line's digest."""

    path: str
    entries: int
    until: int
    root_hash: Digest

    def __str__(self) -> str:
        count = format_count(self.entries, "entry", "entries", separator=",")
        return f"Ledger: {self.path}, {count}, up to boundary {self.until}."


def record(recipe: Recipe, seed: int, until: int, every: int, path: Path) -> Recorded:
    """Train a recipe to a boundary, and write an entry at each `every`-th boundary and at the last one."""
    if until < 0 or every < 1:
        raise DesignError(f"a ledger needs until >= 0 and every >= 1; got {until} and {every}.")
    contract = Contract.here()
    with contract.in_force():
        header = {
            "run": str(recipe),
            "recipe": recipe.code(),
            "seed": seed,
            "every": every,
            "contract": contract.to_dict(),
            "rng": addressed_contract(
                Run(recipe, seed)
            ),  # a run of its own: this one is only watched
        }
        run, count = Run(recipe, seed), 0
        with Writer(path, header) as writer:

            def note(run: Run) -> None:
                nonlocal count
                if run.step % every == 0:
                    writer.add(run.ledger_entry())
                    count += 1

            run.advance(until, at_boundary=note)
            writer.add(run.ledger_entry())
            return Recorded(str(path), count + 1, until, writer.end())
