"""The files of `shapes`: real clips, made once, the same every time, never used when damaged."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from antmmf.contracts import Dataset, Record
from antmmf.errors import ConfigError, DataError
from antmmf_tasks.datasets.shapes import Shapes
from antmmf_tasks.datasets.shapes.language import captions
from antmmf_tasks.datasets.shapes.render import render
from antmmf_tasks.datasets.shapes.world import make_scenes, scenes_as_twins
from antmmf_tasks.datasets.shapes.write import encode_mp4, write_share
from numpy.typing import NDArray

NUM = 16


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a tiny train and test split are prepared."""
    root = tmp_path_factory.mktemp("shapes")
    for dataset in (training(root), evaluation(root)):
        dataset.prepare()
    return root


def training(root: Path) -> Shapes:
    return Shapes(split="train", root=root, num_train=NUM)


def evaluation(root: Path) -> Shapes:
    return Shapes(split="test", root=root, num_test=NUM)


def decode(path: str | Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def by_key(dataset: Shapes) -> dict[str, Record]:
    return {record.key: record for record in dataset.records()}


def test_a_clip_is_h264_of_the_size_length_and_rate_asked_for(tmp_path: Path) -> None:
    dataset = Shapes(split="val", root=tmp_path, num_val=2, size=48, fps=10, seconds=1.2)
    dataset.prepare()
    for record in dataset.records():
        with av.open(record.media) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 10)
            times = [frame.time for frame in container.decode(stream)]
        assert times == pytest.approx([i / 10 for i in range(12)])
        assert decode(record.media).shape == (12, 48, 48, 3)


def test_a_decoded_clip_looks_like_what_was_drawn(root: Path) -> None:
    scenes = make_scenes(NUM, split="train", seed=0)
    for scene, record in zip(scenes, training(root).records(), strict=True):
        drawn = render(scene, size=64, num_frames=16).astype(int)
        assert np.abs(decode(record.media) - drawn).mean() < 8, scene


def test_twins_are_drawn_with_the_same_frames_in_another_order() -> None:
    twins = list(scenes_as_twins(make_scenes(200, split="test", seed=1)))
    assert len(twins) == 50
    for one, two in twins:
        first, second = (render(scene, size=32, num_frames=16) for scene in (one, two))
        assert sorted(frame.tobytes() for frame in first) == sorted(frame.tobytes() for frame in second)
        assert not np.array_equal(first, second)


def test_decoded_twins_differ_only_in_the_order_of_their_frames(root: Path) -> None:
    records = by_key(evaluation(root))
    twins = [(r, records[r.extras["twin"]]) for r in records.values() if r.extras["twin"]]
    assert len(twins) == NUM // 2
    for one, two in twins:
        first, second = decode(one.media).astype(int), decode(two.media).astype(int)
        exchanged = np.concatenate([second[8:], second[:8]])
        assert np.abs(first - exchanged).mean() < 4
        assert np.abs(first - second).mean() > 1.5 * np.abs(first - exchanged).mean()
        means = [np.sort(clip.mean((1, 2, 3))) for clip in (first, second)]
        np.testing.assert_allclose(means[0], means[1], atol=1.5)


def test_a_false_caption_of_an_order_clip_is_the_true_one_of_its_twin(root: Path) -> None:
    records = by_key(evaluation(root))
    order = [record for record in records.values() if record.extras["clip_kind"] == "order"]
    assert len(order) == NUM // 2
    for record in order:
        assert record.negatives == records[record.extras["twin"]].texts
        assert record.texts != record.negatives
    assert all(not r.negatives for r in records.values() if r.extras["clip_kind"] != "order")


def test_training_has_every_phrasing_and_evaluation_one(root: Path) -> None:
    scenes = make_scenes(NUM, split="train", seed=0)
    for scene, record in zip(scenes, training(root).records(), strict=True):
        assert sorted(record.texts) == sorted(captions(scene, language="en"))
    assert {len(record.texts) for record in evaluation(root).records()} == {1}
    three = Shapes(split="test", root=root, num_test=NUM, texts_per_video=3)
    assert {len(record.texts) for record in three.records()} == {3}


def test_a_draw_takes_one_text_and_its_own_false_caption(root: Path) -> None:
    dataset = training(root)
    record = next(r for r in dataset.records() if r.negatives)
    pairs = set(zip(record.texts, record.negatives, strict=True))
    drawn = [dataset.draw(record, np.random.default_rng(i)) for i in range(30)]
    assert {(each.texts[0], each.negatives[0]) for each in drawn} == pairs
    assert all(len(each.texts) == len(each.negatives) == 1 for each in drawn)


def test_a_draw_from_a_transcript_takes_a_sentence_and_its_time(root: Path) -> None:
    dataset = Shapes(split="train", root=root, num_train=NUM, kind="transcripts")
    record = next(r for r in dataset.records() if r.extras["clip_kind"] == "order")
    assert record.texts == ()
    assert [(s.start, s.end) for s in record.transcript] == [(0.0, 1.0), (1.0, 2.0)]
    drawn = [dataset.draw(record, np.random.default_rng(i)) for i in range(10)]
    assert {(d.start, d.end, d.texts) for d in drawn} == {(s.start, s.end, (s.text,)) for s in record.transcript}


