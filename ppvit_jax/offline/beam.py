"""Encryption as an Apache Beam pipeline, for data sets that outgrow one machine.

The pipeline writes the images or shards with the functions of `ppvit_jax.offline.outputs`, which a single machine runs
too. The program that starts it keeps the journal and writes the manifest. Program and workers see the same folders
under the same paths. Workers record their results in the output's folder of unfinished work, from which the command
resumes when it is repeated, with or without a pipeline.

The runner's service receives the graph of a pipeline, and passes its elements on. Both hold paths, options and numbers,
but no key, nothing derived from a key except its fingerprint, and no name of an image. Workers open the key file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import threading
import uuid
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState

from ppvit_jax.data.listing import Images
from ppvit_jax.data.progress import Progress
from ppvit_jax.errors import UserError
from ppvit_jax.files import written_aside
from ppvit_jax.offline.journal import Journal, Record
from ppvit_jax.offline.outputs import list_shards
from ppvit_jax.offline.worker import Task, offsets, open_task, write_list

# DirectRunner is this class, but first tries to download another runner.
_RUNNER_CLASSES = {"DirectRunner": "apache_beam.runners.portability.fn_api_runner.FnApiRunner"}
_ERROR = "error"
_POLL_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class BeamPipeline:
    """Encryption of the images of a task on the workers of a runner.

    Attributes:
      task: description of the work for the workers.
      images: the input.
      runner: the name of one of Beam's runners.
      options: options of Beam, such as "region=europe-west1", without dashes.
    """

    task: Task
    images: Images
    runner: str
    options: Sequence[str] = ()

    def run(self, journal: Journal) -> None:
        """Encrypts the images that the journal lacks, and adds the workers' records to the journal.

        Raises:
          UserError: a worker reported a mistake of the user's, or the pipeline failed.
        """
        task, images = self.task, self.images
        total, unit = (images.count, "images") if task.splits is None else (len(list_shards(images)), "files")
        missing = [number for number in range(journal.done, total) if journal.record(number) is None]
        if not missing:
            return
        error_file = task.unfinished / _ERROR
        error_file.unlink(missing_ok=True)
        chunks = missing if task.splits is not None else write_list(task, images, missing)
        begun = total - len(missing)
        progress = Progress("encrypting", total, unit, begun=begun)
        try:
            pipeline = build(task, chunks, self.runner, self.options)
            with _reporting_progress(task.unfinished, progress, begun):
                state = _finish(pipeline)
        except UserError:
            raise
        # Beam documents no types of exceptions, and each service has its own.
        except Exception as error:
            state = " ".join(str(error).split())[:300] or type(error).__name__
        if error_file.exists():
            message = error_file.read_text("utf-8", "surrogateescape")
            raise UserError(message) if message else KeyboardInterrupt
        if state != PipelineState.DONE:
            raise UserError(f"the pipeline failed ({state}): fix this, then run the same command again to continue")
        journal.take_records(checks=False)
        if lost := sum(journal.record(number) is None for number in missing):
            raise UserError(f"the workers have not finished {lost:,} {unit}: run the same command again to continue")


def build(
    task: Task, chunks: Sequence[tuple[int, int]] | Sequence[int], runner: str, options: Sequence[str]
) -> beam.Pipeline:
    """Builds the pipeline.

    Args:
      task: description of the work.
      chunks: (offset, count) of lines in the list of images, or the numbers of shards.
      runner, options: see `BeamPipeline`.

    Raises:
      UserError: an option has a wrong value.
      Exception: the runner is not installed, or rejects its options; the message is Beam's.
    """
    parsed = PipelineOptions([f"--{option.lstrip('-')}" for option in options])
    usage = io.StringIO()
    try:
        with contextlib.redirect_stderr(usage):
            parsed.get_all_options()
    # In this way argparse ends a program.
    except SystemExit:
        raise UserError(f"--runner-option: {usage.getvalue().splitlines()[-1].partition('error: ')[2]}") from None
    pipeline = beam.Pipeline(runner=_RUNNER_CLASSES.get(runner, runner), options=parsed)
    elements = pipeline | "Chunks" >> beam.Create(chunks)
    if task.splits is None:
        elements = elements | "Lines" >> beam.FlatMap(offsets, task)
    # Without the reshuffle, a runner would do all further work on the machine that made the numbers.
    _ = elements | "Spread" >> beam.Reshuffle() | "Encrypt" >> beam.ParDo(EncryptFn(task))
    return pipeline


class EncryptFn(beam.DoFn):
    """Encrypts images, by the offsets of their lines in the list, or shards, by their numbers."""

    def __init__(self, task: Task):
        self._task = task
        self._records: BinaryIO | None = None
        self._work: Callable[[int], tuple[int, Record]] | None = None

    def setup(self) -> None:
        """Opens the key and the input, on the worker."""
        if not self._task.unfinished.is_dir():
            raise FileNotFoundError(f"a worker has no folder {self._task.output}: mount it on every worker")
        with self._reporting_mistakes():
            self._work = open_task(self._task)

    def process(self, element: int) -> None:
        """Encrypts one image or shard, unless a worker has already reported a mistake of the user's."""
        if self._work is None or (self._task.unfinished / _ERROR).exists():
            return
        with self._reporting_mistakes():
            number, record = self._work(element)
            if self._records is None:
                self._records = (self._task.unfinished / f"{uuid.uuid4().hex}.jsonl").open("wb")
            self._records.write(record.line(number))
            self._records.flush()

    def finish_bundle(self) -> None:
        """Closes the file of records, since some file systems store a file only when it is closed."""
        if self._records is not None:
            self._records.close()
            self._records = None

    @contextlib.contextmanager
    def _reporting_mistakes(self) -> Generator[None]:
        # If this were raised, Beam would try again, and print a traceback. The text of an interrupt is empty.
        try:
            yield
        except (UserError, KeyboardInterrupt) as error:
            with written_aside(self._task.unfinished / _ERROR) as aside:
                aside.write_text(str(error), "utf-8", "surrogateescape")


def _finish(pipeline: beam.Pipeline) -> str:
    result: Any = pipeline.run()
    try:
        return result.wait_until_finish() or result.state
    except KeyboardInterrupt:
        result.cancel()
        raise


@contextlib.contextmanager
def _reporting_progress(unfinished: Path, progress: Progress, begun: int) -> Generator[None]:
    """Reports the number of records while the pipeline runs."""
    sizes: dict[Path, int] = {path: path.stat().st_size for path in unfinished.glob("*.jsonl")}
    ended = threading.Event()

    def watch() -> None:
        done = begun
        while not ended.wait(_POLL_SECONDS):
            for path in unfinished.glob("*.jsonl"):
                with path.open("rb") as file:
                    file.seek(sizes.get(path, 0))
                    new = file.read()
                sizes[path] = sizes.get(path, 0) + len(new)
                done += new.count(b"\n")
            # A cluster takes minutes to start, which say nothing about the rate.
            if done > begun:
                progress.update(done)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        progress.close()
