"""The text towers of CLIP, Chinese-CLIP and SigLIP: the library's own features, and where their files come from."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from antmmf.assets import RunAssets
from antmmf.bind import signature_model
from antmmf.check import check_run
from antmmf.errors import CheckpointError, ComponentError
from antmmf.plan import plan_run
from antmmf.plugins import load_plugins
from antmmf.registry import Registry
from antmmf.testing import check_plugin_module, check_text_encoder
from antmmf_text import families
from antmmf_text.encoders.hf_text import HfText
from fake_hub import hub
from text_tools import without_network
from torch import Tensor
from towers import KINDS, TEXTS, saved, transformers

WORDS = ("a red circle moves left", "The green star jumps, then the red moon!", "a")


def tower(folder: Path | str, **params: Any) -> HfText:
    return HfText(model=str(folder), assets=RunAssets(texts=lambda: iter(TEXTS)), **params).eval()


def ids_of(encoder: HfText, *texts: str, length: int | None = None) -> tuple[Tensor, Tensor]:
    ids = encoder.tokenizer(texts)
    longest = length or max(map(len, ids))
    tokens = torch.tensor([row + [encoder.tokenizer.pad_id] * (longest - len(row)) for row in ids])
    return tokens, torch.tensor([[place < len(row) for place in range(longest)] for row in ids])


def library_ids(kind: str, folder: Path, *texts: str) -> dict[str, Any]:
    """As the library's own tokenizer gives them, padded as the model's page says."""
    classes = {"clip": "CLIPTokenizer", "chinese_clip": "BertTokenizer", "siglip": "PreTrainedTokenizerFast"}
    tokenizer = getattr(transformers, classes[kind]).from_pretrained(folder, local_files_only=True)
    padding = {"padding": "max_length", "max_length": 24, "truncation": True} if kind == "siglip" else {"padding": True}
    found = tokenizer(list(texts), return_tensors="pt", **padding)
    return {"input_ids": found["input_ids"]} if kind == "siglip" else dict(found)


# --- equal to the library ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_texts_vector_is_that_of_get_text_features(kind: str, tmp_path: Path) -> None:
    library = saved(kind, tmp_path)
    made = tower(tmp_path)
    with torch.no_grad():
        features = library.get_text_features(**library_ids(kind, tmp_path, *WORDS))
        found = made(*ids_of(made, *WORDS))
    expected = features if isinstance(features, Tensor) else features.pooler_output
    torch.testing.assert_close(found.pooled, expected, rtol=0, atol=1e-5)
    assert found.pooled.std() > 0.1
    assert made.dim == expected.shape[1] == found.tokens.shape[2]


@pytest.mark.parametrize("kind", KINDS)
def test_its_ids_are_the_librarys(kind: str, tmp_path: Path) -> None:
    saved(kind, tmp_path)
    made = tower(tmp_path)
    texts = [*WORDS, "Déjà vu! 红色圆形"]
    expected = library_ids(kind, tmp_path, *texts)["input_ids"].tolist()
    for own, whole in zip(made.tokenizer(texts), expected, strict=True):
        assert whole[: len(own)] == own
        assert set(whole[len(own) :]) <= {made.tokenizer.pad_id}


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_pass_the_projection_of_the_vector(kind: str, tmp_path: Path) -> None:
    saved(kind, tmp_path)
    made = tower(tmp_path)
    tokens, mask = ids_of(made, *WORDS, length=24)
    found = made(tokens, mask)
    ends = {"clip": mask.sum(1) - 1, "chinese_clip": torch.zeros(3, dtype=torch.long), "siglip": torch.full((3,), 23)}
    torch.testing.assert_close(found.tokens[torch.arange(3), ends[kind]], found.pooled, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_it_keeps_the_contract(kind: str, tmp_path: Path) -> None:
    saved(kind, tmp_path)
    check_text_encoder(tower(tmp_path))


def test_siglip_reads_its_padding_and_the_others_do_not(tmp_path: Path) -> None:
    for kind in KINDS:
        saved(kind, tmp_path / kind)
        made = tower(tmp_path / kind)
        tokens, mask = ids_of(made, *WORDS)
        more, more_mask = ids_of(made, *WORDS, length=24)
        torch.testing.assert_close(made(tokens, mask).pooled, made(more, more_mask).pooled, rtol=0, atol=1e-5)
        assert made.tower.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(("kind", "length"), [("clip", 77), ("chinese_clip", 52), ("siglip", 64)])
def test_texts_are_as_long_as_the_model_was_trained_with(kind: str, length: int, tmp_path: Path) -> None:
    saved(kind, tmp_path, positions=512 if kind == "chinese_clip" else length)
    long = " ".join(["a red star"] * 200)
    made = tower(tmp_path)
    (ids,) = made.tokenizer([long])
    assert len(ids) == length
    assert ids[-1] == made.tokenizer(["a"])[0][-1]
    assert len(tower(tmp_path, max_length=9).tokenizer([long])[0]) == 9
    assert made(*ids_of(made, long)).pooled.isfinite().all()


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_read_without_the_network(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(kind, tmp_path / "publisher/tiny")
    without_network(monkeypatch)
    by_path = tower(tmp_path / "publisher/tiny")
    in_dir = tower("publisher/tiny", weights_dir=tmp_path)
    torch.testing.assert_close(by_path.state_dict(), in_dir.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_brings_all_that_the_tower_is_made_of(kind: str, tmp_path: Path) -> None:
    saved(kind, tmp_path / "tiny")
    made = RunAssets(texts=lambda: iter(()))
    first = HfText(model=str(tmp_path / "tiny"), assets=made).eval()
    kept = json.loads(json.dumps(dict(made.values())))
    shutil.rmtree(tmp_path / "tiny")
    (tmp_path / "tiny").mkdir()  # somebody emptied it
    again = HfText(model=str(tmp_path / "tiny"), assets=RunAssets(kept, texts=lambda: iter(()))).eval()
    again.load_state_dict(first.state_dict())
    assert again.tokenizer(list(WORDS)) == first.tokenizer(list(WORDS))
    torch.testing.assert_close(again(*ids_of(again, *WORDS)).pooled, first(*ids_of(first, *WORDS)).pooled)


def test_weights_that_lack_some_of_the_text_tower_are_refused(tmp_path: Path) -> None:
    model = saved("clip", tmp_path)
    state = {name: value for name, value in model.state_dict().items() if "vision" not in name and "visual" not in name}
    model.save_pretrained(tmp_path, state_dict=dict(state))
    tower(tmp_path)  # the vision tower is nothing to it
    del state["text_projection.weight"]
    model.save_pretrained(tmp_path, state_dict=dict(state))
    with pytest.raises(CheckpointError, match=r"text_projection\.weight are missing"):
        tower(tmp_path)


def test_without_a_network_the_error_says_what_to_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    wanted = r"tokenizer\.json .* of https://huggingface\.co/openai/clip-vit-base-patch32; put it at"
    with pytest.raises(CheckpointError, match=wanted):
        tower("openai/clip-vit-base-patch32", weights_dir=tmp_path)
    with pytest.raises(CheckpointError, match=r"huggingface\.co/someone/clip; set weights_dir"):
        tower("someone/clip")


def test_sentence_pieces_alone_say_which_file_or_package_is_lacking(tmp_path: Path) -> None:
    saved("siglip", tmp_path)
    (tmp_path / "tokenizer.json").rename(tmp_path / "spiece.model")
    with pytest.raises(CheckpointError, match=r"must have tokenizer\.json, has spiece\.model .* sentencepiece") as told:
        tower(tmp_path)
    assert "\n" not in str(told.value)


def test_a_broken_vocabulary_is_one_line(tmp_path: Path) -> None:
    saved("clip", tmp_path)
    (tmp_path / "vocab.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot be read") as told:
        tower(tmp_path)
    assert "\n" not in str(told.value)


def test_hf_endpoint_is_honoured(tmp_path: Path) -> None:
    saved("clip", tmp_path / "there")
    code = """
