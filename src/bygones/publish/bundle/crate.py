"""RO-Crate: the description of a bundle for archives. The only file that imports rocrate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from bygones.core.errors import DesignError
from bygones.publish.bundle.layout import CRATE, suffix, to_json

_VERSION = "1.1"
_FORMATS = {
    ".json": "application/json",
    ".md": "text/markdown",
    ".html": "text/html",
    ".txt": "text/plain",
}
_SPDX = re.compile(r"[A-Za-z0-9.+-]+")


def crate_json(
    study: dict[str, Any], files: Sequence[str], license: str, date: str, made_with: str
) -> bytes:
    """Return the bytes of ro-crate-metadata.json. `files`: paths in the bundle."""
    try:
        from rocrate.rocrate import ROCrate
    except ImportError:
        raise DesignError(
            "writing a bundle needs the package 'rocrate'. Install it with: pip install 'bygones[bundle]'."
        ) from None
    crate = ROCrate(version=_VERSION)
    crate.root_dataset["datePublished"] = date
    crate.name = f"Training memory of {study['recipe']}: the study '{study['study']}'"
    crate.description = (
        f"What a training run of {study['recipe']} remembers, measured by bygones: {len(study['arms'])} arms "
        f"× {len(study['seeds'])} seeds, forked at step {study['fork_at']}."
    )
    crate.root_dataset["license"] = _license(crate, license)
    crate.root_dataset["identifier"] = study["digests"]["study"]
    for name in files:
        if "/" not in name and name != CRATE:
            kind = {"encodingFormat": _FORMATS[suffix(name)]} if suffix(name) in _FORMATS else {}
            crate.add_file(dest_path=name, properties=kind)
    for folder in sorted({name.partition("/")[0] for name in files if "/" in name}):
        crate.add_dataset(dest_path=f"{folder}/", properties={"name": _FOLDERS.get(folder, folder)})
    crate.add_jsonld({"@id": "#bygones", "@type": "SoftwareApplication", "name": made_with})
    crate.add_jsonld(
        {
            "@id": "#training",
            "@type": "CreateAction",
            "name": f"training of seeds {study['seeds'][0]} to {study['seeds'][-1]} in every arm",
            "instrument": {"@id": "#bygones"},
            "result": [{"@id": "objects/"}, {"@id": "ledgers/"}],
        }
    )
    crate.root_dataset["mentions"] = {"@id": "#training"}
    return to_json(crate.metadata.generate())


_FOLDERS = {
    "objects": "outcomes, as safetensors files that are named by their SHA-256",
    "ledgers": "what was shown and carried in each arm of each seed, as hash chains",
    "code": "the recipe's own source",
}


def _license(crate: Any, license: str) -> Any:
    """Return the address of a licence by its SPDX identifier; any other text as it is."""
    if not _SPDX.fullmatch(license):
        return license
    page = f"https://spdx.org/licenses/{license}"
    crate.add_jsonld({"@id": page, "@type": "CreativeWork", "name": license, "identifier": license})
    return {"@id": page}
