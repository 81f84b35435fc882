"""The same work in PyTorch, with timm's Vision Transformer; no other module imports these two."""

import importlib
import importlib.util
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from benchmarks.timing import Work
from ppvit_jax import models
from ppvit_jax.config import Config
from ppvit_jax.errors import UserError


def device(kind: str) -> torch.device:
    """Returns PyTorch's device of a kind, and sets the precision of float32 products to JAX's there.

    Raises:
      UserError: PyTorch has no such device.
    """
    if kind == "gpu" and torch.cuda.is_available():
        # The step multiplies float32 in float32 there, too: config.matmul_precision is "highest".
        torch.set_float32_matmul_precision("highest")
        return torch.device("cuda")
    if kind != "cpu":
        raise UserError(f"PyTorch has no {kind} here: leave --compare out, or install PyTorch for it")
    return torch.device("cpu")


def describe() -> dict[str, str | int]:
    """Returns the versions of PyTorch and timm, and the number of threads."""
    return {"torch": torch.__version__, "timm": import_timm().__version__, "torch_threads": torch.get_num_threads()}


def synchronize() -> None:
    """Waits until the device has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_device_bytes() -> int | None:
    """Returns the peak memory of tensors on the GPU in bytes; None without a GPU."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


class TrainingStep:
    """One training step as `ppvit_jax.training.step` computes it, from uint8 images on the device.

    It consists of timm's model with scaled_dot_product_attention, cross-entropy, torch.optim.SGD, and sums of the loss
    and of correct predictions. For bfloat16 it uses autocast, and the weights stay float32.
    """

    def __init__(
        self,
        config: models.ViTConfig,
        training: Config,
        batch: tuple[np.ndarray, np.ndarray],
        kind: str,
        *,
        compile_model: bool = False,
    ):
        """Makes a model with random weights.

        Args:
          config: the model's shape.
          training: the run's configuration, of which the fields of SGD, `mean` and `std` are used.
          batch: images, uint8 [batch, height, width, 3], and labels, int [batch].
          kind: the kind of device, "cpu" or "gpu".
          compile_model: True to compile the model by torch.compile.
        """
        images, labels = batch
        self._device = device(kind)
        self._images = torch.from_numpy(images).to(self._device)
        self._labels = torch.from_numpy(labels.astype(np.int64)).to(self._device)
        self._mean = torch.tensor(training.mean, device=self._device)
        self._std = torch.tensor(training.std, device=self._device)
        self._dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.dtype]
        self.model: Any = import_timm().create_model(
            "vit_base_patch16_224",
            pretrained=False,
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.hidden_size,
            depth=config.layers,
            num_heads=config.heads,
            mlp_ratio=config.mlp_size / config.hidden_size,
            num_classes=config.num_classes,
            act_layer="gelu_tanh",
        )
        self.model.to(self._device).train()
        self._forward = torch.compile(self.model) if compile_model else self.model
        sgd = training.optimizer
        self._optimizer = torch.optim.SGD(
            self.model.parameters(), lr=sgd.learning_rate, momentum=sgd.momentum, weight_decay=sgd.weight_decay
        )
        self.loss, self.correct = torch.zeros(2, device=self._device)

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Sets the weights, by timm's names."""
        self.model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in state.items()})

    def weights(self) -> dict[str, np.ndarray]:
        """Returns the weights, by timm's names."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self.model.state_dict().items()}

    def first_seconds(self) -> float:
        """Returns the seconds of the first step, in which `torch.compile` compiles."""
        start = time.perf_counter()
        self.run(1)
        return time.perf_counter() - start

    def run(self, count: int) -> None:
        """Takes `count` steps, and waits for the last."""
        for _ in range(count):
            images = (self._images.to(torch.float32) / 255 - self._mean) / self._std
            with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
                logits = self._forward(images.permute(0, 3, 1, 2))
            loss = torch.nn.functional.cross_entropy(logits.float(), self._labels)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            self.loss = self.loss + loss.detach()
            self.correct = self.correct + (logits.argmax(-1) == self._labels).sum()
        synchronize()


def matrix_product(size: int, dtype: str, kind: str) -> Work:
    """Returns work that multiplies two square matrices of this size."""
    left, right = torch.randn(2, size, size, device=device(kind), dtype=getattr(torch, dtype))

    def run(count: int) -> None:
        for _ in range(count):
            torch.matmul(left, right)
        synchronize()

    return run


def to_device(array: np.ndarray, kind: str) -> torch.Tensor:
    """Returns a copy of an array on the device."""
    return torch.from_numpy(array).to(device(kind))


def encrypt(images: torch.Tensor, block: torch.Tensor, pixel: torch.Tensor, block_size: int) -> torch.Tensor:
    """Scrambles blocks and shuffles pixels as `straightforward.encrypt` does, in PyTorch."""
    count, height, width, channels = images.shape
    rows, columns = height // block_size, width // block_size
    blocks = images.reshape(count, rows, block_size, columns, block_size, channels).permute(0, 1, 3, 2, 4, 5)
    blocks = blocks.reshape(count, rows * columns, block_size * block_size * channels)
    blocks = blocks[:, block][:, :, pixel]
    blocks = blocks.reshape(count, rows, columns, block_size, block_size, channels).permute(0, 1, 3, 2, 4, 5)
    return blocks.reshape(count, height, width, channels)


def import_timm() -> ModuleType:
    """Imports timm, also beside a torchvision that was built for another PyTorch.

    timm's models do not use the compiled operators of torchvision, so it is enough to define their names.
    """
    try:
        return importlib.import_module("timm")
    except RuntimeError as error:
        spec = importlib.util.find_spec("torchvision")
        if "torchvision::" not in str(error) or spec is None or spec.origin is None:
            raise
    source = Path(spec.origin).with_name("_meta_registrations.py").read_text()
    for name in sorted(set(re.findall(r'register_fake\("torchvision::(\w+)"\)', source))):
        torch.library.define(f"torchvision::{name}", "(Tensor x) -> Tensor")
    return importlib.import_module("timm")
