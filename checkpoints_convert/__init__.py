"""Scripts that convert checkpoints between Google's `.npz` layout and other programs.

Command:  ppvit convert timm-to-npz SOURCE TARGET   (or python -m checkpoints_convert.timm_to_npz SOURCE TARGET)
"""

# Each of these modules declares its `CONVERTER`.
CONVERTERS = ("timm_to_npz", "npz_to_timm", "hf_to_npz", "npz_to_hf", "big_vision_to_npz", "orbax_to_npz")
