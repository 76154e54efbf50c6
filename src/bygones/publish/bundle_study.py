"""Bundle a stored study together with its report."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import xarray as xr

from bygones.publish.bundle.write import NOT_STATED, Written, write_bundle
from bygones.publish.report import write_report
from bygones.store import FolderStore
from bygones.store.outcomes import read_manifest, read_outcomes


def bundle_study(
    store: FolderStore,
    out: Path,
    study: str | None = None,
    *,
    license: str = NOT_STATED,
    date: str | None = None,
    with_report: bool = True,
) -> Written:
    """Write a bundle, with the report in it unless `with_report` is False."""
    manifest = read_manifest(store, study)
    extras = _extras(read_outcomes(store, manifest), with_report=with_report)
    return write_bundle(store, out, manifest.facts.study, license=license, date=date, extras=extras)


def _extras(outcomes: xr.Dataset, *, with_report: bool) -> dict[str, bytes]:
    """Return further files for readers, which verification does not need."""
    extras: dict[str, bytes] = {}
    if with_report:
        with TemporaryDirectory(prefix="bygones-report-") as folder:
            extras["report.html"] = write_report(outcomes, folder).read_bytes()
    return extras
