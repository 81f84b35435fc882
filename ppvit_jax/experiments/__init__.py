"""Reproductions of the paper's tables and figures, and further experiments."""
