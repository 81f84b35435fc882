"""Configuration files: finding them, and running them with overrides."""

from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from ppvit_jax.errors import UserError
from ppvit_jax.files import local_path


def find_file(name: str) -> Path:
    """Returns a configuration file: the one of this path, or else the one that the package has under this name.

    Args:
      name: a path. "configs/demo.py" also names the package's own file, in any folder.

    Raises:
      UserError: there is neither.
    """
    path = local_path(name)
    if path.is_file():
        return path
    folders = (parent / "configs" for parent in Path(__file__).parents[1:3])
    # In a wheel the configurations lie in the package, in a source tree beside it.
    folder = next((folder for folder in folders if (folder / "cifar10.py").is_file()), None)
    packaged = {f"configs/{file.name}": file for file in sorted(folder.glob("*.py"))} if folder else {}
    if path.as_posix() in packaged:
        return packaged[path.as_posix()]
    raise UserError(f"no configuration file {name}: give a path, or one of {', '.join(packaged)}")


def read_file(path: str, overrides: list[str], required: set[str]) -> Any:
    """Runs a configuration file and applies `--config.name=value` overrides; the values are not checked.

    Args:
      path: see `find_file`; some files take an argument, as in "configs/table2.py:etc_vit".
      overrides: such as "--config.epochs=3".
      required: the fields that a configuration has.

    Returns:
      The ConfigDict.

    Raises:
      UserError: a missing or failing file, an unknown field, a value of the wrong type.
    """
    file, colon, argument = path.partition(":")
    arguments = ["ppvit_jax", f"--config={find_file(file)}{colon}{argument}", *overrides]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
    try:
        rest = values(arguments)
        config = values.config
        # The first access of a field brings out some errors of the file.
        missing = required - set(config)
    # The file is the user's program: anything may go wrong in it.
    except Exception as error:
        # Some messages of ml_collections end in a whole traceback, whose last line says what happened.
        cause = error.args[0] if error.args else None
        # ml_collections wraps the name of an unknown field twice.
        reason = f"there is no field {cause.args[0]}" if isinstance(cause, KeyError) else str(error).strip()
        reason = reason.splitlines()[-1] if "Traceback" in reason else " ".join(reason.split())
        reason = reason.removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
        raise UserError(
            f"cannot use the configuration {path}{' with ' if overrides else ''}{' '.join(overrides)}: {reason}"
        ) from None
    if missing:
        raise UserError(f"the configuration {path} lacks {', '.join(sorted(missing))}: begin it with default_config()")
    if len(rest) > 1:
        raise UserError(f"unknown arguments {' '.join(rest[1:])}: overrides are written --config.epochs=3")
    return config
