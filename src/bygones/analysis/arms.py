"""Arms of a study: which is the control, which the sham, and which the matched null of which arm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from bygones.core.catalogue import unknown_name
from bygones.core.study_facts import ArmFacts, Role, facts_of

# How far the displacement of a matched null may be from the treated arm's, relatively.
MATCHED_WITHIN = 0.1


class Arms:
    """The roles of a study's arms. An index is a place along the `arm` dimension of the outcomes."""

    def __init__(self, arms: Sequence[ArmFacts]) -> None:
        self.all = tuple(arms)
        self.names = [arm.name for arm in self.all]

    @classmethod
    def of(cls, outcomes: xr.Dataset) -> Arms:
        """Read the arms from outcomes. Raises StoreError where they are not recorded."""
        return cls(facts_of(outcomes).arms)

    def __getitem__(self, name: str) -> ArmFacts:
        """Return the arm of this name; "control" and "sham" also find the arm of that role."""
        return self.all[self.index(name)]

    def with_role(self, role: Role) -> list[ArmFacts]:
        """Return the arms of a role, in their order."""
        return [arm for arm in self.all if arm.role == role]

    @property
    def treated(self) -> list[str]:
        """Names of the treated arms."""
        return [arm.name for arm in self.with_role("treated")]

    @property
    def control(self) -> int:
        """Index of the control. Raises UnknownName where there is none."""
        return self.index("control")

    @property
    def sham(self) -> int | None:
        """Index of the sham, None where there is none."""
        return next((i for i, arm in enumerate(self.all) if arm.role == "sham"), None)

    def index(self, name: str) -> int:
        """Return the index of an arm by its name; "control" and "sham" also find the arm of that role.

        Raises UnknownName.
        """
        if name in self.names:
            return self.names.index(name)
        for index, arm in enumerate(self.all):
            if name == arm.role and name in ("control", "sham"):
                return index
        raise unknown_name("arm", name, self.names)

    def null_of(self, name: str) -> int | None:
        """Return the index of an arm's matched null, None where it has none (`no_null` says why)."""
        null = self._reference_of(name)
        return None if null is None or self.no_null(name) else null

    def no_null(self, name: str) -> str:
        """Return that and why an arm has no matched null, as a clause; "" if it has one.

        A null counts as matched where its displacement of the sources is within 10% of the treated arm's,
        in every seed and at every boundary. The null of a random change is another draw of that change.
        """
        arm, null = self[name], self._reference_of(name)
        if arm.redraw:
            return "it is itself a random change"
        if null is None:
            why = arm.no_null
            return f"there is no matched null, since {why}" if why else "no matched null was run"
        ratio = self.all[null].null_ratio
        if ratio is not None and not (
            1 - MATCHED_WITHIN <= ratio[0] and ratio[1] <= 1 + MATCHED_WITHIN
        ):
            low, high = (f"{end:.3g}" for end in ratio)
            times = low if low == high else f"{low} to {high}"
            return f"its random kick is no matched null: it moved the sources {times} times as far"
        return ""

    def draws(self, name: str) -> list[tuple[int, int]]:
        """Return the pairs of arms, by index, whose differences estimate an arm's effect; all are averaged.

        One pair, the arm and the control. Of an arm that is itself a random change, another draw of it and
        the control too; where the control is a draw of the same law, also the two draws (see `ArmFacts`).
        """
        arm, other = self.index(name), self._reference_of(name)
        pairs = [(arm, self.control)]
        if self.all[arm].redraw and other is not None:
            pairs.append((other, self.control))
            if self.all[arm].redraw == "control":
                pairs.append((arm, other))
        return pairs

    def branches(self) -> list[int]:
        """Return the arms that are draws of one law with the control, itself first: at most one arm's two."""
        alike = (self.draws(arm.name) for arm in self.all if arm.redraw == "control")
        return next(([c, a, b] for (a, c), (b, _), *_ in alike), [self.control])

    def _reference_of(self, name: str) -> int | None:
        """Return the index of the arm that was added to an arm as its null or as another draw of it."""
        nulls = (i for i, arm in enumerate(self.all) if arm.role == "null" and arm.null_of == name)
        return next(nulls, None)

    def describe_null(self, index: int | None) -> str:
        """Return what a null arm does, as a noun."""
        noun = None if index is None else self.all[index].noun
        return noun or "a random change as large"


def step_index(outcomes: xr.Dataset, step: int) -> int:
    """Return the index of a probe step along the `step` dimension. Raises UnknownName."""
    steps: list[int] = outcomes["step"].values.tolist()
    if step not in steps:
        raise unknown_name("probe step", str(step), map(str, steps))
    return steps.index(step)


def values_at(array: xr.DataArray, **labels: str | int) -> np.ndarray:
    """Return the numbers at one label of each named dimension; these dimensions are dropped."""
    chosen = array.sel(labels)  # pyright: ignore[reportUnknownMemberType]  # xarray: bare **kwargs
    return chosen.values
