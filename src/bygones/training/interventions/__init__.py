"""Interventions: rules that rewrite the state of a source at a boundary."""

from bygones.core.catalogue import Catalogue
from bygones.training.interventions.base import AbstractIntervention, Boundary
from bygones.training.interventions.carry import Carry
from bygones.training.interventions.hold import Hold
from bygones.training.interventions.kick import Kick
from bygones.training.interventions.matched_null import Displacement, MatchedNull
from bygones.training.interventions.nudge import Nudge
from bygones.training.interventions.permute import Permute
from bygones.training.interventions.replace import Replace
from bygones.training.interventions.resample import Resample
from bygones.training.interventions.reseed import Reseed
from bygones.training.interventions.reset import Reset
from bygones.training.interventions.roll import Roll
from bygones.training.interventions.scale import Scale
from bygones.training.interventions.sham import Sham
from bygones.training.interventions.swap_windows import SwapWindows
from bygones.training.interventions.transplant import Transplant

INTERVENTIONS: Catalogue[type[AbstractIntervention]] = Catalogue(
    "intervention",
    {
        "carry": Carry,
        "sham": Sham,
        "reset": Reset,
        "scale": Scale,
        "nudge": Nudge,
        "matched-null": MatchedNull,
        "kick": Kick,
        "hold": Hold,
        "permute": Permute,
        "roll": Roll,
        "transplant": Transplant,
        "reseed": Reseed,
        "resample": Resample,
        "swap-windows": SwapWindows,
        "replace": Replace,
    },
)

__all__ = [
    "INTERVENTIONS",
    "AbstractIntervention",
    "Boundary",
    "Displacement",
    "Carry",
    "Sham",
    "Reset",
    "Scale",
    "Nudge",
    "MatchedNull",
    "Kick",
    "Hold",
    "Permute",
    "Roll",
    "Transplant",
    "Reseed",
    "Resample",
    "SwapWindows",
    "Replace",
]
