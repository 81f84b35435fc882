"""The commands of `python -m ppvit_jax`, one file each: `add_arguments(parser)` and `run(arguments)`."""
