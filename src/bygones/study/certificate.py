"""Certificates: the record that the arms of a study share the control's past to the bit.

fork check   of a recipe, before anything is trained: a restored run continues as the original did
twins        of a script or a trainer, once all is trained: the sham ended in the control's state
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bygones.core.digest import digest
from bygones.core.values import Digest
from bygones.study.design import Study
from bygones.study.plan import Plan
from bygones.study.tree import Addresses
from bygones.training.fork_check import Certificate, check_fork
from bygones.training.run import Run


def certify(planned: Plan) -> dict[str, Any]:
    """Return the fork check of the study's recipe: stored if it was passed before, else run now.

    Forks at steps 1 and 7, on both sides of the first epoch's end, and a little later. Raises `ForkError`
    where a fork does not continue as the original did.
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


def twins_certificate(
    study: Study, control: Sequence[Digest], sham: Sequence[Digest]
) -> dict[str, Any]:
    """Certify that in every seed the sham ended in the control's state, to the bit.

    `control`, `sham`: the digest of all state at the end, one a seed; "" where it is not known.
    """
    certificate = Certificate((study.fork_at,), study.end, needed=(), inert=())
    passed = len(control) > 0 and all(control) and [*control] == [*sham]
    return {**certificate.to_dict(), "passed": passed, "kind": "twins"}


def certificate_address(addresses: Addresses) -> Digest:
    """The address of a recipe's fork check in the store."""
    return digest(["bygones.certificate", 3, addresses.recipe, addresses.contract])
