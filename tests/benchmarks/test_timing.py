import time

import pytest

from benchmarks.timing import host_work, summarize, take_turns


def test_works_take_turns_in_an_order_that_rotates():
    calls = []

    def work(name):
        def run(count):
            calls.append((name, count))
            time.sleep(0.1)

        return run

    seconds = take_turns({name: work(name) for name in "abc"}, 3, "test")
    # Each has two runs to warm up; then every turn begins with another work.
    assert [name for name, _ in calls] == [*"aabbcc", *"abc", *"bca", *"cab"]
    assert {name: len(turns) for name, turns in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_short_work_is_repeated_within_a_turn_and_told_for_one_run():
    calls = []
    seconds = take_turns({"short": host_work(lambda: calls.append(time.sleep(0.005)))}, 2, "test")
    assert len(calls) > 2 + 2 * 2
    assert all(0.005 <= one < 0.1 for one in seconds["short"])


def test_turns_end_when_their_time_is_over_but_not_before_the_third():
    work = host_work(lambda: time.sleep(0.04))
    assert len(take_turns({"work": work}, 10, "test", limit_seconds=0)["work"]) == 3
    assert len(take_turns({"work": work}, 5, "test", limit_seconds=1000)["work"]) == 5


def test_a_ratio_is_of_the_medians_and_its_spread_of_the_turns():
    # The machine slows down from turn to turn, and the second work always takes twice the first's time.
    rows = summarize({"first": [1.0, 2.0, 5.0], "second": [2.0, 4.0, 10.0]}, "first")
    assert rows["first"]["seconds"] == 2 and rows["first"]["ratio"] == 1
    assert rows["second"]["ratio"] == 2 and rows["second"]["ratio_quartiles"] == (2, 2)
    assert rows["second"]["quartiles"] == pytest.approx((3, 7)) and rows["second"]["range"] == (2, 10)
    assert rows["second"]["turns"] == [2, 4, 10]
