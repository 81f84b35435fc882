import os
from pathlib import Path

# The tests are about arithmetic and files, not about a particular accelerator.
os.environ["JAX_PLATFORMS"] = "cpu"
# Many tests, and the processes that they start, compile the same programs: the first one to do so serves the others.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
