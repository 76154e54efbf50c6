"""TensorBoard: the one file that imports it. Its own writer is used, which needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bygones.core.errors import StoreError
from bygones.core.extras import import_extra
from bygones.publish.export.base import TrackedRun, Tracker, plain_name


def write_tensorboard(run: TrackedRun, place: str) -> str:
    """Write a run as a folder of TensorBoard: curves as scalars, settings and tags as a text.

    `place`: the folder that `tensorboard --logdir` is given; the run is a folder in it, which must not exist.
    """
    writers: Any = import_extra(
        "tensorboard.summary.writer.event_file_writer", "the export to TensorBoard"
    )
    protos: Any = import_extra("tensorboard.compat.proto.event_pb2", "the export to TensorBoard")
    summaries: Any = import_extra(
        "tensorboard.compat.proto.summary_pb2", "the export to TensorBoard"
    )
    texts: Any = import_extra("tensorboard.plugins.text.summary_v2", "the export to TensorBoard")
    folder = Path(place) / plain_name(run.name).replace("/", "-")
    if folder.exists():
        raise StoreError(
            f"{folder} exists already, and TensorBoard would show both runs as one. Give another place by "
            f"--out, or delete it."
        )
    writer = writers.EventFileWriter(str(folder))
    lines = [f"{key}: {value}" for key, value in {**run.settings, **run.tags}.items()]
    text = texts.text_pb("what it is", "\n\n".join(lines))
    writer.add_event(protos.Event(wall_time=0.0, step=0, summary=text))
    for name, points in run.curves.items():
        for step, value in points:
            one = summaries.Summary(value=[summaries.Summary.Value(tag=name, simple_value=value)])
            writer.add_event(protos.Event(wall_time=float(step), step=step, summary=one))
    writer.close()
    return f"{folder}; look at it with: tensorboard --logdir {place}"


TENSORBOARD = Tracker("tensorboard", "runs", write_tensorboard)
