"""Regimes: small benchmark tasks, each with a recipe and a default study."""

from collections.abc import Callable

from bygones.core.catalogue import Catalogue
from bygones.study.design import Study
from bygones.zoo.regimes import (
    averaging,
    charlm,
    continual,
    contrastive,
    curriculum,
    digits,
    mean_teacher,
    mnist1d,
    optimizers,
    replay,
)

REGIMES: Catalogue[Callable[[], Study]] = Catalogue(
    "regime",
    {
        "digits": digits.study,
        "mnist1d": mnist1d.study,
        "charlm": charlm.study,
        "contrastive": contrastive.study,
        "mean_teacher": mean_teacher.study,
        "averaging": averaging.study,
        "continual": continual.study,
        "curriculum": curriculum.study,
        "replay": replay.study,
        "optimizers": optimizers.study,
    },
)

__all__ = [
    "REGIMES",
    "averaging",
    "charlm",
    "continual",
    "contrastive",
    "curriculum",
    "digits",
    "mean_teacher",
    "mnist1d",
    "optimizers",
    "replay",
]
