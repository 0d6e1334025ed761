"""A trained model in use: vectors equal those of evaluation, a kill changes no file, features equal frames."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import antmmf
import numpy as np
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
import torch
from antmmf.cli.main import cli
from antmmf.errors import ConfigError
from antmmf.evaluate import split_rows
from antmmf.run import Run
from click.testing import CliRunner
from inferring import QUESTIONS, SHAPES, contents, embed, execute, figures, lines_of, load, media


@pytest.fixture(scope="module")
def model(trained: Run) -> antmmf.Model:
    return load(trained.folder, batch_size=5)


@pytest.fixture(scope="module")
def rows(trained: Run) -> dict[str, torch.Tensor]:
    """What the evaluation of the test split sees."""
    return split_rows(trained.task, trained.loaders["test"], device="cpu")


# --- antmmf.load ------------------------------------------------------------------------------------------------------


def test_vectors_are_those_of_evaluation(trained: Run, model: antmmf.Model, rows: dict[str, torch.Tensor]) -> None:
    texts = [trained.indexes["test"].record(row).texts[0] for row in range(12)]
    torch.testing.assert_close(model.encode_video(media(trained)), rows["video"], rtol=0, atol=1e-6)
    torch.testing.assert_close(model.encode_text(texts), rows["text"], rtol=0, atol=1e-6)
    expected = rows["video"][:2] @ rows["text"].T
    torch.testing.assert_close(model.similarity(media(trained)[:2], texts), expected, rtol=0, atol=1e-6)


def test_loading_needs_no_training_data_and_draws_nothing(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise AssertionError(f"{self} was read")

    for name in ("prepare", "sources", "records"):
        monkeypatch.setattr(f"antmmf_tasks.datasets.shapes.Shapes.{name}", refuse)
    before = torch.random.get_rng_state()
    load(trained.folder / "checkpoints" / "step_000004").encode_text(["a circle"])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_bad_file_is_one_error_with_its_path(model: antmmf.Model, trained: Run, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(antmmf.DataError, match=r"text\.mp4: it is no video"):
        model.encode_video([media(trained)[0], tmp_path / "text.mp4"])
    with pytest.raises(antmmf.DataError, match=r"nowhere\.mp4: No such file"):
        model.encode_video([tmp_path / "nowhere.mp4"])
    with pytest.raises(antmmf.DataError, match="list of texts is empty"):
        model.encode_text([])


def test_a_single_text_is_not_taken_for_a_list_of_letters(model: antmmf.Model, trained: Run) -> None:
    with pytest.raises(antmmf.DataError, match=r"texts must be a list, got 'a circle'; write \['a circle'\]"):
        model.similarity(media(trained)[:1], "a circle")
    with pytest.raises(antmmf.DataError, match="videos must be a list"):
        model.encode_video(media(trained)[0])


def test_vectors_depend_on_no_batch_though_training_was_in_half_precision(model: antmmf.Model, trained: Run) -> None:
    texts = ["a circle", "a small red square that moves up and then a blue star"]
    assert trained.plan.config.training_parameters.enable_amp
    alone = torch.cat([load(trained.folder, batch_size=1).encode_text([text]) for text in texts])
    torch.testing.assert_close(model.encode_text(texts), alone, rtol=0, atol=1e-6)


def test_texts_come_from_any_iterable_and_must_be_texts(model: antmmf.Model, trained: Run) -> None:
    texts = ["a circle", "a red square"]
    assert torch.equal(model.encode_text(text for text in texts), model.encode_text(texts))
    with pytest.raises(antmmf.DataError, match=r"texts must be str, one is int$"):
        model.encode_text(["a circle", 3])  # type: ignore[list-item]
    with pytest.raises(antmmf.DataError, match=r"videos must be str or PathLike, one is int$"):
        model.encode_video([media(trained)[0], 3])  # type: ignore[list-item]
    with pytest.raises(antmmf.DataError, match=r"texts must be str, one is ndarray$"):
        model.similarity(media(trained)[:1], np.ones((4, 500)))  # type: ignore[arg-type]


def test_what_a_task_cannot_do_is_said(model: antmmf.Model, asked: Run, trained: Run) -> None:
    with pytest.raises(antmmf.ComponentError, match="task retrieval answers no questions"):
        model.answer(media(trained)[0], "what is it?")
    answering = load(asked.folder)
    with pytest.raises(antmmf.ComponentError, match=r"task vqa has no vectors, so no encode_text"):
        answering.encode_text(["a circle"])
    with pytest.raises(antmmf.ComponentError, match="chooses among its own answers"):
        answering.answer(media(trained)[0], "what?", options=["a", "b"])


def test_answers_are_those_of_evaluation(asked: Run) -> None:
    rows = split_rows(asked.task, asked.loaders["test"], device="cpu")
    record = asked.indexes["test"].record(3)
    found = load(asked.folder).answer(record.media, record.question or "")
    vqa: Any = asked.task
    assert [answer.text for answer in found] == [vqa.answers[number] for number in rows["chosen"][3].tolist()]
    expected = rows["probability"][3].tolist()
    assert [answer.probability for answer in found] == pytest.approx(expected, abs=1e-6)


def test_multiple_choice_orders_the_options_by_probability(tmp_path: Path) -> None:
    options = tuple(key.replace("questions", "options") for key in QUESTIONS)
    params = ("task_attributes.type=antmmf-tasks:mcqa", "task_attributes.params={score: contrast, head: linear}")
    run = execute(tmp_path / "mcqa", *options, *params)
    record = run.indexes["test"].record(0)
    found = load(run.folder).answer(record.media, record.question or "", options=record.options)
    assert {answer.text for answer in found} == set(record.options)
    assert sum(answer.probability for answer in found) == pytest.approx(1)
    assert [answer.probability for answer in found] == sorted((a.probability for a in found), reverse=True)


# --- antmmf embed -----------------------------------------------------------------------------------------------------


def test_embedded_vectors_are_those_of_evaluation(trained: Run, rows: dict[str, torch.Tensor], tmp_path: Path) -> None:
    said = embed(trained.folder, "--data", "shapes", *SHAPES, "--split", "test", "--part-size", "5", "--out", tmp_path)
    assert "12 videos, 12 texts of 12 records" in said
    videos, texts = (pq.read_table(tmp_path / "test" / kind).to_pydict() for kind in ("videos", "texts"))
    records = [trained.indexes["test"].record(row) for row in range(12)]
    assert videos["key"] == [record.key for record in records]
    assert list(zip(texts["key"], texts["text"], strict=True)) == [(r.key, r.texts[0]) for r in records]
    torch.testing.assert_close(torch.tensor(videos["vector"]), rows["video"], rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.tensor(texts["vector"]), rows["text"], rtol=0, atol=1e-6)
    assert {*videos["model"], *texts["model"]} == {load(trained.folder).hash}


def test_a_folder_of_videos_is_embedded_and_a_bad_one_left_out(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "clips" / "inner").mkdir(parents=True)
    for number, path in enumerate(media(trained)[:3]):
        (tmp_path / "clips" / "inner" / f"{number}.mp4").write_bytes(Path(path).read_bytes())
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"nothing")
    said = embed(trained.folder, "--data", tmp_path / "clips", "--part-size", "1", "--out", tmp_path / "out")
    assert "3 videos, 0 texts of 4 records" in said
    assert "broken.mp4" in said
    table, texts = (pq.read_table(tmp_path / "out" / "test" / name) for name in ("videos", "texts"))
    assert table["key"].to_pylist() == ["inner/0.mp4", "inner/1.mp4", "inner/2.mp4"]
    assert table.schema.field("vector").type == texts.schema.field("vector").type  # though the first part has no video
    assert table.schema.field("vector").type.list_size > 1


def test_vectors_of_another_model_or_other_data_are_refused(trained: Run, asked: Run, tmp_path: Path) -> None:
    words = ("--data", "shapes", *SHAPES, "--split", "val", "--out", tmp_path)
    embed(trained.folder, *words)
    before = contents(tmp_path)
    other = execute(tmp_path.parent / f"{tmp_path.name}-other", "training_parameters.seed=5")
    with pytest.raises(antmmf.DataError, match=r"what is compared must be of one: give another --out"):
        embed(other.folder, "--data", "shapes", *SHAPES, "--split", "test", "--out", tmp_path)
    with pytest.raises(antmmf.DataError, match="was begun with other data"):
        embed(trained.folder, *words, "--part-size", "3")
    with pytest.raises(antmmf.ComponentError, match="task vqa has no vectors"):
        embed(asked.folder, *words)
    assert contents(tmp_path) == before


def test_a_command_that_is_killed_goes_on_to_the_same_files(trained: Run, tmp_path: Path) -> None:
    words = ["--data", "shapes", *SHAPES, "--split", "train", "--part-size", "2"]
    embed(trained.folder, *words, "--out", tmp_path / "whole")
    command = [
        sys.executable,
        "-m",
        "antmmf",
        "embed",
        "--device=cpu",
        str(trained.folder),
        *words,
        "--out",
        str(tmp_path / "killed"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and not list((tmp_path / "killed").rglob("texts/*.parquet")):
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    there = contents(tmp_path / "killed")
    kept = [name for name in there if name.endswith(".parquet")]
    assert 0 < len(kept) < 24, "it was to be killed in between"
    times = {name: os.stat(tmp_path / "killed" / name).st_mtime_ns for name in kept}
    embed(trained.folder, *words, "--out", tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    complete = [name for name in kept if name.replace("videos", "texts") in kept]
    assert {name: os.stat(tmp_path / "killed" / name).st_mtime_ns for name in complete} == {
        name: times[name] for name in complete
    }


def test_two_processes_write_what_one_writes(trained: Run, tmp_path: Path) -> None:
    words = ["--data", "shapes", *SHAPES, "--split", "val", "--part-size", "4"]
    embed(trained.folder, *words, "--out", tmp_path / "one")
    command = [
        sys.executable,
        "-m",
        "antmmf",
        "embed",
        "--device=cpu",
        str(trained.folder),
        *words,
        "--out",
        str(tmp_path / "two"),
    ]
    done = subprocess.run([*command, "--nproc-per-node", "2"], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "one").keys() == contents(tmp_path / "two").keys()
    for kind in ("videos", "texts"):
        one, two = (pq.read_table(tmp_path / name / "val" / kind) for name in ("one", "two"))
        assert one.drop(["vector"]).equals(two.drop(["vector"]))
        vectors = (torch.tensor(table["vector"].to_pylist()) for table in (one, two))
        torch.testing.assert_close(*vectors, rtol=0, atol=1e-6)


# --- predictions ------------------------------------------------------------------------------------------------------


def predict(*words: str | Path) -> str:
    """Run ``antmmf predict`` here; its errors are raised."""
    done = CliRunner().invoke(cli, ["predict", "--device=cpu", *map(str, words)], obj=False)
    if done.exception is not None:
        raise done.exception
    return done.output


@pytest.fixture(scope="module")
def clips(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips of the test split as a folder of one's own, called 0.mp4 and so on."""
    folder = tmp_path_factory.mktemp("clips")
    for number, path in enumerate(media(trained)):
        (folder / f"{number:02d}.mp4").write_bytes(Path(path).read_bytes())
    return folder


