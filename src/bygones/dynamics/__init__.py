"""Dynamics: quantities that describe the kind of memory, such as its lifetime."""

from bygones.core.catalogue import Catalogue
from bygones.dynamics.adjoint import AdjointMap, adjoint
from bygones.dynamics.attribution import Attribution, Shares, shapley
from bygones.dynamics.barrier import Barrier, barrier, losses_on_line
from bygones.dynamics.base import AbstractQuantity
from bygones.dynamics.carrier_half_life import CarrierHalfLife
from bygones.dynamics.dose_response import DoseCurve, DoseResponse
from bygones.dynamics.lifetime import half_life
from bygones.dynamics.linear import TangentCertificate, check_tangent
from bygones.dynamics.lyapunov import Lyapunov, lyapunov
from bygones.dynamics.regime_map import RegimeMap, regime_map
from bygones.dynamics.sensitivity import Sensitivity, sensitivity
from bygones.dynamics.superposition import Interactions, Superposition
from bygones.dynamics.tangent import Tangent, tangent
from bygones.dynamics.variance_components import VarianceComponents, variance_components

QUANTITIES: Catalogue[type[AbstractQuantity]] = Catalogue(
    "quantity",
    {
        "attribution": Attribution,
        "carrier-half-life": CarrierHalfLife,
        "dose-response": DoseResponse,
        "superposition": Superposition,
    },
)

__all__ = [
    "QUANTITIES",
    "AbstractQuantity",
    "AdjointMap",
    "Attribution",
    "Barrier",
    "CarrierHalfLife",
    "DoseCurve",
    "DoseResponse",
    "Interactions",
    "Lyapunov",
    "RegimeMap",
    "Sensitivity",
    "Shares",
    "Superposition",
    "Tangent",
    "TangentCertificate",
    "VarianceComponents",
    "adjoint",
    "barrier",
    "check_tangent",
    "half_life",
    "losses_on_line",
    "lyapunov",
    "regime_map",
    "sensitivity",
    "shapley",
    "tangent",
    "variance_components",
]
