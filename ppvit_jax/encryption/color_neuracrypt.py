"""Color-NeuraCrypt (Qi, AprilPyone and Kiya, 2023), reconstructed from its abstract alone."""

import dataclasses

from numpy.typing import ArrayLike

from ppvit_jax.encryption.method import Randomness, Secret
from ppvit_jax.encryption.neuracrypt import RandomEncoder, reference_images
from ppvit_jax.encryption.permutations import Array, check_size, join_blocks


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColorNeuraCrypt(RandomEncoder):
    """A reconstruction of Color-NeuraCrypt, not a reproduction.

    The abstract says that NeuraCrypt loses much accuracy on color images and that extended random networks repair
    this. The accuracy published with ViT-B/16 implies a pre-trained model. We inferred the rest: the network is
    NeuraCrypt's (`RandomEncoder`), its width is the number of values in a block (768 for blocks of 16), and patches
    keep their order. Each encoded block replaces its block, so that the encoding has the shape of an image and a
    pre-trained model can be fine-tuned on it.

    Attributes:
      separate: True encodes each color channel by a network of its own. The secret then holds
        "channel_0/embedding/kernel" and so on, and the same for "channel_1" and "channel_2".
    """

    separate: bool = False
    name = "color-neuracrypt"
    title = "Color-NeuraCrypt (reconstruction)"

    def derive(self, randomness: Randomness, *, height: int, width: int) -> Secret:
        check_size(height, width, self.block_size)
        reference = reference_images(randomness, self.name, height, width)
        values = self.block_size**2
        if not self.separate:
            return self._derive(randomness, reference, 3 * values)
        secret = {}
        for channel in range(3):
            secret |= self._derive(randomness, reference[..., channel : channel + 1], values, f"channel_{channel}/")
        return secret

    def encrypt(self, images: Array, secret: Secret, numbers: ArrayLike | None = None) -> Array:
        """Encodes images, uint8 [..., height, width, 3], as float32 of the same shape; see `Encryption`.

        The features of a patch become the values of its block in (row, column, channel) order. They are not
        normalized: their standard deviation is about 0.6 on photographs, close to that of normalized images.

        Raises:
          UserError: the secret is for another image size.
        """
        height, width = images.shape[-3:-1]
        if not self.separate:
            return join_blocks(self._encode(images, secret), height, width, self.block_size)
        channels = [images[..., channel : channel + 1] for channel in range(3)]
        encoded = [self._encode(channel, secret, f"channel_{i}/") for i, channel in enumerate(channels)]
        tokens = images.__array_namespace__().stack(encoded, axis=-1)
        return join_blocks(tokens.reshape(*tokens.shape[:-2], -1), height, width, self.block_size)
