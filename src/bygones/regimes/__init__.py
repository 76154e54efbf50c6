"""Regimes: real small studies, each a recipe and a default study."""

from collections.abc import Callable

from bygones.catalogue import Catalogue
from bygones.regimes import digits, mnist1d
from bygones.study import Study

REGIMES: Catalogue[Callable[[], Study]] = Catalogue(
    "regime", {"digits": digits.study, "mnist1d": mnist1d.study}
)

__all__ = ["REGIMES", "digits", "mnist1d"]
