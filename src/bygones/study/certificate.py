"""Certificates: the result of a fork check, kept in the store."""

from __future__ import annotations

from typing import Any

from bygones.core.digest import digest
from bygones.core.values import Digest
from bygones.study.plan import Plan
from bygones.study.tree import Addresses
from bygones.training.fork_check import check_fork
from bygones.training.run import Run


def certify(planned: Plan) -> dict[str, Any]:
    """The fork check of the study's recipe: from the store if it was passed before, else run now.

    Forks at steps 1 and 7, on both sides of the first epoch's edge, and a little later; a recipe that
    fails is refused.
    """
    study = planned.study
    address = certificate_address(planned.addresses)
    known = planned.store.records(address).get("certificate")
    if known is not None:
        return known
    with planned.contract.in_force():
        device = planned.contract.device
        run = Run(study.recipe, study.seeds[0], device)
        edge = min(run.parts.order.steps_per_epoch, 200)
        at = sorted({1, 7, max(edge - 1, 1), edge, edge + 1})
        certificate = check_fork(
            study.recipe, at=at, until=max(at) + 8, seed=study.seeds[0], device=device
        )
    record = certificate.to_dict()
    planned.store.write_record(address, "certificate", record)
    return record


def certificate_address(addresses: Addresses) -> Digest:
    return digest(["bygones.certificate", 2, addresses.recipe, addresses.contract])
