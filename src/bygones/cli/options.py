"""Options and arguments that several commands take, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bygones.cli.command_types import FOR_RECIPES, FOR_SCRIPTS

# ------------------------------------------------------------------ arguments

Target = Annotated[
    list[str],
    typer.Argument(
        metavar="STUDY | -- SCRIPT [ARGUMENTS]",
        help="A built-in regime (see `bygones list regimes`), study.py[:function], "
        "package.module:function, or study.toml.\n"
        "A training script with its arguments, after `--`; {seed} stands for the seed.",
    ),
]
RecipeTarget = Annotated[
    list[str],
    typer.Argument(
        metavar="RECIPE | -- SCRIPT [ARGUMENTS]",
        help="A recipe (file.py:recipe, package.module:recipe), or a study, whose recipe is taken.\n"
        "A training script with its arguments, after `--`; {seed} stands for the seed.",
    ),
]
StudyTarget = Annotated[
    list[str],
    typer.Argument(
        metavar="STUDY",
        help="A built-in regime (see `bygones list regimes`), study.py[:function] or "
        "package.module:function.",
    ),
]
ScriptTarget = Annotated[
    list[str],
    typer.Argument(
        metavar="-- SCRIPT [ARGUMENTS]",
        help="A training script with its arguments, after `--`; {seed} stands for the seed.",
    ),
]
StoredStudy = Annotated[
    str,
    typer.Argument(
        metavar="STORE", help="The folder of a store, or its URL, like s3://bucket/study."
    ),
]

# ------------------------------------------------------------------ for every kind of study

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output.")]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="The seed to train with.")]
Seeds = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Seeds to train with, like 0-31 or 0-3,10 (default: the study's own; for a script, 0-7).",
    ),
]
StorePlace = Annotated[
    str,
    typer.Option(
        metavar="DIR|URL",
        help="Store for the trained segments: a folder or, for a recipe, a URL like s3://bucket/study.",
    ),
]
StudyName = Annotated[
    str | None,
    typer.Option("--study", metavar="NAME", help="The study to take, if the store holds several."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Jobs to run at once, one core and thread each (default: all cores, of this machine or of the "
        "Ray cluster; on a GPU, 1).",
    ),
]

# ------------------------------------------------------------------ for a recipe

Lanes = Annotated[
    str,
    typer.Option(
        metavar="auto|N",
        rich_help_panel=FOR_RECIPES,
        help="Train N seeds together in one batched step; 1: one by one; auto: whatever is fastest.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="cpu|cuda|cuda:N", rich_help_panel=FOR_RECIPES, help="The torch device to train on."
    ),
]
Executor = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=FOR_RECIPES,
        help="Train with serial, processes, ray or slurm (default: ray if --address is given, serial with "
        "one worker, else processes).",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        rich_help_panel=FOR_RECIPES,
        help="Address of a running Ray cluster, like ray://host:10001, or auto.",
    ),
]
NoMerge = Annotated[
    bool,
    typer.Option(
        "--no-merge",
        rich_help_panel=FOR_RECIPES,
        help="Train every arm to its end, also one that equals its control in every bit.",
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", help="Print each effect as a sentence with all its numbers, not as a table."
    ),
]
UntilHalfwidth = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        rich_help_panel=FOR_RECIPES,
        help="Add seeds until each effect's excess over its matched null is known to within ± X.",
    ),
]
MaxSeeds = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=2,
        rich_help_panel=FOR_RECIPES,
        help="The most seeds that --until-halfwidth may use.",
    ),
]
HalfWidth = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        rich_help_panel=FOR_RECIPES,
        help="Also estimate, from the stored seeds, how many are needed for intervals of ± X.",
    ),
]
Siblings = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        rich_help_panel=FOR_RECIPES,
        help="Continuations of every arm from each seed's past, averaged (default: 0, the study's own).",
    ),
]
LaterForks = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        rich_help_panel=FOR_RECIPES,
        help="Further steps at which every arm is forked, like 400,500; the effect is the mean over forks.",
    ),
]
Until = Annotated[
    int | None,
    typer.Option(
        metavar="STEP", min=0, rich_help_panel=FOR_RECIPES, help="Train up to this step (required)."
    ),
]

# ------------------------------------------------------------------ for a script

SeedEnv = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=FOR_SCRIPTS,
        help="Pass the seed in this environment variable. Without it, and without {seed} in the arguments, "
        "the global generators are seeded before the script starts.",
    ),
]
PatienceSeconds = Annotated[
    float,
    typer.Option(
        "--patience",
        metavar="SECONDS",
        min=1.0,
        rich_help_panel=FOR_SCRIPTS,
        help="For a job of several processes: end it if none of them steps or works for so long.",
    ),
]
ForkAt = Annotated[
    int,
    typer.Option(
        metavar="STEP", min=1, rich_help_panel=FOR_SCRIPTS, help="Fork after this optimizer step."
    ),
]
Horizons = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        rich_help_panel=FOR_SCRIPTS,
        help="Steps after the fork at which to observe the function.",
    ),
]
Arms = Annotated[
    list[str] | None,
    typer.Option(
        "--arm",
        metavar="ARM",
        rich_help_panel=FOR_SCRIPTS,
        help="Add an arm NAME=INTERVENTION:SOURCE[@WINDOW], like drop=reset:moments, half=scale(0.5):moments "
        "or swap=swap-windows:order@100:120; repeat for more. Without any, every source that can be reset is "
        "reset, and the order and torch's stream are drawn again.",
    ),
]
Probe = Annotated[
    str | None,
    typer.Option(
        metavar="FILE:FUNCTION",
        rich_help_panel=FOR_SCRIPTS,
        help="Observe this function of the model, which returns an array [inputs, outputs] or (logits, "
        "labels). Without it, the model's outputs on the script's own evaluation batches.",
    ),
]
LeadingMetric = Annotated[
    str,
    typer.Option(
        "--metric",
        metavar="NAME",
        rich_help_panel=FOR_SCRIPTS,
        help="Lead with this distance of `bygones list metrics`, like js (default: tv; rms if outputs are "
        "no classes).",
    ),
]
Observe = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        rich_help_panel=FOR_SCRIPTS,
        help="Lead with this model: an average, a teacher or an EMA in a variable, all of which are observed "
        "beside the trained one (default: the trained one).",
    ),
]
Name = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        rich_help_panel=FOR_SCRIPTS,
        help="Name of the study (default: the script's).",
    ),
]
Margins = Annotated[
    list[str] | None,
    typer.Option(
        "--margin",
        metavar="METRIC=SIZE",
        rich_help_panel=FOR_SCRIPTS,
        help="Declare the equivalence margin of a metric, like accuracy=0.005; repeat for more.",
    ),
]
Replay = Annotated[
    bool,
    typer.Option(
        "--replay",
        rich_help_panel=FOR_SCRIPTS,
        help="Run each arm from the start, even where forking is possible.",
    ),
]
Sufficiency = Annotated[
    bool,
    typer.Option(
        "--sufficiency",
        rich_help_panel=FOR_SCRIPTS,
        help="Also check that the inventory is complete, as `bygones audit inventory` does.",
    ),
]
Optimizer = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        rich_help_panel=FOR_SCRIPTS,
        help="Count the steps of this optimizer, if there are several: 0 is the one that steps first.",
    ),
]

# ------------------------------------------------------------------ files

LedgerOut = Annotated[
    Path, typer.Option(metavar="FILE", help="The ledger to write; the file must not exist.")
]
EveryBoundary = Annotated[
    int, typer.Option("--every", metavar="N", min=1, help="Write an entry every N boundaries.")
]
