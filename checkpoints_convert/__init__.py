"""Scripts that convert checkpoints between Google's `.npz` layout and other programs.

Run one as python -m checkpoints_convert.SCRIPT SOURCE TARGET.
"""
