"""Sources of a job: the memory of all its ranks in one table, what they hold alike and what is each one's.

Every rank runs up to the boundary, and the leaves of its sources are hashed there. DistributedDataParallel
keeps parameters alike, and with them what the optimizer makes of equal gradients. A difference there, or
batches that are the same in every rank, is a finding of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.nn.parallel import DistributedDataParallel

from bygones.attach.isolation.fork import scratch_folder
from bygones.attach.isolation.script import Script
from bygones.attach.job.run import Patience
from bygones.attach.job.watched import run_ranks
from bygones.attach.live_run import Live
from bygones.attach.sources.carried_streams import but_keys
from bygones.core.digest import digest
from bygones.core.text import join_names
from bygones.scripts.pilot import PilotProcess, PilotResult

KEPT_ALIKE = ("weights", "moments", "scheduler")  # by DistributedDataParallel, and what follows
_MOST_LEAVES = 3


@dataclass(frozen=True)
class RankSources:
    """The digest of each leaf that a rank holds, by source, and whether its weights are kept alike."""

    leaves: Mapping[str, Mapping[str, str]]
    keeps_alike: bool


@dataclass(frozen=True)
class JobSources:
    """The sources of a job: a row each, with the ranks that hold it alike; and findings, in sentences."""

    script: Script
    rows: list[dict[str, Any]]
    findings: list[str]


def find_job_sources(
    script: Script, home: Path, seed: int, at: int, patience: Patience | None = None
) -> JobSources:
    """Run every rank of a job to the boundary `at`, and gather the memory that all of them carry.

    Raises `ScriptError` if a rank ends earlier, or dies, or hangs.
    """
    with scratch_folder() as folder:
        script, replies = run_ranks(
            lambda script, number, parent: PilotProcess(
                script, home, seed, folder, parent, at, digest_leaves, None, emulates=True
            ),
            script,
            folder,
            patience=patience,
        )
    ranks: list[PilotResult] = replies
    held: list[RankSources] = [rank.answer for rank in ranks]
    rows: dict[str, dict[str, Any]] = {}
    for rank in ranks:
        for row in rank.sources:
            rows.setdefault(row["name"], row)
    for name, row in rows.items():
        del row["digest"]
        row["ranks"] = describe_ranks(name, [one.leaves.get(name) for one in held])
    if len({tuple(rank.chain) for rank in ranks}) > 1 and "order" in rows:
        rows["order"]["ranks"] = "each rank's own"
    return JobSources(script, list(rows.values()), _findings(ranks, held))


def digest_leaves(live: Live) -> RankSources:
    """Return a digest of every leaf in a rank, streams' keys excepted: they follow from the seed."""
    leaves = {
        name: {leaf: digest({"": value}) for leaf, value in but_keys(source.capture()).items()}
        for name, source in live.sources.items()
    }
    return RankSources(leaves, is_kept_alike(live))


def is_kept_alike(live: Live) -> bool:
    """Test whether the ranks' weights are kept alike: all that is trained is DistributedDataParallel's."""
    modules = list(live.trained.values())
    return bool(modules) and all(isinstance(m, DistributedDataParallel) for m in modules)


def describe_ranks(name: str, held: Sequence[Mapping[str, str] | None]) -> str:
    """Say which ranks hold a source alike: `held` has the digests of its leaves, by rank.

    >>> describe_ranks("weights", [{"w": "1"}, {"w": "1"}]), describe_ranks("s", [{"a": "1"}, {"a": "2"}])
    ('alike', "each rank's own")
    >>> mine, theirs = {"torch/state": "1", "numpy/state": "7"}, {"torch/state": "2", "numpy/state": "7"}
    >>> describe_ranks("streams", [mine, theirs])
    "each rank's own: torch; else alike"
    >>> describe_ranks("weights", [{"w": "1"}, {"w": "1"}, {"w": "2"}])
    'rank 2 differs'
    """
    absent = [str(number) for number, leaves in enumerate(held) if leaves is None]
    if absent:
        return f"not in rank {join_names(absent)}"
    names = list(dict.fromkeys(leaf for leaves in held if leaves for leaf in leaves))
    own = differing_leaves(held)
    odd = odd_ranks(held)
    if not own:
        return "alike"
    if odd and len(held) > 2:
        return f"rank {join_names(odd)} differs"
    if len(own) == len(names):
        return "each rank's own"
    short = [leaf.removesuffix("/state") if name == "streams" else leaf for leaf in own]
    return f"each rank's own: {join_names(short, limit=_MOST_LEAVES)}; else alike"


def differing_leaves(held: Sequence[Mapping[str, str] | None]) -> list[str]:
    """Return the leaves of a source that are not the same in all ranks."""
    names = dict.fromkeys(leaf for leaves in held for leaf in leaves or ())
    return [leaf for leaf in names if len({(leaves or {}).get(leaf) for leaves in held}) > 1]


def odd_ranks(held: Sequence[Mapping[str, str] | None]) -> list[int]:
    """Return the ranks that hold something else than most do; none where there is no majority."""
    keys = [tuple(sorted((leaves or {}).items())) for leaves in held]
    most = max(keys, key=keys.count)
    if 2 * keys.count(most) <= len(keys):
        return []
    return [number for number, key in enumerate(keys) if key != most]


def _findings(ranks: Sequence[PilotResult], held: Sequence[RankSources]) -> list[str]:
    """Return what ought to be alike and is not, and what ought to differ and does not."""
    found = []
    for name in KEPT_ALIKE if all(one.keeps_alike for one in held) else ():
        leaves = [one.leaves.get(name) for one in held]
        differing = differing_leaves(leaves)
        if differing:
            odd = odd_ranks(leaves)
            where = f"rank {join_names(odd)} holds other values" if odd else "the ranks differ"
            found.append(
                f"{name} are not the same in all ranks, although DistributedDataParallel keeps the weights "
                f"alike: {where} in {join_names(differing, limit=_MOST_LEAVES)}."
            )
    chains = [tuple(rank.chain) for rank in ranks]
    if len(set(chains)) == 1 and any(chains[0]):
        found.append(
            "Every rank is shown the same batches, so the job learns from each example once a rank. A "
            "DistributedSampler gives each rank a part of its own."
        )
    return found
