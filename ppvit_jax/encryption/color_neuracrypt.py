"""Color-NeuraCrypt (Qi, AprilPyone and Kiya, 2023), a reconstruction: only its abstract was at hand."""

import dataclasses

from numpy.typing import ArrayLike

from ppvit_jax.encryption.method import Randomness, Secret
from ppvit_jax.encryption.neuracrypt import RandomEncoder, reference_images
from ppvit_jax.encryption.permutations import Array, check_size, join_blocks


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColorNeuraCrypt(RandomEncoder):
    """A reconstruction of Color-NeuraCrypt, not a reproduction.

    The abstract says that NeuraCrypt loses much accuracy on color images and that extended random networks mend
    it; the accuracy published with ViT-B/16 implies a pre-trained model. All else is inferred: this is NeuraCrypt's
    network (`RandomEncoder`) as wide as a block has values, 768 for blocks of 16, without a patch order, and an
    encoded block takes its block's place as an image that a pre-trained model can be fine-tuned on.

    separate: a network for each color channel, which gives the same channel of the encoding; its arrays are then
      "channel_0/embedding/kernel" and so on in the secret, and "channel_1", "channel_2".
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
        """Encodes images, uint8 [..., height, width, 3], as float32 of that shape; see `Encryption`.

        The features of a patch are the values of its block in (row, column, channel) order. They are not normalized:
        their standard deviation is about 0.6 on photographs, near that of normalized images.

        Raises:
          UserError: images of a size that the secret is not for.
        """
        height, width = images.shape[-3:-1]
        if not self.separate:
            return join_blocks(self._encode(images, secret), height, width, self.block_size)
        channels = [images[..., channel : channel + 1] for channel in range(3)]
        encoded = [self._encode(channel, secret, f"channel_{i}/") for i, channel in enumerate(channels)]
        tokens = images.__array_namespace__().stack(encoded, axis=-1)
        return join_blocks(tokens.reshape(*tokens.shape[:-2], -1), height, width, self.block_size)
