"""A training run that ends after its first step and prints how long its parts took.

It runs `ppvit_jax.main` with a clock around its parts, as python -m benchmarks.first_step STARTED ARGUMENTS. STARTED
is the time of its start, in seconds since the epoch; ARGUMENTS are those of `ppvit_jax.main`.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def main(started: float, arguments: list[str]) -> None:
    """Runs up to the first step, and prints the seconds of its parts as one line of JSON.

    The parts are "import", "data", "checkpoint" (with fitting it to the model) and "compile" (or reading the
    compilation cache); "seconds" is the time of all together.

    Args:
      started: the time at which the process was started, in seconds since the epoch.
      arguments: the arguments of `ppvit_jax.main`.

    Raises:
      UserError: the run cannot start.
    """
    import jax

    from ppvit_jax import checkpoint, data
    from ppvit_jax import main as program
    from ppvit_jax.training.log import Log

    parts = {"import": time.time() - started, "data": 0.0, "checkpoint": 0.0, "compile": 0.0}

    def clocked(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                parts[part] += time.perf_counter() - begin

        return call

    def compiled(event: str, duration_secs: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            parts["compile"] += duration_secs

    def finish(_: Any, __: int, state: Any) -> None:
        jax.block_until_ready(state)
        print(json.dumps({**parts, "seconds": time.time() - started}), flush=True)
        # Otherwise the run would continue.
        os._exit(0)

    jax.monitoring.register_event_duration_secs_listener(compiled)
    for module, name, part in (
        (data, "load", "data"),
        (checkpoint, "open_checkpoint", "checkpoint"),
        (checkpoint, "to_params", "checkpoint"),
    ):
        setattr(module, name, clocked(part, getattr(module, name)))
    # A run calls this method after its first step.
    Log.start = finish  # pyright: ignore[reportAttributeAccessIssue]
    program.main(arguments)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
