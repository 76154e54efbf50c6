"""Regimes: small benchmark tasks, each with a recipe and a default study."""

from collections.abc import Callable

from bygones.core.catalogue import Catalogue
from bygones.study.design import Study
from bygones.zoo.regimes import charlm, digits, mnist1d

REGIMES: Catalogue[Callable[[], Study]] = Catalogue(
    "regime", {"digits": digits.study, "mnist1d": mnist1d.study, "charlm": charlm.study}
)

__all__ = ["REGIMES", "charlm", "digits", "mnist1d"]
