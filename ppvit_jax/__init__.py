"""Fine-tune a Vision Transformer on images that are permuted with a secret key."""

__version__ = "0.1.0"
