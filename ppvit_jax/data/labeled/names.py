"""Compact lists of names: a million strings would take more memory than all that is known of their images."""

from __future__ import annotations

from array import array


class Names:
    """List of texts that grows, stored as one piece of UTF-8."""

    def __init__(self) -> None:
        self._content = bytearray()
        self._ends = array("q", [0])

    def append(self, text: str) -> None:
        """Adds a text at the end."""
        self._content += text.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._content))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._content[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogateescape")
