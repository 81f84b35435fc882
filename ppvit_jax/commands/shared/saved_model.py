"""Models in checkpoints, plain and adapted, as commands of owner and cloud read them: no key is needed, nor loaded."""

import dataclasses
from pathlib import Path

from ppvit_jax import checkpoint, models
from ppvit_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """The content of a checkpoint: parameters, statistics (not permuted by any key), metadata and shape."""

    params: models.Params
    statistics: models.Statistics
    metadata: checkpoint.Metadata
    shape: models.ModelConfig

    def with_params(self, params: models.Params) -> "SavedModel":
        """Returns the model with other parameters."""
        return dataclasses.replace(self, params=params)

    def with_encryption(self, encryption: str) -> "SavedModel":
        """Returns the model with other metadata: it is adapted to this encryption."""
        return dataclasses.replace(self, metadata=dataclasses.replace(self.metadata, encryption=encryption))


def open_model(path: Path, image_size: int | None = None, dtype: str = "") -> SavedModel:
    """Reads any checkpoint whose family can be adapted, with its head if it has one.

    Args:
      path: the file.
      image_size: resize the position embedding to this size of images; None keeps the file's.
      dtype: the compute dtype; "" for float64 if the file has that, and float32 otherwise.

    Raises:
      UserError: a file that cannot be read, a model of another family, or a size that is impossible.
    """
    arrays, metadata = checkpoint.read(path)
    arrays, statistics = checkpoint.split(arrays)
    shape = models.infer_config(
        arrays,
        where=str(path),
        dtype=dtype or ("float64" if any(array.dtype == "float64" for array in arrays.values()) else "float32"),
        image_size=image_size or metadata.image_size,
        options=metadata.model_options,
    )
    if image_size is not None:
        if image_size <= 0 or image_size % shape.patch_size:
            raise UserError(f"--image-size {image_size} is not a multiple of the model's patch size {shape.patch_size}")
        if image_size != shape.image_size and models.family_of(shape).mixing_matrix in arrays:
            raise UserError(
                f"{path} mixes the blocks of images of {shape.image_size}x{shape.image_size} by a matrix, which cannot "
                f"be resized: give --image-size {shape.image_size}"
            )
        shape = dataclasses.replace(shape, image_size=image_size)
    params = checkpoint.to_params(arrays, shape, keep_head=shape.num_classes > 0, where=str(path))
    checkpoint.check_statistics(statistics, models.abstract_statistics(shape), str(path))
    if not shape.num_classes:
        del params[models.family_of(shape).head]
    return SavedModel(params, statistics, metadata, shape)
