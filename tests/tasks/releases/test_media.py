"""Media are found where people keep them, and transcripts grow into texts with their seconds."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from antmmf.contracts import Segment
from antmmf.data.index import open_index
from antmmf.data.sources import source_of
from antmmf.errors import DataError
from antmmf_tasks.datasets.cnvid import Cnvid
from antmmf_tasks.datasets.didemo import Didemo
from antmmf_tasks.datasets.howto100m import Howto100m
from antmmf_tasks.datasets.media import MediaFinder
from antmmf_tasks.datasets.shards import Shards
from antmmf_tasks.datasets.transcripts import grown


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("video7", "video7.mp4"),
        ("video7", "videos/all/video7.WEBM"),
        ("video7.mp4", "TrainVal/video7.mkv"),
        ("page/12.mp4", "videos/page/12.mp4"),
        ("page/12.mp4", "12.mp4"),
        ("a.b_1_2", "clips/a.b_1_2.avi"),
        ("电影", "x/电影.flv"),
        ("00017.m2ts", "00017.MTS"),
        ("news.mp4", "news.ts"),
    ],
)
def test_a_video_is_found_by_path_or_by_name_whatever_its_ending(name: str, there: str, tmp_path: Path) -> None:
    touch(tmp_path, there, "videos/other.mp4", "thumbnails/video7.jpg", "12.txt")
    assert MediaFinder(tmp_path, kind="video").find(name) == str(tmp_path / there)


def test_what_is_not_there_or_of_another_kind_is_not_found(tmp_path: Path) -> None:
    touch(tmp_path, "video7.txt", "a/video8.jpg", "video9")
    finder = MediaFinder(tmp_path, kind="video")
    assert [finder.find(name) for name in ("video7", "video8", "video9", "a/video8.mp4")] == [None] * 4
    assert MediaFinder(tmp_path, kind="image").find("video8") == str(tmp_path / "a/video8.jpg")


def test_a_folder_of_frames_is_a_video_and_a_folder_of_pictures_is_none_of_theirs(tmp_path: Path) -> None:
    touch(tmp_path, "raw_frames/7001/0001.jpg", "raw_frames/7001/0002.jpg", "train2017/0001.jpg")
    video, image = MediaFinder(tmp_path, kind="video"), MediaFinder(tmp_path, kind="image")
    assert video.find("7001") == str(tmp_path / "raw_frames/7001")
    assert video.find("raw_frames/7001") == str(tmp_path / "raw_frames/7001")
    assert image.find("train2017/0001.jpg") == str(tmp_path / "train2017/0001.jpg")
    assert image.find("7001") is None


def test_many_folders_of_frames_are_not_looked_into_and_links_in_circles_end(tmp_path: Path) -> None:
    touch(tmp_path, *(f"raw/{number}/1.jpg" for number in range(150)), "more/deep/clip.mp4")
    (tmp_path / "more" / "back").symlink_to(tmp_path)
    finder = MediaFinder(tmp_path, kind="video")
    assert finder.find("149") == str(tmp_path / "raw/149")
    assert finder.find("clip") == str(tmp_path / "more/deep/clip.mp4")
    assert finder.find("150") is None


def test_a_database_and_a_tar_are_looked_into(tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")
    path = str(tmp_path / "msrvtt_videos.lmdb")
    with lmdb.open(path, map_size=1 << 20) as database, database.begin(write=True) as writing:
        writing.put(b"video7", b"content")
    with tarfile.open(tmp_path / "part.tar", "w") as archive:
        archive.add(touch(tmp_path / "x", "video8.mp4") / "video8.mp4", arcname="deep/video8.mp4")
    (tmp_path / "x/video8.mp4").unlink()
    finder = MediaFinder(tmp_path, kind="video")
    assert finder.find("video7.mp4") == str(tmp_path / "msrvtt_videos.lmdb/video7")
    found = finder.find("video8")
    assert found is not None
    assert source_of(found).open().read() == b"video8.mp4"
    assert finder.find("video9") is None


@pytest.mark.parametrize("name", ["../a.mp4", "a/../../a.mp4", "/etc/passwd", "x\0", "sub/../../b"])
def test_nothing_outside_is_ever_found(name: str, tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "ok.mp4")
    touch(tmp_path, "a.mp4", "b.mp4")
    assert not MediaFinder(root).inside(name)
    assert MediaFinder(root).inside("sub/../ok.mp4")


def test_below_the_root_of_the_machine_only_whole_paths_are_looked_at(tmp_path: Path) -> None:
    touch(tmp_path, "a/clip_of_this_test.mp4")
    finder = MediaFinder(Path("/"), kind="video")
    assert finder.find(f"{tmp_path}/a/clip_of_this_test".lstrip("/")) == str(tmp_path / "a/clip_of_this_test.mp4")
    assert finder.find("clip_of_this_test") is None
    root = touch(tmp_path, "val_data.json")
    assert Didemo(data_root_dir=root, split="val", media_dir=Path("/")).sources() == [root / "val_data.json"]


# --- transcripts ------------------------------------------------------------------------------------------------------

LINES = tuple(
    Segment(start, end, text)
    for start, end, text in [
        (0, 2, "one two"),
        (2, 4, "two"),
        (4, 4.5, "three"),
        (5, 9, "four five six"),
        (9, 10, "end"),
    ]
)


@pytest.mark.parametrize(
    ("index", "words", "seconds", "expected"),
    [
        (0, 1, 0.0, (0, 2, "one two")),
        (1, 3, 0.0, (0, 4.5, "one two two three")),
        (2, 1, 5.0, (0, 9, "one two two three four five six")),
        (0, 100, 0.0, (0, 10, "one two two three four five six end")),
        (4, 1, 2.0, (5, 10, "four five six end")),
    ],
)
def test_a_segment_grows_with_its_neighbours(
    index: int, words: int, seconds: float, expected: tuple[float, float, str]
) -> None:
    assert grown(LINES, index, min_words=words, min_seconds=seconds, by_characters=False) == expected


def test_chinese_is_counted_in_characters_joined_without_spaces_and_repeats_count_once() -> None:
    lines = [Segment(0, 1, "今天"), Segment(1, 2, "今天"), Segment(2, 3, "做菜吧")]
    assert grown(lines, 0, min_words=5, min_seconds=0, by_characters=True) == (0, 3, "今天做菜吧")
    assert grown(lines, 0, min_words=2, min_seconds=2, by_characters=True) == (0, 2, "今天")


def test_a_draw_is_a_grown_segment_with_its_own_seconds(tmp_path: Path) -> None:
    touch(tmp_path, "videos/a.mp4", "videos/b.mp4")
    spoken = {"start": [0, 5, 30, 41], "end": [4, 9, 40, 39], "text": ["a b c", "d e f g", "h", "bad"]}
    (tmp_path / "caption.json").write_text(json.dumps({"a": spoken, "b": {"start": [], "end": [], "text": []}}))
    dataset = Howto100m(data_root_dir=tmp_path, split="train", val_share=0)
    (record,) = dataset.records()
    drawn = {dataset.draw(record, np.random.default_rng(seed)).texts for seed in range(20)}
    assert drawn == {("a b c d e f g",), ("d e f g h",)}
    for seed in range(20):
        one = dataset.draw(record, np.random.default_rng(seed))
        assert one.start is not None
        assert one.end is not None
        assert one.end - one.start >= 5
        assert (one.start, one.end) in {(0, 9), (5, 40)}
        assert one == dataset.draw(record, np.random.default_rng(seed))


def test_validation_is_one_fixed_segment_of_videos_that_training_never_sees(tmp_path: Path) -> None:
    names = [f"v{i}" for i in range(60)]
    touch(tmp_path, *(f"{name}.mp4" for name in names))
    for name in names:
        (tmp_path / "asr_files").mkdir(exist_ok=True)
        (tmp_path / "asr_files" / name).write_text(
            json.dumps({"start": [0, 6], "end": [6, 12], "text": ["你好世界吗", name]})
        )
    kept = {
        split: list(Cnvid(data_root_dir=tmp_path, split=split, val_share=0.2).records())  # type: ignore[arg-type]
        for split in ("train", "val")
    }
    assert {r.key for r in kept["train"]} | {r.key for r in kept["val"]} == set(names)
    assert not {r.key for r in kept["train"]} & {r.key for r in kept["val"]}
    assert all(r.texts and r.start == 0 and r.end == 12 and not r.transcript for r in kept["val"])
    with pytest.raises(DataError, match=r"val_share 0 of its videos is not one for val; change it"):
        list(Cnvid(data_root_dir=tmp_path, split="val", val_share=0).records())


# --- tars of others ---------------------------------------------------------------------------------------------------


def write_tar(path: Path, *members: tuple[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_tars_of_others_are_read_in_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tar(
        tmp_path / "train/00000.tar",
        ("000000000.jpg", b"picture 0"),
        ("000000000.json", b'{"caption": "the same", "url": "x"}'),
        ("000000000.txt", b"the same\n"),
        ("000000001.json", b'{"caption": ["one", "two"]}'),
        ("000000001.mp4", b"video 1"),
        ("000000002.mp4", b"video 2"),
        ("000000003.txt", b"no media"),
    )
    write_tar(tmp_path / "train/00001.tar", ("a/000000000.v1.webm", b"video 3"), ("a/000000000.txt", b"three"))
    shards = Shards(data_root_dir=str(tmp_path), split="train", files="{split}/*.tar")
    records = list(shards.records())
    assert [(record.key, record.texts) for record in records] == [
        ("train/00000/000000000", ("the same",)),
        ("train/00000/000000001", ("one", "two")),
        ("train/00001/a/000000000", ("three",)),
    ]
    assert [source_of(record.media).open().read() for record in records] == [b"picture 0", b"video 1", b"video 3"]
    assert list(shards.blocks()) == [2, 1]
    assert "left out 1 samples without a text" in caplog.text
    assert "left out 1 samples without a video or picture" in caplog.text
    before = shards.sources()[0].read_text()
    write_tar(tmp_path / "train/00002.tar", ("b.mp4", b"x"), ("b.txt", b"y"))
    assert Shards(data_root_dir=str(tmp_path), files="{split}/*.tar").sources()[0].read_text() != before
    with pytest.raises(DataError, match=r"no \*\.tar fits files 'val/\*\.tar'"):
        Shards(data_root_dir=str(tmp_path), split="val", files="{split}/*.tar").sources()


def test_a_transcript_or_a_folder_of_media_that_changes_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTMMF_CACHE", str(tmp_path / "cache"))
    root = touch(tmp_path / "root", "videos/all/a.mp4")
    spoken = {"start": [0], "end": [4], "text": ["一"]}
    (root / "asr_files").mkdir()
    (root / "asr_files/a").write_text(json.dumps(spoken))

    def texts() -> list[str]:
        dataset = Cnvid(data_root_dir=root, split="train", val_share=0)
        index = open_index(dataset, name="x:cnvid", version="1", parameters={}, folder=tmp_path / "index")
        return list(index.texts())

    assert texts() == ["一"]
    (root / "asr_files/a").write_text(json.dumps({**spoken, "text": ["二"]}))
    os.utime(root / "asr_files/a", ns=(1, 1))
    assert texts() == ["二"]
    (root / "asr_files/b").write_text(json.dumps({**spoken, "text": ["三"]}))
    assert texts() == ["二"]  # b has no video
    touch(root, "videos/all/b.mp4")
    assert texts() == ["二", "三"]
