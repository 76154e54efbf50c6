"""Describe a run and a study as plain facts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

from bygones.core.study_facts import (
    ArmFacts,
    OrderFacts,
    Redraw,
    SourceFacts,
    StudyFacts,
    TreatmentFacts,
)
from bygones.core.values import State
from bygones.study.design import Arm, HasSources, Study
from bygones.training.probes import AbstractProbe
from bygones.training.treatment import describe_null, null_refusal, redraw_of


def describe_study(
    study: Study, arms: Sequence[Arm], run: HasSources, order: OrderFacts
) -> StudyFacts:
    """Return a study's metadata, as far as its design and one run of it say.

    `order`: the policy by which examples are chosen; what was really seen is added when it is known.
    """
    return StudyFacts(
        arms=tuple(_describe_arm(arm, run) for arm in arms),
        fork_at=study.fork_at,
        study=study.name,
        recipe=str(study.recipe),
        headline=study.headline,
        family=asdict(study.declared),
        margins=dict(study.margins),
        interval="by_skewness",
        sources=tuple(describe_sources(run)),
        orders=order,
        digests={"study": study.digest(), "recipe": study.recipe.code()},
        models=_models(study),
    )


def _models(study: Study) -> tuple[str, ...]:
    """The models that a recipe's probe observes, where there are several."""
    probe = study.probe
    others = tuple(probe.others()) if isinstance(probe, AbstractProbe) else ()
    return (getattr(probe, "of", "model"), *others) if others else ()


def describe_sources(run: HasSources) -> list[SourceFacts]:
    """Return every source in a run: class, visibility, lifetime, leaves and bytes."""
    rows: list[SourceFacts] = []
    for name, source in run.sources.items():
        state = source.capture()
        rows.append(
            SourceFacts(
                name=name,
                origin=source.origin,
                visibility=source.visibility,
                lifetime=str(source.lifetime()),
                leaves=len(state),
                bytes=state_bytes(state),
            )
        )
    return rows


def state_bytes(state: State) -> int:
    """Return the bytes that a state holds; a plain number counts as eight."""
    return sum(int(getattr(leaf, "nbytes", 8)) for leaf in state.values())


def _describe_arm(arm: Arm, run: HasSources) -> ArmFacts:
    treatments: list[TreatmentFacts] = []
    for treatment in arm.treatments:
        lifetime = run.sources[treatment.source].lifetime_of(treatment.leaves)
        treatments.append(
            TreatmentFacts(
                source=treatment.source,
                intervention=str(treatment.intervention),
                window=(treatment.window.start, treatment.window.stop),
                leaves=treatment.leaves,
                lifetime=str(lifetime),
                lifetime_steps=lifetime.steps if math.isfinite(lifetime.steps) else None,
            )
        )
    is_null = arm.role == "null"
    return ArmFacts(
        name=arm.name,
        role=arm.role,
        null_of=arm.null_of,
        noun=" and ".join(describe_null(t) for t in arm.treatments) if is_null else None,
        treatments=tuple(treatments),
        sentence=str(arm),
        redraw=_redraw(arm, run) if arm.role == "treated" else "",
        no_null=_no_null(arm, run) if arm.role == "treated" else "",
    )


def _redraw(arm: Arm, run: HasSources) -> Redraw:
    """What else is a draw of the same law as this arm: only if that holds for each of its treatments."""
    kinds = {redraw_of(t, run.sources[t.source]) for t in arm.treatments}
    if "" in kinds:
        return ""
    return "null" if "null" in kinds else "control"


def _no_null(arm: Arm, run: HasSources) -> str:
    """Why an arm has no matched null; "" if it has one."""
    reasons = (null_refusal(t, run.sources[t.source]) for t in arm.treatments)
    return next((reason for reason in reasons if reason), "")
