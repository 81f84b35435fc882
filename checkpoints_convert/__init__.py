"""Checkpoints of other programs <-> Google's `.npz` layout: python -m checkpoints_convert.SCRIPT SOURCE TARGET."""
