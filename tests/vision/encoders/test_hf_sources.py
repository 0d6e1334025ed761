"""Where weights and processors of transformers' models come from: folders, the cache, the Hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from antmmf.errors import CheckpointError
from antmmf.testing import check_vision_encoder
from antmmf_vision.encoders.hf_vision import HfVision
from fake_hub import hub
from hf_tools import FRAMES, config, encoder, saved
from torch._subclasses.fake_tensor import FakeTensorMode


@pytest.mark.parametrize("kind", ["clip", "videomae"])
@pytest.mark.parametrize("by", ["folder", "weights_dir", "last part"])
def test_a_folder_is_read_without_the_network(kind: str, by: str, tmp_path: Path, no_network: list[object]) -> None:
    library = saved(kind, tmp_path / ("model" if by == "last part" else "group/model"))
    name = str(tmp_path / "group/model") if by == "folder" else "group/model"
    made = HfVision(model=name, weights_dir=None if by == "folder" else tmp_path)
    theirs = getattr(library, "vision_model", library).state_dict()
    assert all(value.equal(theirs[name]) for name, value in made.backbone.state_dict().items())
    assert no_network == []


def test_a_folder_with_only_a_config_gives_random_weights(tmp_path: Path, no_network: list[object]) -> None:
    config("timesformer").save_pretrained(tmp_path)
    check_vision_encoder(encoder(tmp_path, pretrained=False), clips=1, frames=FRAMES)
    with pytest.raises(CheckpointError, match=r"cannot be read: .*model.safetensors"):
        encoder(tmp_path)
    assert no_network == []


@pytest.mark.parametrize(
    ("name", "shape", "millions"),
    [
        ("openai/clip-vit-base-patch32", (49, 512), 87.8),
        ("openai/clip-vit-base-patch16", (196, 512), 86.2),
        ("openai/clip-vit-large-patch14", (256, 768), 304.0),
        ("OFA-Sys/chinese-clip-vit-base-patch16", (196, 512), 86.2),
        ("google/siglip-base-patch16-224", (196, 768), 92.9),
    ],
)
def test_models_whose_config_is_shipped_are_checked_without_the_network(
    name: str, shape: tuple[int, int], millions: float, no_network: list[object]
) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        made = HfVision(model=name, output="grid")
        tokens = made(torch.zeros(1, 1, 1, 3, 224, 224, dtype=torch.uint8), torch.tensor([[224, 224]])).tokens
    assert tuple(tokens.shape[1:]) == shape
    assert sum(parameter.numel() for parameter in made.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)
    assert no_network == []


def test_weights_of_half_precision_are_computed_with_in_float32(tmp_path: Path) -> None:
    saved("clip", tmp_path).half().save_pretrained(tmp_path)
    assert {parameter.dtype for parameter in encoder(tmp_path).parameters()} == {torch.float32}


def test_weights_that_leave_something_random_are_refused(tmp_path: Path) -> None:
    library = saved("clip", tmp_path)
    tensors = {name: value for name, value in library.state_dict().items() if "layers.1.mlp" not in name}
    library.save_pretrained(tmp_path, state_dict=tensors)
    with pytest.raises(CheckpointError, match=r"must fill the model; .*layers.1.mlp.* and 1 more are missing"):
        encoder(tmp_path)
    tensors = {name: value for name, value in library.state_dict().items() if not name.startswith("text_model")}
    library.save_pretrained(tmp_path, state_dict=tensors)  # the text half is not needed
    encoder(tmp_path)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no folder /no/such"):
        HfVision(model="/no/such")
    with pytest.raises(CheckpointError, match=r"must be a folder with config.json and weights; it has none"):
        encoder(tmp_path)
    with pytest.raises(CheckpointError, match="weights_dir: must be a folder, /no/such is none"):
        HfVision(model="group/model", weights_dir=Path("/no/such"))


def test_without_a_network_the_error_says_what_to_download_and_where_to_put_it(
    tmp_path: Path, no_network: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(CheckpointError) as caught:
        HfVision(model="group/model-that-is-nowhere", weights_dir=tmp_path)
    files = "config.json, model.safetensors and preprocessor_config.json"
    told = (
        f"get {files} of https://huggingface.co/group/model-that-is-nowhere; put it at {tmp_path}/group/model-that-is"
    )
    assert told in str(caught.value)
    assert no_network


def test_without_a_network_the_cache_knows_which_processor_files_do_not_exist(
    tmp_path: Path, no_network: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--group--model"
    for name, content in {
        "refs/main": "0" * 40,
        f"snapshots/{'0' * 40}/config.json": config("clip_vision_model").to_json_string(),
        f".no_exist/{'0' * 40}/preprocessor_config.json": "",
        f".no_exist/{'0' * 40}/video_preprocessor_config.json": "",
        f".no_exist/{'0' * 40}/processor_config.json": "",
    }.items():
        (cached / name).parent.mkdir(parents=True, exist_ok=True)
        (cached / name).write_text(content, encoding="utf-8")
    made = HfVision(model="group/model", pretrained=False)
    assert (-made.pixels.shift.flatten()[0] * 0.26862954).item() == pytest.approx(0.48145466)  # CLIP's own
    (cached / ".no_exist" / ("0" * 40) / "processor_config.json").unlink()
    with pytest.raises(CheckpointError, match="the download failed"):
        HfVision(model="group/model", pretrained=False)
    assert no_network  # it asked, and did not get through


def test_hf_endpoint_is_honoured(tmp_path: Path) -> None:
    saved("clip", tmp_path / "there")
    settings = {"image_mean": [0.25, 0.5, 0.75], "image_std": [0.5, 0.5, 0.5]}
    (tmp_path / "there/preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    code = """
import json
from antmmf_vision.encoders.hf_vision import HfVision
made = HfVision(model="group/model")
total = sum(float(parameter.detach().double().sum()) for parameter in made.backbone.parameters())
print(json.dumps([total, (-made.pixels.shift.flatten() * 0.5).tolist()]))
"""
    said, asked = hub(tmp_path / "there", code, cache=tmp_path / "cache")
    total, mean = json.loads(said)
    local = encoder(tmp_path / "there").backbone.parameters()
    assert total == pytest.approx(sum(float(value.detach().double().sum()) for value in local))
    assert mean == pytest.approx([0.25, 0.5, 0.75])
    assert any(path.endswith("model.safetensors") for path in asked)


# --- training ---------------------------------------------------------------------------------------------------------
