"""Notes of the converters: one line each on standard error."""

import sys


def note(text: str) -> None:
    """Prints something that was assumed, chosen or left out."""
    print(f"note: {' '.join(text.split())}", file=sys.stderr)


def warn(text: str) -> None:
    """Prints something that makes the converted model differ from its source."""
    print(f"warning: {' '.join(text.split())}", file=sys.stderr)
