import os
import threading
import time

import pytest

from ppvit_jax.offline.threads import run_in_threads


def test_threads_keep_the_order_and_stay_a_little_ahead():
    started, lock, most = 0, threading.Lock(), 0

    def work(number):
        nonlocal started
        with lock:
            started += 1
        time.sleep(0.002 * (number % 3))
        return number * number

    results = []
    for number, result in run_in_threads(work, range(200)):
        most = max(most, started - number)
        results.append(result)
    assert results == [number * number for number in range(200)]
    assert most <= 4 * (os.cpu_count() or 1) + 1


def test_an_error_in_a_thread_ends_the_work():
    done = []

    def work(number):
        if number == 3:
            raise ValueError("three")
        done.append(number)

    with pytest.raises(ValueError, match="three"):
        list(run_in_threads(work, range(10_000)))
    assert len(done) < 1000
