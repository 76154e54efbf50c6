"""Arms of a study: which is the control, which the sham, and which the matched null of which arm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from bygones.core.catalogue import unknown_name
from bygones.core.study_facts import ArmFacts, Role, facts_of


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
        """Return the index of an arm's matched null, None where it has none."""
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
