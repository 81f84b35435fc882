"""Files of a run: configuration, metrics, Orbax checkpoints for resuming, and result; and the lock of their folder."""

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

from ppvit_jax import checkpoint, models
from ppvit_jax.data.lock import lock
from ppvit_jax.errors import UserError, print_note
from ppvit_jax.files import write_json, write_text
from ppvit_jax.training import identity
from ppvit_jax.training.results import MetricsLine, Result, json_line, read_history, read_result
from ppvit_jax.training.tuning import to_save
from ppvit_jax.training.usage import Usage
from ppvit_jax.training.writers import Writers

StateT = TypeVar("StateT", bound=Mapping[str, Any])
# The file that the one process holds that writes to a workdir.
_LOCK = ".lock"


@contextlib.contextmanager
def owned(path: str | Path) -> Iterator[None]:
    """Makes this run the only one in a workdir, until it leaves the context or its process ends.

    Process 0 takes the lock for all processes of the run. A complete run needs no lock.

    Args:
      path: the folder; it is created.

    Raises:
      UserError: another process is training in the folder, or it cannot be written.
    """
    path = Path(path).expanduser().absolute()
    refusal: UserError | None = None
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0 and not (path / "result.json").exists():
            try:
                stack.enter_context(_locked(path))
            except UserError as error:
                refusal = error
        if not agree(refusal is None):
            raise refusal or UserError(f"process 0 cannot use the workdir {path}: its message says why")
        yield


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Locks the folder; at the end removes the lock's file, and the folder if it is new and stayed empty."""
    is_new = not path.exists()
    file = _lock_file(path)
    try:
        yield
    finally:
        # Removed before others can take the lock. Windows cannot remove an open file, and keeps it.
        with contextlib.suppress(OSError):
            (path / _LOCK).unlink()
            if is_new:
                path.rmdir()
        file.close()


def _lock_file(path: Path) -> IO[bytes]:
    """Returns the locked file of a folder, which names this process."""
    while True:
        with using(path):
            path.mkdir(parents=True, exist_ok=True)
            file = (path / _LOCK).open("a+b", buffering=0)
        try:
            file.seek(0)
            owner = file.read(200).decode(errors="replace").strip()
            lock(file, path, f"another process ({owner})" if owner else "another process")
            # A process that ended meanwhile has removed the file.
            if os.fstat(file.fileno()).st_nlink:
                with using(path):
                    file.truncate(0)
                    file.write(f"{os.getpid()} on {socket.gethostname()}\n".encode())
                return file
        except BaseException:
            file.close()
            raise
        file.close()