from antmmf.assets import RunAssets
from antmmf_text.encoders.hf_text import HfText
made = HfText(model="group/model", assets=RunAssets(texts=lambda: iter(())))
print(sum(float(value.detach().double().abs().sum()) for value in made.parameters()), made.tokenizer(["a red star"]))
"""
    said, asked = hub(tmp_path / "there", code, cache=tmp_path / "cache")
    local = tower(tmp_path / "there")
    total = sum(float(value.detach().double().abs().sum()) for value in local.parameters())
    assert said == f"{total} {local.tokenizer(['a red star'])}"
    assert any(path.endswith("model.safetensors") for path in asked)


# --- random, and in configs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["openai/clip-vit-base-patch32", "google/siglip-base-patch16-224"])
def test_named_models_are_known_without_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_network(monkeypatch)
    with torch.device("meta"):
        made = tower(name, pretrained=False)
    assert made.dim == {"openai/clip-vit-base-patch32": 512}.get(name, 768)
    assert len(made.blocks()) == 12
    assert made.tokenizer.decode(made.tokenizer(["a red star"])[0]) == "a red star"


def test_a_random_clip_finds_the_end_of_texts_in_pieces_of_its_own(tmp_path: Path) -> None:
    saved("clip", tmp_path)
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).unlink()
    made = tower(tmp_path, pretrained=False)
    tokens, mask = ids_of(made, "a red star", "a")
    found = made(tokens, mask)
    torch.testing.assert_close(found.pooled, found.tokens[torch.arange(2), mask.sum(1) - 1])


def test_other_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ComponentError, match="must be clip or chinese_clip or siglip here, is 'bert'"):
        tower(tmp_path)


def test_the_family_is_found_by_its_name() -> None:
    check_plugin_module(families)
    found: Any = load_plugins(Registry())[0].hook.antmmf_resolve(kind="text_encoders", name="hf/someone/clip")
    fields = list(signature_model(found)[0].model_fields)
    assert fields == [name for name in inspect.signature(HfText).parameters if name not in ("model", "assets")]
    assert families.antmmf_resolve("text_encoders", "hf/") is None
    assert families.antmmf_resolve("vision_encoders", "hf/someone/clip") is None


def test_a_config_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    saved("chinese_clip", tmp_path)
    without_network(monkeypatch)
    for name in (str(tmp_path), "OFA-Sys/chinese-clip-vit-base-patch16", "openai/clip-vit-base-patch32"):
        overrides = [f"model_attributes.text_encoder=hf/{name}", "task_attributes.params.dim=16"]
        lines = "\n".join(check_run(plan_run("quickstart", overrides, registry=Registry())))
        assert "text:" in lines
