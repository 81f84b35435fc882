"""What `python -m ppvit_jax benchmark` measures, one module a section; nothing here is needed to train or encrypt."""
