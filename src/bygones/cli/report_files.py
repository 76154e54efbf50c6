"""Report files: the report of a study, or of every study of a store with a page of all."""

from __future__ import annotations

from pathlib import Path

from bygones.cli.resources import list_studies, path_beside, read_result


def write_reports(
    store: str,
    out: Path | None,
    study: str | None,
    observe: str = "",
    *,
    for_print: bool = False,
    title: str = "",
    question: str = "",
) -> None:
    """Write the report of a study, of the store's only one, or of all with a page of them; print its path."""
    from bygones.cli import terminal
    from bygones.publish.report.index_page import report_folder, write_index

    folder = out or path_beside(store, "report")
    names = [study] if study else list_studies(store)
    if len(names) > 1:
        results = {name: read_result(store, name, observe) for name in names}
        for name, result in results.items():
            result.write_report(folder / report_folder(name), for_print=for_print)
        path = write_index([result.outcomes for result in results.values()], folder, store)
    else:
        result = read_result(store, study, observe)
        path = result.write_report(folder, for_print=for_print, title=title, question=question)
    terminal.out.print(f"Report: {path}")
