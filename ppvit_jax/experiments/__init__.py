"""The paper's tables and figures, and those that go beyond it, measured; one file each."""
