"""Probes: WHAT is observed of the function."""

from bygones.catalogue import Catalogue
from bygones.probes.base import AbstractProbe
from bygones.probes.carrier import Carrier
from bygones.probes.features import Features
from bygones.probes.logits import Logits
from bygones.probes.values import Values

PROBES: Catalogue[type[AbstractProbe]] = Catalogue(
    "probe", {"logits": Logits, "values": Values, "features": Features, "carrier": Carrier}
)

__all__ = ["PROBES", "AbstractProbe", "Logits", "Values", "Features", "Carrier"]
