"""The name of a run's model, from its checkpoint."""

from typing import Any

from ppvit_jax import checkpoint, models
from ppvit_jax.errors import UserError

# Values of config.model that stand for the checkpoint's model.
AUTOMATIC = ("", "auto")


def name_model(config: Any) -> str:
    """Returns the name of the model in the configuration's checkpoint, such as "DINOv2-S/14".

    Raises:
      UserError: there is no checkpoint, it cannot be read, or its model has no name.
    """
    if not config.checkpoint:
        raise UserError("config.model=auto takes the model of config.checkpoint, which is empty: name a model")
    path = checkpoint.resolve(config.checkpoint, config.checkpoint_sha256)
    arrays, metadata = checkpoint.open_checkpoint(path)
    arrays, _ = checkpoint.split(arrays)
    shape = models.infer_config(arrays, where=str(path), image_size=metadata.image_size, options=metadata.model_options)
    name = models.model_name(shape)
    if not name:
        raise UserError(
            f"{path} is a {models.family_of(shape).title} of a size without a name, so that config.model=auto cannot "
            "name it: use a model of a published size"
        )
    return name
