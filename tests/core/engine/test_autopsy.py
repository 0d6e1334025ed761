"""The autopsy of a run: every rule with numbers that can be worked out by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from antmmf.autopsy import MIN_STEPS, RULES, Autopsy, slow_ranks
from antmmf.config.schema import known_keys

CACHE = "build the cache (input_attributes.reader: {type: antmmf-vision:cached})"
SMALLER = "take fewer or smaller frames (sampler, train_transform)"
PAGE = Path(__file__).parents[3] / "docs" / "performance.md"


def autopsy(
    *, workers: int = 2, cores: int = 16, threads: int = 1, is_cached: bool = False, steps: int = 100, **seconds: float
) -> Autopsy:
    return Autopsy(seconds=seconds, steps=steps, num_workers=workers, cores=cores, threads=threads, is_cached=is_cached)


def test_shares_are_of_the_wall_time_which_decoding_is_no_part_of() -> None:
    shares = autopsy(data=1.0, forward=2.0, backward=4.0, saving=1.0, decode=100.0, communication=0.0).shares()
    assert shares == {"data": 0.125, "forward": 0.25, "backward": 0.5, "saving": 0.125}


def test_a_run_without_steps_has_nothing_to_say() -> None:
    empty = autopsy(steps=0)
    assert (empty.shares(), empty.numbers(), empty.verdict(), empty.findings()) == ({}, "", "", [])


def test_the_numbers_tell_a_step_without_what_happens_between_steps() -> None:
    said = autopsy(
        steps=2000, data=5.0, forward=95.0, backward=300.0, evaluation=98.0, saving=2.0, decode=9.0
    ).numbers()
    assert said == "2,000 steps of 200 ms: data 1 %, forward 19 %, backward 60 %, evaluation 20 %"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.0123456, "12.3 ms"), (0.00042, "0.42 ms"), (0.2, "200 ms"), (12.3456, "12,346 ms")]
)
def test_a_step_is_told_in_milliseconds(seconds: float, said: str) -> None:
    assert autopsy(steps=2, forward=2 * seconds).numbers() == f"2 steps of {said}: forward 100 %"


def test_a_few_steps_are_not_judged() -> None:
    assert autopsy(steps=MIN_STEPS - 1, data=61.0, forward=39.0).verdict() == ""
    assert autopsy(steps=MIN_STEPS, data=61.0, forward=39.0, decode=200.0).verdict() != ""


def test_a_run_that_computes_is_compute_bound() -> None:
    seconds = {"forward": 31.0, "backward": 63.0, "optimizer": 4.0, "data": 2.0}
    assert autopsy(**seconds).verdict() == "94 % forward and backward: compute-bound"


def test_many_small_parts_are_not_called_compute_bound() -> None:
    seconds = {"forward": 22.0, "backward": 30.0, "optimizer": 19.0, "communication": 19.0, "data": 10.0}
    assert autopsy(**seconds).verdict() == "52 % forward and backward: no other part stands out"


def test_busy_workers_that_are_too_few_are_told_how_many_are_enough() -> None:
    # 2 workers decode 195 of 2 * 100 seconds; the rest of a step takes 39: 195 / 39 = 5 keep up with it
    said = autopsy(workers=2, data=61.0, forward=13.0, backward=26.0, decode=195.0).verdict()
    assert said == f"61 % waiting for decoding: raise training_parameters.num_workers from 2 to 5 or {CACHE}"


def test_the_number_of_workers_is_rounded_up() -> None:
    said = autopsy(workers=2, data=61.0, forward=13.0, backward=26.0, decode=196.0).verdict()
    assert "from 2 to 6 or" in said  # 5.03


def test_what_happens_between_steps_is_no_time_to_decode_in() -> None:
    # busy 75 of 100 seconds of training, not of 200 seconds of the run
    seconds = {"data": 60.0, "forward": 40.0, "evaluation": 60.0, "saving": 2.0, "start": 38.0, "decode": 75.0}
    assert "from 1 to 2 or" in autopsy(workers=1, **seconds).findings()[0]  # 75 / 40 = 1.9


def test_one_worker_more_is_the_least_advice() -> None:
    said = autopsy(workers=4, data=15.0, forward=85.0, decode=4 * 75.0).verdict()
    assert "from 4 to 5 or" in said  # 300 / 85 = 3.5, which are there already


def test_without_workers_the_wait_is_the_decoding() -> None:
    said = autopsy(workers=0, data=75.0, forward=10.0, backward=15.0).verdict()
    assert said == f"75 % waiting for decoding: raise training_parameters.num_workers from 0 to 3 or {CACHE}"


def test_advice_ends_where_the_cores_do() -> None:
    said = autopsy(workers=2, cores=4, data=80.0, forward=20.0, decode=200.0).verdict()  # 10 would be needed
    assert said == (
        "80 % waiting for decoding: raise training_parameters.num_workers from 2 to 3, all that 4 cores have room for, "
        f"and {CACHE}"
    )


def test_cores_that_compute_have_no_room_for_workers() -> None:
    said = autopsy(workers=1, cores=8, threads=7, data=80.0, forward=20.0, decode=95.0).verdict()
    assert said == f"80 % waiting for decoding, and 8 cores have no room for more workers: {CACHE}"


def test_one_worker_is_advised_even_where_all_cores_compute() -> None:
    said = autopsy(workers=0, cores=2, threads=2, data=30.0, forward=70.0).verdict()
    assert "from 0 to 1 or" in said


def test_a_cache_that_is_there_is_not_advised() -> None:
    full = autopsy(workers=3, cores=4, is_cached=True, data=80.0, forward=20.0, decode=290.0).verdict()
    room = autopsy(workers=2, cores=16, is_cached=True, data=61.0, forward=39.0, decode=195.0).verdict()
    assert full.endswith(f"no room for more workers: {SMALLER}")
    assert room.endswith(f"from 2 to 5 or {SMALLER}")


def test_waiting_for_idle_workers_is_not_called_decoding() -> None:
    said = autopsy(workers=4, data=30.0, forward=70.0, decode=48.0).verdict()
    assert said == (
        "30 % waiting for data, though the workers decode only 12 % of the time: batches come unevenly or are slow to "
        f"hand over; {SMALLER}"
    )


@pytest.mark.parametrize(("decode", "without"), [(29.9, True), (30.0, False)])
def test_workers_that_cost_more_than_they_save_are_better_left_out(decode: float, without: bool) -> None:
    said = autopsy(workers=2, data=30.0, forward=70.0, decode=decode).verdict()
    assert said.startswith("30 % waiting for data, though the workers decode only 15 % of the time: ")
    assert (
        said.endswith("set training_parameters.num_workers 0, reading takes less time than waiting for it") is without
    )


@pytest.mark.parametrize(("decode", "is_decoding"), [(139.0, False), (140.0, True)])
def test_workers_are_busy_from_seventy_percent_on(decode: float, is_decoding: bool) -> None:
    said = autopsy(workers=2, data=30.0, forward=70.0, decode=decode).verdict()
    assert ("waiting for decoding" in said) is is_decoding


@pytest.mark.parametrize(
    ("part", "limit", "advice"),
    [
        ("data", 10, "waiting for decoding: raise training_parameters.num_workers"),
        ("communication", 20, "communicating: raise training_parameters.batch_size or use a faster link"),
        ("to_device", 10, f"copying batches to the device: {SMALLER}"),
        ("optimizer", 20, "in the optimizer: raise training_parameters.batch_size or freeze"),
        ("evaluation", 20, "evaluating: raise training_parameters.evaluation_interval"),
        ("saving", 2, "saving: raise training_parameters.snapshot_interval and leave async_save true"),
        ("start", 20, "waiting for the first batch: a longer run pays for it once"),
    ],
)
def test_each_part_has_a_limit(part: str, limit: int, advice: str) -> None:
    at_most = autopsy(workers=0, **{part: float(limit), "forward": 100.0 - limit})
    above = autopsy(workers=0, **{part: limit + 1.0, "forward": 99.0 - limit})
    assert at_most.findings() == []
    assert [said.startswith(f"{limit + 1} % {advice}") for said in above.findings()] == [True]
    assert above.verdict() == above.findings()[0]


def test_findings_begin_with_the_largest_share() -> None:
    found = autopsy(workers=0, saving=5.0, data=40.0, evaluation=25.0, forward=30.0).findings()
    assert [said.split(" %")[0] for said in found] == ["40", "25", "5"]


def test_the_keys_that_it_advises_exist() -> None:
    text = " ".join(
        said
        for cores in (2, 16)
        for said in autopsy(
            workers=1, cores=cores, decode=300.0, **dict.fromkeys(("data", "communication", "to_device"), 30.0)
        ).findings()
        + autopsy(workers=1, **dict.fromkeys(("optimizer", "evaluation", "saving"), 30.0)).findings()
    )
    named = set(re.findall(r"\w+_(?:parameters|attributes)\.\w+", text))
    assert len(named) >= 5
    assert named <= set(known_keys())
    assert {f"training_parameters.{name}" for name in ("test_batch_size", "async_save")} <= set(known_keys())


def test_the_page_about_it_has_a_row_for_every_rule() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\d+) % \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(rows) == {part: f"{100 * limit:.0f}" for part, (limit, _) in RULES.items()}


def test_the_example_on_the_page_is_what_a_run_says() -> None:
    seconds = {"data": 256.0, "to_device": 4.0, "forward": 48.0, "backward": 84.0, "optimizer": 20.0, "saving": 8.0}
    made = autopsy(steps=1000, workers=2, decode=811.0, **seconds)
    page = PAGE.read_text(encoding="utf-8")
    assert f"{made.numbers()}\n{made.verdict()}\n" in page
    assert "811 / (412 - 256)" in page
    assert made.verdict().startswith("61 % waiting for decoding: raise training_parameters.num_workers from 2 to 6 or")


# --- slow ranks -------------------------------------------------------------------------------------------------------


def rank(data: float, forward: float = 0.1, **others: float) -> dict[str, float]:
    return {"data": data, "to_device": 0.009, "forward": forward, **others}


def test_a_slow_rank_is_named_with_its_host_and_what_it_is_slow_in() -> None:
    fast, slow = rank(0.12, backward=0.5), rank(0.303, backward=0.3)  # 229 ms and 412 ms before the backward pass
    said = slow_ranks([fast, fast, fast, slow], ["node6", "node6", "node7", "node7"])
    assert said == ("rank 3 on node7 is 1.8 times as slow as the median (412 ms against 229 ms a step), mostly data")


def test_of_two_ranks_the_slower_one_is_named() -> None:
    said = slow_ranks([rank(0.0, forward=0.4), rank(0.0)], ["a", "b"])
    assert said is not None
    assert said.startswith("rank 0 on a is 3.8 times as slow")  # 409 / 109
    assert said.endswith("mostly forward")


def test_several_slow_ranks_are_counted() -> None:
    said = slow_ranks([rank(0.1), rank(0.1), rank(0.1), rank(0.2), rank(0.3)], list("abcde"))
    assert said is not None
    assert said.startswith("rank 4 on e")
    assert said.endswith("mostly data; and 1 more")


@pytest.mark.parametrize(("data", "is_slow"), [(0.2 * 1.3, False), (0.2 * 1.31, True)])
def test_a_rank_is_slow_above_thirteen_tenths_of_the_median(data: float, is_slow: bool) -> None:
    found = slow_ranks([{"data": 0.2}, {"data": 0.2}, {"data": data}], list("abc"))
    assert (found is not None) is is_slow


def test_waiting_for_others_does_not_make_a_rank_slow() -> None:
    waiting = rank(0.1, backward=0.9, communication=0.9, decode=50.0)
    assert slow_ranks([rank(0.1, backward=0.2), waiting], ["a", "b"]) is None


def test_a_difference_that_the_step_does_not_feel_is_not_told() -> None:
    # 2 ms against 1 ms, in a step of 1 s
    assert slow_ranks([{"data": 0.001, "backward": 1.0}, {"data": 0.002, "backward": 1.0}], ["a", "b"]) is None


def test_decoding_beside_the_step_does_not_hide_a_slow_rank() -> None:
    assert slow_ranks([{"data": 0.1}, {"data": 0.2, "decode": 100.0}], ["a", "b"]) is not None


def test_one_rank_is_never_slow_and_none_is_where_nothing_was_measured() -> None:
    assert slow_ranks([rank(9.0)], ["a"]) is None
    assert slow_ranks([{}, {}], ["a", "b"]) is None
    assert slow_ranks([{}, rank(1.0)], ["a", "b"]) is None
