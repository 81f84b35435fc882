"""Checkpoints of other programs <-> Google's `.npz` layout.

Command:  ppvit convert timm-to-npz SOURCE TARGET   (or python -m checkpoints_convert.timm_to_npz SOURCE TARGET)
"""

# The modules; each declares its `CONVERTER`.
CONVERTERS = ("timm_to_npz", "npz_to_timm", "hf_to_npz", "npz_to_hf", "big_vision_to_npz", "orbax_to_npz")