@pytest.mark.parametrize("kind", ["trained", "asked"])
def test_run_type_predict_writes_the_same_lines_as_parquet(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source: Run = request.getfixturevalue(kind)
    more = QUESTIONS if kind == "asked" else ()
    predict_only = ("training_parameters.run_type=predict", f"training_parameters.resume_file={source.folder}")
    run = execute(tmp_path / "run", *more, *predict_only, "training_parameters.monitored_metric=null")
    lines = lines_of(run.folder / "predictions" / "test.jsonl")
    table = pq.read_table(run.folder / "predictions" / "test.parquet").to_pylist()
    assert len(table) == len(lines) > 0
    for line, row in zip(lines, table, strict=True):
        told = {name: value for name, value in row.items() if value is not None}
        if "query" in line:  # its candidates are videos, which have no text
            told["ranked"] = [{"key": one["key"], "score": one["score"]} for one in row["ranked"]]
        assert told == {name: value for name, value in line.items() if value is not None}
    assert figures(run.folder) == {name: value for name, value in figures(source.folder).items() if "test/" in name}


@pytest.mark.parametrize(
    ("kind", "source", "message"),
    [
        (
            "trained",
            "asked",
            r"must name a checkpoint that has .*, which would be random; run_type 'val' needs a model",
        ),
        ("asked", "trained", r"must name a checkpoint of antmmf-tasks:vqa, .*; this one brings vocabulary"),
    ],
)
def test_a_checkpoint_of_another_task_is_not_evaluated_with_a_random_head(
    kind: str, source: str, message: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run: Run = request.getfixturevalue(source)
    more = QUESTIONS if kind == "asked" else ("task_attributes.params.dim=8",)
    with pytest.raises(ConfigError, match=message):
        execute(
            tmp_path / "run",
            *more,
            "training_parameters.run_type=val",
            f"training_parameters.resume_file={run.folder}",
            "training_parameters.monitored_metric=null",
        )
    assert not (tmp_path / "run").exists()


def test_options_of_a_task_that_has_its_own_answers_are_refused(asked: Run, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "asked.jsonl").write_text('{"question": "what is it?", "options": ["red", "two"], "video": "00"}\n')
    with pytest.raises(antmmf.DataError, match="chooses among its own answers, so the options of questions must be"):
        predict(asked.folder, "--videos", clips, "--texts", tmp_path / "asked.jsonl", "--out", tmp_path)
    (tmp_path / "asked.tsv").write_text("what is it?\n")
    with pytest.raises(antmmf.DataError, match=r"asked\.tsv: holds no texts below its header"):
        predict(asked.folder, "--videos", clips, "--texts", tmp_path / "asked.tsv", "--out", tmp_path)


def test_predict_ranks_videos_as_similarity_does(
    trained: Run, model: antmmf.Model, clips: Path, tmp_path: Path
) -> None:
    texts = [trained.indexes["test"].record(row).texts[0] for row in range(3)]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n\n")
    said = predict(
        trained.folder, "--videos", clips, "--texts", tmp_path / "texts.txt", "--out", tmp_path, "--top", "4"
    )
    assert f"3 predictions: {tmp_path / 'texts.jsonl'} and texts.parquet" in said
    assert "R1" not in said
    names = [f"{number:02d}.mp4" for number in range(12)]
    scores = model.similarity([clips / name for name in names], texts)  # (12, 3)
    for number, line in enumerate(lines_of(tmp_path / "texts.jsonl")):
        best = scores[:, number].topk(4)
        assert (line["query"], line["truth"]) == (texts[number], None)
        assert [one["key"] for one in line["ranked"]] == [names[i] for i in best.indices.tolist()]
        assert [one["score"] for one in line["ranked"]] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_predict_measures_where_every_row_names_its_video(trained: Run, clips: Path, tmp_path: Path) -> None:
    records = [trained.indexes["test"].record(row) for row in range(12)]
    rows = "\n".join(f'{number:02d},"{record.texts[0]}"' for number, record in enumerate(records))
    (tmp_path / "texts.csv").write_text(f"video,caption\n{rows}\n")
    said = predict(trained.folder, "--videos", clips, "--texts", tmp_path / "texts.csv", "--out", tmp_path / "out")
    assert f"t2v/R1 {figures(trained.folder)['test/t2v/R1']:.2f} " in said
    assert lines_of(tmp_path / "out" / "texts.jsonl")[3]["truth"] == "03.mp4"


def test_predict_answers_about_the_named_video_or_about_each(asked: Run, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text(
        '{"question": "what colour is it?", "video": "05"}\n{"question": "what moves?"}\n'
    )
    predict(asked.folder, "--videos", clips, "--texts", tmp_path / "questions.jsonl", "--out", tmp_path / "out")
    lines = lines_of(tmp_path / "out" / "questions.jsonl")
    assert [line["key"] for line in lines] == ["05.mp4", *(f"{number:02d}.mp4" for number in range(12))]
    expected = load(asked.folder).answer(clips / "05.mp4", "what colour is it?")
    assert [(one["answer"], pytest.approx(one["probability"], abs=1e-6)) for one in lines[0]["answers"]] == [
        (answer.text, answer.probability) for answer in expected
    ]


def test_predict_leaves_a_video_that_cannot_be_read_out_of_the_figures(trained: Run, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for number, path in enumerate(media(trained)[:3]):
        (videos / f"{number}.mp4").write_bytes(Path(path).read_bytes())
    for number in range(3, 8):
        (videos / f"{number}.mp4").write_bytes(b"no video")
    lines = [f'{{"text": "a circle {number}", "video": "{number}"}}\n' for number in range(8)]
    (tmp_path / "texts.jsonl").write_text("".join(lines))
    said = predict(trained.folder, "--videos", videos, "--texts", tmp_path / "texts.jsonl", "--out", tmp_path)
    assert "5 of 8 texts name a video that cannot be read, and do not count" in said
    assert "n = 3" in said
    assert len(lines_of(tmp_path / "texts.jsonl")) == 8


def test_a_run_that_learns_other_questions_has_their_answers(asked: Run, tmp_path: Path) -> None:
    few = ("dataset_attributes.train.0.params.num_train=4", "training_parameters.batch_size=4")
    other = (f"training_parameters.resume_file={asked.folder}", "training_parameters.restart=true")
    run = execute(tmp_path / "run", *QUESTIONS, *few, *other)
    own = set(run.indexes["train"].answers())
    assert set(run.task.answers) == own < set(asked.task.answers)  # type: ignore[arg-type]
    assert any("missing     classifier.1.weight" in note for note in run.info.notes)
    again = execute(tmp_path / "again", *QUESTIONS, f"training_parameters.resume_file={asked.folder}", other[1])
    assert not any("missing" in note.split() for note in again.info.notes)


def test_a_trained_run_is_not_overwritten_by_one_that_trains_nothing(trained: Run) -> None:
    before = contents(trained.folder)
    kinds = ("training_parameters.run_type=predict", "training_parameters.resume=auto")
    with pytest.raises(ConfigError, match=r"save_dir: .* holds a run that was trained, whose results would be lost"):
        execute(trained.folder, *kinds, f"training_parameters.resume_file={trained.folder}")
    assert contents(trained.folder) == before


def test_predict_says_what_it_cannot_use(trained: Run, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(antmmf.DataError, match=r"latin\.txt:1: byte 0xe9 is not UTF-8"):
        predict(trained.folder, "--videos", clips, "--texts", tmp_path / "latin.txt")
    for place in ("1.mp4", "sub/1.mp4"):
        (tmp_path / "twice" / place).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "twice" / place).write_bytes(next(clips.iterdir()).read_bytes())
    (tmp_path / "texts.jsonl").write_text('{"text": "a circle", "video": "1"}\n')
    with pytest.raises(
        antmmf.DataError, match=r"texts\.jsonl:1: video 1 fits 2 files, 1\.mp4, sub/1\.mp4: write which"
    ):
        predict(trained.folder, "--videos", tmp_path / "twice", "--texts", tmp_path / "texts.jsonl")
    (tmp_path / "texts.jsonl").write_text('{"text": 5}\n')
    with pytest.raises(antmmf.DataError, match=r"texts\.jsonl:1: must have a text or .* that is not empty; got 5"):
        predict(trained.folder, "--videos", clips, "--texts", tmp_path / "texts.jsonl")
    (tmp_path / "texts.jsonl").write_text('{"text": "a circle", "video": "nobody"}\n')
    with pytest.raises(antmmf.DataError, match=r"texts\.jsonl:1: video nobody is not in the folder of --videos"):
        predict(trained.folder, "--videos", clips, "--texts", tmp_path / "texts.jsonl")
    with pytest.raises(antmmf.DataError, match="there is no such file"):
        predict(trained.folder, "--videos", clips, "--texts", tmp_path / "nothing.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(antmmf.DataError, match="holds no videos or pictures"):
        predict(trained.folder, "--videos", tmp_path / "empty", "--texts", tmp_path / "texts.jsonl")
