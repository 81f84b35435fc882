import jax.numpy as jnp
import pytest

from ppvit_jax.errors import UserError
from ppvit_jax.training.log import Evaluation, Log


class _Files:
    def __init__(self):
        self.lines = []

    def log(self, kind, step, **values):
        self.lines.append((kind, step, values))


def _metrics(loss):
    return {"loss": jnp.array(loss), "correct": jnp.array(3.0), "count": jnp.array(4.0)}


@pytest.fixture
def log():
    files = _Files()
    return Log(files, lambda step: 0.1, batch_size=4, epochs=2, total_steps=8)  # pyright: ignore


def test_metrics_are_read_when_the_next_arrive(log):
    log.start(1, {})
    log.step(1, _metrics(2.0))
    assert log._files.lines == []
    log.step(3, _metrics(4.0))
    ((kind, step, values),) = log._files.lines
    assert (kind, step, values["train_loss"], values["train_accuracy"]) == ("step", 1, 0.5, 0.75)
    assert (values["epoch"], values["learning_rate"], values["images_per_second"]) == (0.25, 0.1, None)
    log.pause({})
    assert [line[1] for line in log._files.lines] == [1, 3]
    assert (log.loss, log._files.lines[1][2]["epoch"]) == (1.0, 0.75)
    log.pause({})
    assert len(log._files.lines) == 2


def test_the_rate_counts_training_alone(log, monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    log.start(1, {})
    now += 10
    log.step(3, _metrics(1.0))
    log.pause({})
    # Two steps with four images each after the first step, in ten seconds.
    assert log.rate == pytest.approx(0.8)
    now += 1000
    log.epoch(4, Evaluation(0.5, 0.25, 10, 3))
    assert log._files.lines[-1][0] == "epoch" and log._files.lines[-1][2]["images_per_second"] == log.rate
    log.resume()
    now += 10
    log.step(5, _metrics(1.0))
    log.flush()
    assert log.rate == pytest.approx(0.8)


def test_a_loss_that_is_not_finite_is_named_with_its_step(log):
    log.step(1, _metrics(float("nan")))
    with pytest.raises(UserError, match="the training loss is nan at step 1"):
        log.step(2, _metrics(1.0))
