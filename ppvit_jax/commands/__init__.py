"""Commands of `ppvit`, one file each: `add_arguments(parser)` and `run(arguments)`."""
