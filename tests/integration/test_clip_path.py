"""CLIP, Chinese-CLIP and SigLIP without training: what a run measures is what the library's own features say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from antmmf.check import check_run
from antmmf.errors import ConfigError
from antmmf.plan import plan_run
from antmmf.registry import Registry
from antmmf.run import assemble
from torch import Tensor
from torch.nn.functional import normalize

sys.path.append(str(Path(__file__).parents[1] / "text"))
from towers import KINDS, saved, transformers

PIXELS = {"siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}
CLIPS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def arguments(towers: Path, folder: Path, *, language: str = "en") -> list[str]:
    """A recipe of the CLIP path, on six clips of ``shapes``, with the towers of a folder and no training."""
    data = f"{{type: antmmf-tasks:shapes, params: {{split: test, num_test: 6, seconds: 1.0, language: {language}}}}}"
    return [
        f"model_attributes.vision_encoder={{type: hf/{towers}, params: {{normalize: true}}}}",
        f"model_attributes.text_encoder={{type: hf/{towers}}}",
        "dataset_attributes.train=[]",
        "dataset_attributes.val=[]",
        f"dataset_attributes.test=[{data}]",
        "dataset_attributes.data_root_dir=null",
        "input_attributes.sampler.params.n_clips=3",
        "input_attributes.eval_transform.params.size=32",
        "training_parameters.run_type=val+predict",
        "training_parameters.monitored_metric=null",
        "training_parameters.test_batch_size=4",
        "training_parameters.num_workers=0",
        "training_parameters.device=cpu",
        "callbacks=[antmmf-core:jsonl]",
        f"training_parameters.save_dir={folder}",
    ]


def vectors(features: Any) -> Tensor:
    """Of what ``get_*_features`` returns, which is not the same in all of the library's versions."""
    return normalize(features if isinstance(features, Tensor) else features.pooler_output, dim=-1)


def library_ids(kind: str, towers: Path, texts: list[str]) -> dict[str, Tensor]:
    """As the library's own tokenizer gives them."""
    classes = {"clip": "CLIPTokenizer", "chinese_clip": "BertTokenizer", "siglip": "PreTrainedTokenizerFast"}
    tokenizer = getattr(transformers, classes[kind]).from_pretrained(towers, local_files_only=True)
    longest: dict[str, Any] = {"padding": "max_length"} if kind == "siglip" else {"padding": True}
    found = tokenizer(texts, return_tensors="pt", truncation=True, max_length=24, **longest)
    return {"input_ids": found["input_ids"]} if kind == "siglip" else dict(found)


@pytest.mark.parametrize("kind", KINDS)
def test_without_training_similarities_are_those_of_the_librarys_features(kind: str, tmp_path: Path) -> None:
    library = saved(kind, tmp_path / "towers")
    recipe, language = ("cn_clip_b16_vatex_zh", "zh") if kind == "chinese_clip" else ("clip_b32_vatex_en", "en")
    given = arguments(tmp_path / "towers", tmp_path / "run", language=language)
    run = assemble(plan_run(f"finetune/{recipe}", given, registry=Registry()))

    index = run.indexes["test"]
    rows = {int(id): row for row, id in enumerate(index.ids)}
    frames: dict[str, Tensor] = {}
    texts: dict[str, str] = {}
    for batch in (batch for step in run.loaders["test"].epoch(0) for batch in step.batches):
        for id, clips in zip(batch.ids.tolist(), batch.frames, strict=True):  # (3, 1, 3, 32, 32) uint8
            record = index.record(rows[id])
            frames[record.key], texts[record.key] = clips[:, 0], record.texts[0]
    mean, std = (torch.tensor(values)[:, None, None] for values in PIXELS.get(kind, CLIPS))
    with torch.no_grad():
        pixels = torch.cat([(each / 255 - mean) / std for each in frames.values()])
        seen = vectors(library.get_image_features(pixel_values=pixels)).unflatten(0, (-1, 3))
        read = vectors(library.get_text_features(**library_ids(kind, tmp_path / "towers", list(texts.values()))))
    expected = read @ normalize(seen.mean(1), dim=-1).T  # frames of length 1, their mean, again of length 1: meanP

    run.execute()
    lines = (tmp_path / "run" / "predictions" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [line for line in map(json.loads, lines) if "query" in line]
    assert len(asked) == len(texts) == 6
    found = {(line["query"], each["key"]): each["score"] for line in asked for each in line["ranked"]}
    wanted = {(t, key): float(expected[i, j]) for i, t in enumerate(texts.values()) for j, key in enumerate(frames)}
    assert found == pytest.approx(wanted, abs=1e-5)
    assert max(wanted.values()) - min(wanted.values()) > 1e-2


def test_a_run_without_training_and_checkpoint_refuses_what_would_be_random(tmp_path: Path) -> None:
    saved("clip", tmp_path / "towers")
    given = [*arguments(tmp_path / "towers", tmp_path / "run"), "task_attributes.params.dim=8"]
    plan = plan_run("finetune/clip_b32_vatex_en", given, registry=Registry())
    said = "must name a checkpoint that has vision_projection.weight, text_projection.weight, which would be random"
    with pytest.raises(ConfigError, match=said):
        assemble(plan)
    with pytest.raises(ConfigError, match=said):
        check_run(plan, files=False)
    check_run(plan_run("finetune/clip_b32_vatex_en", given[:-1], registry=Registry()), files=False)
    assert not (tmp_path / "run").exists()


def test_an_encoder_that_is_not_pretrained_needs_a_checkpoint_for_a_run_without_training(tmp_path: Path) -> None:
    saved("clip", tmp_path / "towers")
    given = [*arguments(tmp_path / "towers", tmp_path), "model_attributes.text_encoder.params.pretrained=false"]
    with pytest.raises(ConfigError, match=r"'val\+predict' needs weights: set training_parameters.resume_file"):
        plan_run("finetune/clip_b32_vatex_en", given, registry=Registry())