@pytest.mark.parametrize("kind", ["captions", "transcripts", "questions", "options"])
@pytest.mark.parametrize("language", ["en", "zh", "both"])
def test_every_kind_and_language_keeps_the_contract(root: Path, kind: str, language: str) -> None:
    dataset = Shapes(split="test", root=root, num_test=NUM, kind=kind, language=language)  # type: ignore[arg-type]
    assert isinstance(dataset, Dataset)
    records = list(dataset.records())
    assert len({record.key for record in records}) == len(records) >= NUM
    for record in records:
        assert Path(record.media).is_file()
        asked = kind in ("questions", "options")
        assert asked == (record.question is not None) == (record.answer is not None) == (not record.texts)
        assert (kind == "options") == (record.options.count(str(record.answer)) == 1)
        assert (kind == "transcripts") == bool(record.transcript)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(root: Path, tmp_path: Path) -> None:
    again = training(tmp_path)
    again.prepare()
    files = sorted(path.relative_to(again.folder) for path in again.folder.rglob("*") if path.is_file())
    assert len(files) == NUM + 2
    assert all((again.folder / name).read_bytes() == (training(root).folder / name).read_bytes() for name in files)
    other = Shapes(split="train", root=tmp_path, num_train=NUM, seed=1)
    other.prepare()
    assert other.sources()[0].read_bytes() != again.sources()[0].read_bytes()


def test_a_second_prepare_writes_nothing(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    training(root).prepare()
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.parametrize("damage", ["clip cut", "clip gone", "annotation changed", "manifest broken"])
def test_a_damaged_folder_is_made_again_and_said_so(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = Shapes(split="train", root=tmp_path, num_train=4)
    dataset.prepare()
    whole = {path: path.read_bytes() for path in dataset.folder.rglob("*") if path.is_file()}
    clip = next(path for path in whole if path.suffix == ".mp4")
    if damage == "clip cut":
        clip.write_bytes(whole[clip][:-9])
    elif damage == "clip gone":
        clip.unlink()
    elif damage == "annotation changed":
        path = dataset.sources()[0]
        path.write_bytes(whole[path].replace(b"red", b"blu"))
    else:
        (dataset.folder / "manifest.json").write_bytes(b"{")
    assert dataset.verify() != []
    with caplog.at_level(logging.WARNING, logger="antmmf"):
        dataset.prepare()
    assert "is damaged" in caplog.text
    assert {path: path.read_bytes() for path in whole} == whole


def test_verify_finds_a_clip_changed_without_changing_its_size(tmp_path: Path) -> None:
    dataset = Shapes(split="val", root=tmp_path, num_val=2)
    dataset.prepare()
    assert dataset.verify() == []
    clip = dataset.folder / "clips" / "val-000001.mp4"
    content = bytearray(clip.read_bytes())
    content[len(content) // 2] ^= 1
    clip.write_bytes(content)
    assert dataset.verify() == ["clips/val-000001.mp4"]


def test_work_that_was_stopped_is_continued(tmp_path: Path) -> None:
    dataset = Shapes(split="val", root=tmp_path, num_val=4)
    dataset.prepare()
    partial = dataset.folder.rename(dataset.folder.with_name(dataset.folder.name + ".partial"))
    (partial / "manifest.json").unlink()
    (partial / "clips" / "val-000003.mp4").unlink()
    kept = (partial / "clips" / "val-000000.mp4").stat().st_ino
    dataset.prepare()
    assert (dataset.folder / "clips" / "val-000000.mp4").stat().st_ino == kept
    assert dataset.verify() == []


def test_two_processes_that_prepare_at_once_leave_one_whole_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from antmmf_tasks.datasets.shapes import Shapes;"
        "Shapes(split='val', root=Path(sys.argv[1]), num_val=24).prepare()"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [process.wait(timeout=60) for process in started] == [0, 0]
    dataset = Shapes(split="val", root=tmp_path, num_val=24)
    assert dataset.verify() == []
    assert len(list(dataset.records())) == 24
    assert sorted(path.name for path in tmp_path.iterdir()) == [dataset.folder.name, dataset.folder.name + ".lock"]


def test_many_clips_are_made_by_processes_of_their_own_with_the_same_result(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="antmmf"):
        dataset = Shapes(split="train", root=tmp_path, num_train=70, size=32, fps=4)
        dataset.prepare()
    assert dataset.verify() == []
    assert "shapes: 70 of 70 clips" in caplog.text
    scene = make_scenes(70, split="train", seed=0)[69]
    expected = encode_mp4(render(scene, size=32, num_frames=8), fps=4)
    assert (dataset.folder / "clips" / "train-000069.mp4").read_bytes() == expected


def test_shares_together_make_every_clip_once(root: Path) -> None:
    folder = training(root).folder
    names = [
        name for i in range(3) for name in write_share(folder, share=i, num_shares=3, size=64, fps=8, num_frames=16)
    ]
    assert sorted(names) == sorted(f"clips/{record.key}.mp4" for record in training(root).records())


def test_the_cache_folder_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTMMF_CACHE", str(tmp_path))
    assert Shapes(split="val").folder.parent == tmp_path / "shapes"


def test_other_parameters_have_another_folder(tmp_path: Path) -> None:
    folders = {
        Shapes(split="train", root=tmp_path).folder,
        Shapes(split="train", root=tmp_path, seed=1).folder,
        Shapes(split="train", root=tmp_path, size=32).folder,
        Shapes(split="train", root=tmp_path, fps=16).folder,
        Shapes(split="val", root=tmp_path).folder,
    }
    assert len(folders) == 5
    assert Shapes(split="val", root=tmp_path, language="zh", kind="options").folder in folders


def test_records_before_prepare_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist; call prepare\(\)"):
        list(Shapes(split="val", root=tmp_path).records())


def test_too_few_frames_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"8 frames or more, 4 x 1\.5 gives 6"):
        Shapes(split="val", root=tmp_path, fps=4, seconds=1.5)
