"""README of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bygones.publish.bundle import layout


def text(study: Mapping[str, Any], about: Mapping[str, Any], extras: Sequence[str]) -> str:
    """Return the text: what the bundle is, and how to check it with and without bygones."""
    seeds, steps = study["seeds"], study["steps"]
    arms = "\n".join(f"- {arm['name']}: {arm['sentence']}" for arm in study["arms"])
    code = about["code"]
    has_code = {
        "": f"not included: {code['why_not']}",
        "bundle": "`code/`, the recipe's own source; `--run-code` runs it",
        "bygones": "`code/`, for reading: the recipe comes with bygones, and `--run-code` runs it from there",
        "nowhere": "`code/`, the script's own source; it is not run again",
    }[code["runs_from"]]
    further = "".join(f"| `{name}` | {_EXTRAS.get(name, 'added by hand')} |\n" for name in extras)
    return f"""# {study["study"]}: what a training run remembers

This is a bundle made by {about["made_with"]}. It holds a study of `{study["recipe"]}`:
{len(study["arms"])} arms over {len(seeds)} seeds (from {seeds[0]} to {seeds[-1]}),
forked at step {study["fork_at"]} and observed at steps {", ".join(map(str, steps))}.

{arms}

Licence: {about["license"]}.

## Checking it by hand

```sh
sha256sum -c manifest-sha256.txt    # every file is what it was
sha256sum manifest-sha256.txt       # the bundle's digest: compare it with the one that was published
```

The first line proves nothing without the second: anyone who changes a file can rewrite the list too.

## Checking it with bygones

```sh
pip install bygones
bygones bundle verify . --digest DIGEST                       # also: ledgers, and effects worked out again
bygones bundle verify . --digest DIGEST --rerun 1 --run-code  # trains one seed again
```

`--run-code` runs the program in `code/` on your machine. Read it first.

## What lies where

| | |
|---|---|
| `{layout.STUDY}` | arms, seeds, steps, and digests of the study and of the recipe |
| `{layout.CONTRACT}` | device, threads and versions under which bits can be expected to agree |
| `{layout.EFFECTS}` | what was found, with intervals and references |
| `{layout.CHECKLIST}.md`, `{layout.CHECKLIST}.json` | what a paper should say of it, as recorded |
| `ledgers/` | for each seed and arm, what was shown and carried at each observed boundary, as a hash chain |
| `objects/` | the outcomes: safetensors files, named by their SHA-256 |
| `{layout.MANIFEST}` | which object holds what |
| code | {has_code} |
| `{layout.CRATE}` | the same for archives (RO-Crate 1.1) |
{further}"""


_EXTRAS = {
    "report.html": "the report, to be opened in a browser",
}
