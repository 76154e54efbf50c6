"""Regimes: small benchmark tasks, each with a recipe and a default study."""

from collections.abc import Callable

import xarray as xr

from bygones.analysis.signature import Signature
from bygones.core.catalogue import Catalogue
from bygones.study.design import Study
from bygones.zoo.regimes import (
    averaging,
    charlm,
    continual,
    contrastive,
    curriculum,
    digits,
    finetune,
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
        "finetune": finetune.study,
        "optimizers": optimizers.study,
    },
)

# What has been published of each, as the outcomes of its default study show it.
SIGNATURES: Catalogue[Callable[[xr.Dataset], tuple[Signature, ...]]] = Catalogue(
    "signature",
    {
        "digits": digits.signatures,
        "mnist1d": mnist1d.signatures,
        "charlm": charlm.signatures,
        "contrastive": contrastive.signatures,
        "mean_teacher": mean_teacher.signatures,
        "averaging": averaging.signatures,
        "continual": continual.signatures,
        "curriculum": curriculum.signatures,
        "replay": replay.signatures,
        "finetune": finetune.signatures,
        "optimizers": optimizers.signatures,
    },
)

__all__ = [
    "REGIMES",
    "SIGNATURES",
    "averaging",
    "charlm",
    "continual",
    "contrastive",
    "curriculum",
    "digits",
    "finetune",
    "mean_teacher",
    "mnist1d",
    "optimizers",
    "replay",
]
