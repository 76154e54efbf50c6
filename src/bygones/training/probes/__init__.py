"""Probes: observations of a run at a boundary, such as logits, features or a source's state."""

from bygones.core.catalogue import Catalogue
from bygones.training.probes.base import AbstractProbe
from bygones.training.probes.carrier import Carrier
from bygones.training.probes.features import Features
from bygones.training.probes.logits import Logits
from bygones.training.probes.values import Values

PROBES: Catalogue[type[AbstractProbe]] = Catalogue(
    "probe", {"logits": Logits, "values": Values, "features": Features, "carrier": Carrier}
)

__all__ = ["PROBES", "AbstractProbe", "Logits", "Values", "Features", "Carrier"]
