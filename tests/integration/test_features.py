"""Training on what a frozen encoder saw once: the same losses and figures, nothing decoded."""

from __future__ import annotations

import json
from pathlib import Path

import antmmf
import pytest
import torch
from antmmf.inference.features import StoredFeatures
from antmmf.run import Run
from inferring import SHAPES, embed, execute, figures, load, media


@pytest.fixture(scope="module")
def features(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    embed(trained.folder, "--data", trained.folder / "config.yml", "--features", "--part-size", "7", "--out", folder)
    return folder


def going_on(trained: Run) -> tuple[str, ...]:
    return (
        f"training_parameters.resume_file={trained.folder}",
        "training_parameters.restart=true",
        "training_parameters.freeze=[vision.*]",
        "training_parameters.enable_amp=false",  # features are in full precision, live frames only where training is
    )


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_a_run_on_features_is_the_run_on_frames(trained: Run, features: Path, tmp_path: Path) -> None:
    live = execute(tmp_path / "live", *going_on(trained))
    stored = execute(tmp_path / "stored", *going_on(trained), f"input_attributes.features={features}")
    assert losses(stored.folder) == pytest.approx(losses(live.folder), abs=1e-5)
    assert figures(stored.folder) == pytest.approx(figures(live.folder), abs=1e-4)
    again = load(stored.folder).encode_video(media(trained)[:2])  # it still sees videos
    torch.testing.assert_close(again, load(live.folder).encode_video(media(trained)[:2]), rtol=0, atol=1e-5)


def test_a_run_on_features_goes_on(trained: Run, features: Path, tmp_path: Path) -> None:
    more = (*going_on(trained), f"input_attributes.features={features}")
    execute(tmp_path / "whole", *more)
    execute(tmp_path / "run", *more, "training_parameters.max_iterations=2")
    execute(tmp_path / "run", *more, "training_parameters.resume=auto")
    assert losses(tmp_path / "run")[-2:] == losses(tmp_path / "whole")[-2:]


def test_features_that_do_not_fit_are_refused(trained: Run, features: Path, tmp_path: Path) -> None:
    use = f"input_attributes.features={features}"
    with pytest.raises(antmmf.ConfigError, match=r"add vision\.\* to training_parameters\.freeze"):
        execute(tmp_path / "run", use)
    with pytest.raises(antmmf.ConfigError, match="are those of another encoder"):
        execute(tmp_path / "run", use, "training_parameters.freeze=[vision.*]", "training_parameters.seed=9")
    with pytest.raises(antmmf.ConfigError, match="or of one that sees files otherwise"):
        execute(tmp_path / "run", *going_on(trained), use, "input_attributes.sampler.params.n_clips=4")
    with pytest.raises(antmmf.DataError, match="holds no features; write them with: antmmf embed"):
        execute(tmp_path / "run", *going_on(trained), f"input_attributes.features={tmp_path}")


def test_a_sample_without_features_is_missing(features: Path) -> None:
    with pytest.raises(antmmf.DataError, match="clip-9: has no features in") as told:
        StoredFeatures(features).packed(1, "clip-9")
    assert told.value.reason == "missing"


def test_questions_about_a_video_share_its_features(asked: Run, tmp_path: Path) -> None:
    data = ("--data", "shapes", *SHAPES, "kind=questions", "--split", "test")
    said = embed(asked.folder, *data, "--features", "--out", tmp_path)
    num_questions = len(asked.indexes["test"])
    assert f"12 videos of {num_questions} records" in said
    stored = StoredFeatures(tmp_path)
    first, second = [row for row in range(num_questions) if asked.indexes["test"].record(row).media == media(asked)[0]][
        :2
    ]
    ids = asked.indexes["test"].ids
    assert torch.equal(stored.packed(int(ids[first]), ""), stored.packed(int(ids[second]), ""))


def test_two_videos_of_one_key_are_refused(trained: Run, tmp_path: Path) -> None:
    for name, path in zip("ab", media(trained), strict=False):
        videos = tmp_path / "videos" / name
        videos.mkdir(parents=True)
        (videos / "0.mp4").write_bytes(Path(path).read_bytes())
        embed(trained.folder, "--data", videos, "--features", "--out", tmp_path / "features" / name)
    with pytest.raises(antmmf.DataError, match="holds two videos of one key"):
        StoredFeatures(tmp_path / "features").packed(0, "0.mp4")
