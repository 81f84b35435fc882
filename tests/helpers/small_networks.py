"""Small networks with batch statistics: their configurations and initial parameters."""

import functools
from typing import Any

import jax

from ppvit_jax import models
from ppvit_jax.config import Config, check, default_config

NAMES = {"convmixer": "ConvMixer-16/1", "pyramidnet": "PyramidNet-8/12"}


def small_config(kind: str, network: str = "ele", **fields: Any) -> Config:
    """Returns the checked configuration of a run that trains such a network from scratch."""
    config = default_config()
    config.checkpoint = ""
    config.model = NAMES[kind]
    config.model_options.update(
        {"patch_size": 4, "kernel_size": 3, "adaptation_network": network if kind == "pyramidnet" else "none"}
    )
    config.image_size = 16
    config.encryption = "none"
    config.batch_size = 8
    config.eval_batch_size = 4
    config.epochs = 2
    config.log_steps = 1
    config.optimizer.learning_rate = 0.02
    config.tensorboard = False
    config.update(fields)
    return check(config)


@functools.cache
def initial(model_config: models.ModelConfig) -> tuple[models.Params, models.Statistics]:
    """Returns initial parameters and statistics."""
    model = models.build(model_config)
    init = jax.jit(lambda rng: (model.init(rng), model.init_statistics(rng)))
    return jax.device_get(init(jax.random.key(0)))
