"""Names of the augmentations in `ppvit_jax.data.preprocess`, for commands that do not import JAX."""

AUGMENTATIONS = ("none", "flip", "crop", "flip+crop", "flip+crop+rand", "random_resized_crop")
