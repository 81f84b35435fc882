"""Names of the augmentations that `ppvit_jax.data.preprocess` computes, for commands that do without JAX."""

AUGMENTATIONS = ("none", "flip", "crop", "flip+crop", "flip+crop+rand", "random_resized_crop")
