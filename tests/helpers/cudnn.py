"""cuDNN on machines without it."""

import pytest


def without_version_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets JAX lower cuDNN's attention on a machine without a GPU, as it does for an H100 with cuDNN 9.10.

    JAX asks the GPU of this machine for its generation and for cuDNN's version, even if it lowers for another one.
    """
    from jax._src.cudnn import fused_attention_stablehlo as fused_attention

    monkeypatch.setattr(fused_attention, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(fused_attention, "check_compute_capability", lambda *_: True)
    monkeypatch.setattr(fused_attention, "is_cuda_compute_capability_equal", lambda *_: False)