@contextlib.contextmanager
def using(path: Path) -> Iterator[None]:
    """Converts an OSError in this context into a UserError about the workdir `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot use the workdir {path}: {error.strerror}") from None


def agree(choice: bool) -> bool:
    """Returns the choice of process 0, in every process of the run."""
    if jax.process_count() == 1:
        return choice
    return bool(multihost_utils.broadcast_one_to_all(np.int32(choice)))


class Workdir:
    """Folder of one run. Only process 0 writes to it, apart from Orbax, which needs every process."""

    def __init__(
        self,
        path: str | Path,
        record: identity.Record,
        metadata: checkpoint.Metadata,
        *,
        writers: Writers,
        usage: Usage | None = None,
    ):
        """Opens the folder, or creates it.

        Args:
          path: the folder.
          record: see `ppvit_jax.training.identity.describe_run`.
          metadata: metadata for `checkpoint.npz`.
          writers: writers of the run's progress; they are started unless the run is complete.
          usage: adds time and memory to each line of metrics.jsonl; None for no such fields.

        Raises:
          UserError: the folder holds another run, or cannot be written.
        """
        self.path = Path(path).expanduser().absolute()
        self.writes = jax.process_index() == 0
        self._metadata = metadata
        file = self.path / "config.json"
        with using(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            recorded = _read_record(file)
        if recorded is not None:
            evaluated = bool(self.history("epoch"))
            self._tell(identity.compare(recorded, record, self.path, evaluated=evaluated))
        self.result = read_result(self.path)
        self._writers = Writers()
        self._usage = usage
        self._manager: Any = None
        if self.result is not None:
            return
        if recorded is not None:
            self._tell(identity.changed_versions(recorded, record))
            self._tell(identity.changed_arithmetic(recorded, record, jax.default_backend()))
            record = identity.complete_record(recorded, record)
        if self.writes and record != recorded:
            write_json(file, record)
        if self.writes:
            self._writers = writers
            writers.start(self.path, record["config"])
        import orbax.checkpoint as ocp  # Takes 0.3 s to import, which readers of a workdir need not pay.

        self._manager = ocp.CheckpointManager(
            self.path / "checkpoints", options=ocp.CheckpointManagerOptions(max_to_keep=1)
        )

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(self, *error: object) -> None:
        self._writers.close()
        if self._manager is not None:
            # Waits until the latest state is written.
            self._manager.close()

    def restore(self, state: StateT) -> StateT:
        """Returns the latest saved state, or `state` if none was saved; drops metrics that were logged after it.

        Raises:
          UserError: the saved state is damaged.
        """
        import orbax.checkpoint as ocp

        step = self._manager.latest_step()
        if step is not None:
            abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, to_save(state))
            with reading_state(self.path / "checkpoints" / str(step), "; remove checkpoints/ to start the run again"):
                restored: Any = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
                state = cast(StateT, {**state, **restored})
        file = self.path / "metrics.jsonl"
        if self.writes:
            lines = [line for line in self.history() if line["step"] <= (step or 0)]
            write_text(file, "".join(json_line({**line}) for line in lines))
        if self._usage is not None:
            self._usage.resume(self.history())
        return state

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Saves the state for resuming: copies it, and writes it in the background during training.

        Raises:
          UserError: the disk is too full; the previous state is kept.
        """
        import orbax.checkpoint as ocp

        state = to_save(state)
        # Asked beforehand, because Orbax on a full disk fails in many threads at once.
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        if self.writes and (free := shutil.disk_usage(self.path).free) < needed:
            raise UserError(
                f"no room for the state at step {step} in {self.path}: it needs {needed / 2**20:.1f} MiB, and "
                f"{free / 2**20:.1f} MiB are free; free some space, then run the same command again to continue"
            )
        self._manager.save(step, args=ocp.args.StandardSave(state))

    def log(self, kind: str, step: int, **values: float | None) -> None:
        """Appends a line to metrics.jsonl and passes it to the writers; `kind` is "step" or "epoch"."""
        if not self.writes:
            return
        if self._usage is not None:
            values |= self._usage.measure()
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json_line({"kind": kind, "step": step, **values}))
        self._writers.scalars(kind, step, values)

    @property
    def saved_step(self) -> int:
        """Step of the latest state that is complete on the disk; 0 without any."""
        # A state that is being written has another name.
        names = [folder.name for folder in (self.path / "checkpoints").iterdir()]
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def history(self, kind: str | None = None) -> list[MetricsLine]:
        """Returns the lines of metrics.jsonl; see `read_history`."""
        return read_history(self.path, kind)

    def is_evaluated(self, step: int) -> bool:
        """Returns True if metrics.jsonl has the epoch that ends at a step."""
        return agree(self.writes and any(line["step"] == step for line in self.history("epoch")))

    def _tell(self, note: str) -> None:
        if note and self.writes:
            print_note(note)

    def finish(self, result: Result, params: models.Params) -> None:
        """Writes checkpoint.npz and, last, result.json."""
        self._manager.wait_until_finished()
        if not self.writes:
            return
        checkpoint.write(self.path / "checkpoint.npz", params, self._metadata)
        write_json(self.path / "result.json", result)

    def finish_writers(self, result: Result) -> None:
        """Passes the result and the files about it to the writers; call it when the files are written."""
        self._writers.finish(result)


@contextlib.contextmanager
def reading_state(path: Path, advice: str = "") -> Iterator[None]:
    """Converts any error that Orbax raises in this context into a one-line UserError.

    Args:
      path: folder of the state, for the message.
      advice: end of the message.

    Raises:
      UserError: the files in `path` are damaged.
    """
    try:
        yield
    # Orbax documents no exception type for damaged files.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"cannot read {path} ({reason}): it is damaged, or written by another version of Orbax{advice}"
        ) from None


def _read_record(file: Path) -> identity.Record | None:
    """Returns the content of config.json, or None if there is no such file."""
    if not file.exists():
        return None
    try:
        recorded = json.loads(file.read_text())
    except ValueError:
        recorded = None
    if not identity.is_record(recorded):
        raise UserError(f"{file} is damaged: use another workdir")
    return recorded
