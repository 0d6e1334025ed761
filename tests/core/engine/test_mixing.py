"""Several data sets in one epoch, captions as items, and several texts for a sample."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from antmmf.data.keyed import sample_id
from antmmf.data.loader import Loader
from antmmf.data.mixing import Mixed, MixedOrder, shared_out
from antmmf.data.order import Permutation
from engine_toys import ToyCollator, toy_reader
from test_loading import flat, ids

SIZES = [23, 8, 41]


def order(epoch: int, *, weights: list[float] | None = None, sizes: list[int] = SIZES) -> MixedOrder:
    def own(source: int, own_epoch: int) -> Permutation:
        return Permutation(sizes[source], seed=3, epoch=own_epoch)

    return MixedOrder(sizes, weights=weights, batch_size=4, seed=3, epoch=epoch, order=own)


def loader(folder: Path, *, weights: list[float] | None = None, **options: object) -> Loader:
    parts = [
        toy_reader(folder / name, keys=[f"{name}{i}" for i in range(size)], train=True)
        for name, size in zip("abc", SIZES, strict=True)
    ]
    return Loader(
        Mixed(parts),
        ToyCollator(),
        train=True,
        seed=3,
        weights=weights,
        **{"batch_size": 4, **options},  # type: ignore[arg-type]
    )


NAMES = {sample_id("toys:toy", f"{name}{i}"): (name, i) for name in "abc" for i in range(50)}


def test_without_weights_an_epoch_is_the_sum_of_the_epochs() -> None:
    mixed = order(1)
    assert mixed.shares == [5, 2, 10]
    assert len(mixed) == 17 * 4


def test_every_step_is_of_one_data_set_and_every_record_comes_at_most_once_an_epoch(tmp_path: Path) -> None:
    for epoch in (1, 2):
        steps = ids(loader(tmp_path).epoch(epoch))
        assert [len(step) for step in steps] == [4] * 17
        names = [{NAMES[id][0] for id in step} for step in steps]
        assert all(len(found) == 1 for found in names)
        assert Counter(next(iter(found)) for found in names) == {"a": 5, "b": 2, "c": 10}
        assert len({id for step in steps for id in step}) == 17 * 4
        assert names != sorted(names, key=min)  # not one after the other


def test_weights_are_shares_of_the_steps_and_a_data_set_goes_on_where_it_stopped(tmp_path: Path) -> None:
    mixed = loader(tmp_path, weights=[1, 8, 1])
    assert mixed.shares == [2, 13, 2]
    assert mixed.steps_per_epoch == 17
    seen = Counter(id for epoch in range(1, 6) for id in flat(mixed.epoch(epoch)))
    of_b = {NAMES[id]: count for id, count in seen.items() if NAMES[id][0] == "b"}
    assert set(of_b.values()) <= {32, 33}  # 65 steps of 4 from 8 records
    of_c = [count for id, count in seen.items() if NAMES[id][0] == "c"]
    assert (len(of_c), max(of_c)) == (40, 1)  # ten steps of four: its first epoch


def test_drawn_views_differ_each_time_a_record_comes(tmp_path: Path) -> None:
    mixed = loader(tmp_path, weights=[1, 30, 1])
    frames = [
        batch.frames[row].numpy().tobytes()
        for step in mixed.epoch(1)
        for batch in step.batches
        for row, id in enumerate(batch.ids.tolist())
        if NAMES[id] == ("b", 3)
    ]
    assert len(frames) > 5
    assert len(set(frames)) > 1


def test_it_resumes_anywhere_and_ranks_share_each_step(tmp_path: Path) -> None:
    steps = ids(loader(tmp_path, weights=[3, 1, 1]).epoch(2))
    for start in (0, 3, 16):
        assert ids(loader(tmp_path, weights=[3, 1, 1]).epoch(2, start=start * 4)) == steps[start:]
    ranks = [ids(loader(tmp_path, weights=[3, 1, 1], rank=rank, num_ranks=3).epoch(2)) for rank in range(3)]
    assert [[id for part in own for id in part] for own in zip(*ranks, strict=True)] == steps


def test_workers_and_micro_batches_change_nothing(tmp_path: Path) -> None:
    helped = loader(tmp_path, num_workers=2, micro_batches=2)
    assert flat(helped.epoch(1)) == flat(loader(tmp_path).epoch(1))
    helped.close()


def test_shares_are_whole_and_none_is_nothing() -> None:
    assert shared_out(10, [1, 1, 1]) == [4, 3, 3]
    assert shared_out(17, [0.5, 0.25, 0.25]) == [9, 4, 4]
    assert sum(shared_out(1000, [0.123, 5.0, 0.7, 2.2])) == 1000
    assert shared_out(3, [1000, 1, 1]) == [2, 1, 1]  # none gets none


# --- captions ---------------------------------------------------------------------------------------------------------


def captioned(folder: Path, *, num_texts: int = 1, by_caption: bool = False) -> Loader:
    reader = toy_reader(folder, keys=[f"clip{i}" for i in range(6)], train=True)
    reader.num_texts, reader.by_caption = num_texts, by_caption
    return Loader(reader, ToyCollator(), train=True, seed=3, batch_size=2)


def test_an_epoch_of_captions_has_every_text_once(tmp_path: Path) -> None:
    reader = toy_reader(tmp_path, keys=[f"clip{i}" for i in range(6)], train=True)
    texts = [(row, text) for row in range(6) for text in reader.index.record(row).texts]
    assert len(texts) > 6  # several each
    by_caption = captioned(tmp_path, by_caption=True)
    assert by_caption.num_samples == len(texts)
    assert by_caption.steps_per_epoch == len(texts) // 2
    reader.by_caption = True
    read = [(reader.row(item), reader.read(item, epoch=1).texts) for item in range(len(reader))]
    assert read == [(row, (text,)) for row, text in texts]
    counts = Counter(flat(by_caption.epoch(1)))
    assert sum(counts.values()) == len(texts) // 2 * 2


def test_blocks_of_captions_hold_the_captions_of_their_records(tmp_path: Path) -> None:
    reader = toy_reader(tmp_path, keys=[f"clip{i}" for i in range(6)], train=True)
    reader.index.blocks = np.array([2, 4])
    lengths = [len(reader.index.record(row).texts) for row in range(6)]
    reader.by_caption = True
    assert reader.blocks.tolist() == [sum(lengths[:2]), sum(lengths[2:])]


@pytest.mark.parametrize("num_texts", [2, 9])
def test_several_texts_of_a_record_are_drawn_without_repeating_one(tmp_path: Path, num_texts: int) -> None:
    reader = toy_reader(tmp_path, keys=[f"clip{i}" for i in range(6)], train=True)
    reader.num_texts = num_texts
    there = reader.index.record(2).texts
    drawn = [reader.read(2, epoch=epoch).texts for epoch in range(20)]
    assert all(len(set(texts)) == min(num_texts, len(there)) for texts in drawn)
    assert len(set(drawn)) > 1
    (step, *_) = captioned(tmp_path, num_texts=num_texts).epoch(1)
    owners = Counter(step.batches[0].owner.tolist())
    assert set(owners.values()) == {min(num_texts, len(there))}
