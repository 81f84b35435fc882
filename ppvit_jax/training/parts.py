"""Parts in which a training step computes its batch, one after another."""

from ppvit_jax import models

# Float32 attention weights of a layer in one part, in bytes. XLA's estimates for ViT-S, B and L on a TPU v5e are lowest
# near it, presumably because a layer's values then fit the fast memory.
_LARGEST_WEIGHTS = 32e6
# Smallest number of tokens in a part: each part adds its gradients to the others', which takes as long for few tokens.
_FEWEST_TOKENS = 3_000
_FLOAT32 = 4


def count_parts(accumulation: int, model_config: models.ModelConfig, platform: str, images: int) -> int:
    """Returns the number of parts in which a training step computes its batch.

    On a TPU, a Vision Transformer computes a large batch in parts. XLA estimates that the step of ViT-B/16 for 128
    images takes 129 ms in 8 parts on a v5e, and 212 ms in one; nothing was measured on a TPU. Elsewhere the batch stays
    whole.

    Args:
      accumulation: as `config.accumulation`: the number of parts, or 0 to choose one.
      model_config: the model's shape.
      platform: "cpu", "gpu" or "tpu", as `jax.Device.platform` names it.
      images: number of images on each device.

    Returns:
      The number of parts. A number that was chosen divides `images`.
    """
    if accumulation or platform != "tpu" or not isinstance(model_config, models.ViTConfig):
        return accumulation or 1
    tokens = model_config.grid_size**2 + model_config.layout.prefix_tokens
    image_weights = model_config.heads * tokens**2 * _FLOAT32
    fitting = max(int(_LARGEST_WEIGHTS / image_weights), -(-_FEWEST_TOKENS // tokens))
    sizes = [size for size in range(1, images + 1) if images % size == 0]
    # The number of images may have no divisor that is a little smaller.
    return images // max((size for size in sizes if fitting / 2 <= size <= fitting), default=images)
