import os

# The tests are about arithmetic and files, not about a particular accelerator.
os.environ["JAX_PLATFORMS"] = "cpu"
