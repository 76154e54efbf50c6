"""Interventions: HOW a source is rewritten at a boundary."""

from bygones.catalogue import Catalogue
from bygones.interventions.base import AbstractIntervention, Boundary
from bygones.interventions.carry import Carry
from bygones.interventions.hold import Hold
from bygones.interventions.kick import Kick
from bygones.interventions.matched_null import MatchedNull
from bygones.interventions.nudge import Nudge
from bygones.interventions.permute import Permute
from bygones.interventions.replace import Replace
from bygones.interventions.reseed import Reseed
from bygones.interventions.reset import Reset
from bygones.interventions.scale import Scale
from bygones.interventions.sham import Sham
from bygones.interventions.swap_windows import SwapWindows
from bygones.interventions.transplant import Transplant

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
        "transplant": Transplant,
        "reseed": Reseed,
        "swap-windows": SwapWindows,
        "replace": Replace,
    },
)

__all__ = [
    "INTERVENTIONS",
    "AbstractIntervention",
    "Boundary",
    "Carry",
    "Sham",
    "Reset",
    "Scale",
    "Nudge",
    "MatchedNull",
    "Kick",
    "Hold",
    "Permute",
    "Transplant",
    "Reseed",
    "SwapWindows",
    "Replace",
]
