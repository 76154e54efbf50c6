"""Arms of a study: which is the control, the sham, the matched null of which."""

from __future__ import annotations

import xarray as xr

from bygones.core.catalogue import unknown_name


class Arms:
    """Who is who among the arms, and where; read off the outcomes' attributes."""

    def __init__(self, outcomes: xr.Dataset) -> None:
        self.arms: list[dict] = outcomes.attrs["arms"]
        self.fork_at = int(outcomes.attrs["fork_at"])
        self.steps: list[int] = outcomes["step"].values.tolist()
        self.names = [arm["name"] for arm in self.arms]
        self.treated = [arm["name"] for arm in self.arms if arm["role"] == "treated"]
        self.control = self.place("control")

    def place(self, name: str) -> int:
        """Where an arm is along the arm dimension; the control and the sham go by role too."""
        for place, arm in enumerate(self.arms):
            if name == arm["name"]:
                return place
        for place, arm in enumerate(self.arms):
            if name == arm["role"] and name in ("control", "sham"):
                return place
        raise unknown_name("arm", name, self.names)

    def place_of_step(self, step: int) -> int:
        if step not in self.steps:
            raise unknown_name("probe step", str(step), map(str, self.steps))
        return self.steps.index(step)

    @property
    def sham(self) -> int | None:
        return next((i for i, arm in enumerate(self.arms) if arm["role"] == "sham"), None)

    def null_is(self, place: int | None) -> str:
        """What a null arm does, in words."""
        said = None if place is None else self.arms[place].get("noun")
        return said or "a random change as large"

    def null_of(self, name: str) -> int | None:
        return next(
            (
                place
                for place, arm in enumerate(self.arms)
                if arm["role"] == "null" and arm["null_of"] == name
            ),
            None,
        )
