"""Arm syntax: parse `NAME=INTERVENTION:SOURCE[@WINDOW]`, and choose default arms."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping

from bygones.core.errors import DesignError
from bygones.core.values import Window
from bygones.study.design import Arm
from bygones.training.interventions import (
    INTERVENTIONS,
    AbstractIntervention,
)
from bygones.training.sources import AbstractSource
from bygones.training.treatment import Treatment

_FORM = (
    "NAME=INTERVENTION:SOURCE[@WINDOW], like drop=reset:moments or half=scale(0.5):moments@100:120"
)
_VERB = re.compile(r"^(?P<verb>[a-z-]+)(?:\((?P<setting>[^()]*)\))?$")
_SOURCE = re.compile(r"^(?P<source>[^@\[\]]+)(?:\[(?P<leaves>.+)\])?(?:@(?P<window>[^@]*))?$")


def parse_arm(text: str, fork_at: int) -> Arm:
    """Parse an arm; several treatments are joined by `+`. Raises `DesignError`.

    The window is `@START` (one boundary) or `@START:STOP` (half-open, in optimizer steps); without one it
    is the fork's boundary. `SOURCE[PATTERN]` treats the leaves that match.

    >>> print(parse_arm("half=scale(0.5):moments[*/exp_avg]@5:7", fork_at=5))
    scaling moments (*/exp_avg) (0.5) over steps 5–6
    """
    name, equals, body = text.partition("=")
    if not equals or not name.strip() or not body:
        raise DesignError(f"'{text}' is no arm. Expected {_FORM}.")
    treatments = [_treatment(part, fork_at, text) for part in _split(body)]
    return Arm(name.strip(), treatments)


def default_arms(sources: Mapping[str, AbstractSource], fork_at: int, horizon: int) -> list[Arm]:
    """Return the arms of a study that names none, for the sources that hold something."""
    return [parse_arm(text, fork_at) for text in spell_default_arms(sources, fork_at, horizon)]


def spell_default_arms(
    sources: Mapping[str, AbstractSource], fork_at: int, horizon: int
) -> list[str]:
    """Return the same arms as they would be typed."""
    arms = []
    for name, source in sources.items():
        resettable = name in ("moments", "batchnorm") or source.origin == "averaging"
        if resettable and "resettable" in source.capabilities and source.capture():
            arms.append(f"reset {name}=reset:{name}")
    half = min(10, horizon // 2)  # steps of each swapped window; both end before the horizon
    if "order" in sources and half:
        window = f"{fork_at}:{fork_at + 2 * half}"
        arms.append(f"swap two {half}-step windows=swap-windows:order@{window}")
    if "order" in sources:
        arms.append("re-draw the order=reseed:order")
    arms.append("re-draw torch's stream=reseed:streams[torch/*]")
    arms.append("nudge weights 1e-3=nudge(1e-3):weights")
    return arms


def _split(text: str) -> list[str]:
    """Split at `+`, but not inside brackets."""
    return re.split(r"\+(?![^\[(]*[\])])", text)


def _treatment(part: str, fork_at: int, whole: str) -> Treatment:
    verb, colon, where = part.strip().partition(":")
    found = _SOURCE.match(where.strip())
    if not colon or found is None:
        raise DesignError(
            f"'{part.strip()}' in the arm '{whole}' is no treatment. Expected {_FORM}."
        )
    window = _window(found["window"], fork_at, whole)
    return Treatment(
        found["source"].strip(), parse_intervention(verb), window, found["leaves"] or "*"
    )


def parse_intervention(text: str) -> AbstractIntervention:
    """Parse an intervention: its name in the catalogue, and its number in brackets if it takes one.

    >>> parse_intervention("scale(0.5)")
    Scale(alpha=0.5)
    """
    found = _VERB.match(text.strip())
    if found is None:
        raise DesignError(
            f"'{text}' is no intervention. Expected a name from `bygones list interventions`, with its "
            f"number in brackets if it takes one, like scale(0.5)."
        )
    kind = INTERVENTIONS[found["verb"]]
    takes = list(inspect.signature(kind).parameters.values())
    needed = [p.name for p in takes if p.default is inspect.Parameter.empty]
    if found["verb"] in ("kick", "replace", "matched-null"):
        raise DesignError(
            f"'{found['verb']}' takes values that cannot be typed here; use it from Python. The matched "
            f"null of each arm is added by itself."
        )
    setting = found["setting"]
    if setting is None:
        if needed:
            raise DesignError(
                f"'{found['verb']}' needs a number for {needed[0]}: write {found['verb']}(0.5), say."
            )
        return kind()
    if not takes:
        raise DesignError(f"'{found['verb']}' takes no number; got '{text}'.")
    try:
        number = int(setting) if takes[0].name == "draw" else float(setting)
    except ValueError:
        raise DesignError(
            f"'{setting}' is no number; '{found['verb']}' takes one for {takes[0].name}."
        ) from None
    made: AbstractIntervention = kind(number)  # type: ignore[call-arg]
    return made


def _window(text: str | None, fork_at: int, whole: str) -> Window:
    if text is None:
        return Window(fork_at, fork_at + 1)
    start, colon, stop = text.partition(":")
    if not start.isdigit() or (colon and not stop.isdigit()):
        raise DesignError(
            f"'@{text}' in the arm '{whole}' is no window. Expected @START or @START:STOP in optimizer "
            f"steps, like @{fork_at} or @{fork_at}:{fork_at + 20}."
        )
    return Window(int(start), int(stop) if colon else int(start) + 1)
