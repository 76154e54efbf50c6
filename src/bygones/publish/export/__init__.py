"""Export: a study, a ledger or a resume check as one run of an experiment tracker.

What is exported is described once (`TrackedRun`); each tracker has a file that writes it.
"""

from bygones.core.catalogue import Catalogue
from bygones.publish.export.base import Tracker
from bygones.publish.export.mlflow import MLFLOW
from bygones.publish.export.tensorboard import TENSORBOARD
from bygones.publish.export.wandb import WANDB

TRACKERS: Catalogue[Tracker] = Catalogue(
    "tracker", {one.name: one for one in (MLFLOW, TENSORBOARD, WANDB)}
)

__all__ = ["TRACKERS", "Tracker"]
