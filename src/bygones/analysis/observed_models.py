"""Observed models: outcomes as another of the observed models shows them (an average, a teacher)."""

from __future__ import annotations

import numpy as np
import xarray as xr

from bygones.analysis.arms import Arms
from bygones.analysis.repeats import repeats
from bygones.core.catalogue import unknown_name
from bygones.core.errors import UnknownName
from bygones.core.study_facts import facts_of
from bygones.core.text import format_count


def observing(outcomes: xr.Dataset, model: str) -> xr.Dataset:
    """Return the outcomes with this model's outputs in place of those of the model that leads.

    Everything that is estimated from them is then about this model: effects, references, reports. Raises
    UnknownName where it was not observed.
    """
    models = facts_of(outcomes).models
    if not models:
        raise UnknownName(
            f"this study observed the model that is trained, and no other; there is none called '{model}'. "
            f"Leave the name out."
        )
    if model not in models:
        raise unknown_name("observed model", model, models)
    if model == models[0]:
        return outcomes
    kind = _kind(outcomes)
    swapped = outcomes.copy()
    for again in ("", *(f"@{k}" for k in range(1, len(facts_of(outcomes).repeats)))):
        swapped[f"{kind}{again}"] = outcomes[f"{kind}:{model}{again}"]
        swapped[f"{kind}:{models[0]}{again}"] = outcomes[f"{kind}{again}"]
        swapped = swapped.drop_vars(f"{kind}:{model}{again}")
    others = [name for name in models if name != model]
    return swapped.assign_attrs(models=[model, *others])


def unreached(outcomes: xr.Dataset, arm: str) -> str:
    """Say that a treated arm's outputs are the control's in every bit, at every step; "" where they are not.

    Then the treated sources do not feed the model that is observed, within these steps. Names the other
    observed models that the arm did change.
    """
    arms, kind = Arms.of(outcomes), _kind(outcomes)
    pair = [arms.index(arm), arms.control]
    if arms[arm].role != "treated" or not all(_equal(o[kind], pair) for o in repeats(outcomes)):
        return ""
    models, last = facts_of(outcomes).models, int(outcomes["step"].values[-1])
    changed = [name for name in models[1:] if not _equal(outcomes[f"{kind}:{name}"], pair)]
    observed = f"{models[0]}, which is observed" if models else "the model that is observed"
    horizon = format_count(last - facts_of(outcomes).fork_at, "step")
    said = (
        f"does not reach {observed}: its outputs are the control's in every bit, up to {horizon} on"
    )
    return f"{said}; it changes those of {', '.join(changed)}" if changed else said


def _equal(observed: xr.DataArray, pair: list[int]) -> bool:
    treated, control = (observed.values[:, place] for place in pair)
    return bool(np.isfinite(treated).any() and np.array_equal(treated, control, equal_nan=True))


def _kind(outcomes: xr.Dataset) -> str:
    return "logits" if "logits" in outcomes else "values"
