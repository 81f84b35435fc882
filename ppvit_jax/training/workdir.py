"""Files of a run: configuration, metrics, Orbax checkpoints for resuming, and result."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import jax

from ppvit_jax import checkpoint, models
from ppvit_jax.config import Config
from ppvit_jax.data.manifest import Header
from ppvit_jax.errors import UserError
from ppvit_jax.files import write_json, write_text

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

Tree = TypeVar("Tree")
# Fields that may change when a run is resumed: paths, logging, and the use of devices.
_CHANGEABLE_FIELDS = (
    "key_file",
    "passphrase_file",
    "data.dir",
    "data.on_device",
    "sharding",
    "accumulation",
    "log_steps",
    "tensorboard",
    "eval_batch_size",
    "checkpoint_steps",
)


class MetricsLine(TypedDict):
    """A line of metrics.jsonl, with means over the current epoch; accuracies are from 0 to 1.

    Lines of kind "step" have no `test_...` fields, and lines of kind "epoch" have no `learning_rate`.
    """

    kind: str
    step: int
    epoch: float
    train_loss: float
    train_accuracy: float
    learning_rate: float
    images_per_second: float | None
    test_loss: float
    test_accuracy: float
    test_examples: int


class Result(TypedDict):
    """Content of result.json: losses and accuracies (from 0 to 1) of the last epoch, and settings of the run."""

    dataset: str
    model: str
    checkpoint: str
    image_size: int
    encryption: str
    adapt: bool
    seed: int
    steps: int
    epochs: int
    train_examples: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    test_examples: int
    best_test_accuracy: float
    images_per_second: float | None
    key_fingerprint: str | None
    device: str
    versions: dict[str, str]


class Workdir:
    """Folder of one run. Only process 0 writes to it, apart from Orbax, which needs every process."""

    def __init__(self, path: str | Path, config: Config, metadata: checkpoint.Metadata, images: Header):
        """Opens the folder, or creates it.

        Args:
          path: the folder.
          config: configuration of the run.
          metadata: metadata for `checkpoint.npz`.
          images: encryption and key fingerprint of the training images.

        Raises:
          UserError: the folder holds a run with another configuration or key, or cannot be written.
        """
        import orbax.checkpoint as ocp  # Takes 0.3 s to import, which readers of a workdir need not pay.

        self.path = Path(path).expanduser().absolute()
        self.writes = jax.process_index() == 0
        self._metadata = metadata
        current = {
            "config": json.loads(config.to_json()),
            "encryption": images.encryption,
            "key_fingerprint": images.key_fingerprint,
            "metadata": json.loads(metadata.to_json()),
        }
        file = self.path / "config.json"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            recorded = json.loads(file.read_text()) if file.exists() else None
        except OSError as error:
            raise UserError(f"cannot use the workdir {self.path}: {error.strerror}") from None
        except ValueError:
            raise UserError(f"{file} is damaged: use another workdir") from None
        if recorded is not None and (differences := _differences(recorded, current)):
            raise UserError(
                f"the workdir {self.path} holds a run with another configuration ({'; '.join(differences)}): "
                "use another workdir, or the same configuration to continue that run"
            )
        if self.writes and recorded is None:
            write_json(file, current)
        self._events = _open_events(self.path) if self.writes and config.tensorboard else None
        self._manager = ocp.CheckpointManager(
            self.path / "checkpoints", options=ocp.CheckpointManagerOptions(max_to_keep=1)
        )

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(self, *error: object) -> None:
        # Waits until the latest state is written.
        self._manager.close()

    def result(self) -> Result | None:
        """Returns the result if the run is complete, else None."""
        file = self.path / "result.json"
        return json.loads(file.read_text()) if file.exists() else None

    def restore(self, state: Tree) -> Tree:
        """Returns the latest saved state, or `state` if none was saved; drops metrics that were logged after it.

        Raises:
          UserError: the saved state is damaged.
        """
        import orbax.checkpoint as ocp

        step = self._manager.latest_step()
        if step is not None:
            abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
            with reading_state(self.path / "checkpoints" / str(step), "; remove checkpoints/ to start the run again"):
                restored: Any = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
                state = restored
        file = self.path / "metrics.jsonl"
        if self.writes:
            lines = [line for line in self.history() if line["step"] <= (step or 0)]
            write_text(file, "".join(json.dumps(line) + "\n" for line in lines))
        return state

    def save(self, step: int, state: object) -> None:
        """Saves the state for resuming: copies it, and writes it in the background during training.

        Raises:
          UserError: the disk is too full; the previous state is kept.
        """
        import orbax.checkpoint as ocp

        # Asked beforehand, because Orbax on a full disk fails in many threads at once.
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        if self.writes and (free := shutil.disk_usage(self.path).free) < needed:
            raise UserError(
                f"no room for the state at step {step} in {self.path}: it needs {needed / 2**20:.1f} MiB, and "
                f"{free / 2**20:.1f} MiB are free; free some space, then run the same command again to continue"
            )
        self._manager.save(step, args=ocp.args.StandardSave(state))

    def log(self, kind: str, step: int, **values: float | None) -> None:
        """Appends a line to metrics.jsonl and to TensorBoard; `kind` is "step" or "epoch"."""
        if not self.writes:
            return
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        if self._events is not None:
            for name, value in values.items():
                if name != "epoch" and value is not None:
                    self._events.add_scalar(f"{kind}/{name}", value, step)

    def history(self, kind: str | None = None) -> list[MetricsLine]:
        """Returns the lines of metrics.jsonl; see `read_history`."""
        return read_history(self.path, kind)

    def finish(self, result: Result, params: models.Params) -> None:
        """Writes checkpoint.npz and, last, result.json."""
        self._manager.wait_until_finished()
        if not self.writes:
            return
        if self._events is not None:
            self._events.close()
        checkpoint.write(self.path / "checkpoint.npz", params, self._metadata)
        write_json(self.path / "result.json", result)


def _open_events(path: Path) -> "SummaryWriter":
    # tensorboardX imports PyTorch wherever it is installed, which takes a second that only a run should take.
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(path))


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


def read_history(workdir: Path, kind: str | None = None) -> list[MetricsLine]:
    """Returns the lines of metrics.jsonl of one kind or of all; skips a last line that an interruption cut short."""
    file = workdir / "metrics.jsonl"
    lines = []
    for text in file.read_text().splitlines() if file.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return [line for line in lines if kind in (None, line["kind"])]


def _differences(recorded: dict[str, Any], current: dict[str, Any]) -> list[str]:
    def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
        if not isinstance(tree, dict):
            return {prefix: tree}
        return {
            name: value
            for key, branch in tree.items()
            for name, value in flatten(branch, f"{prefix}.{key}" if prefix else key).items()
        }

    before, now = flatten(recorded), flatten(current)
    return [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
        and name.removeprefix("config.") not in _CHANGEABLE_FIELDS
        # A former version did not record these facts, which follow from the configuration and the images.
        and not (name.startswith("metadata.") and name not in before)
    ]
