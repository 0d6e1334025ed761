"""``timm/...`` and ``hf/...`` in configs and on the command line."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from antmmf.bind import signature_model
from antmmf.check import check_run
from antmmf.cli.main import main
from antmmf.errors import ComponentError, ConfigError
from antmmf.plan import plan_run
from antmmf.plugins import load_plugins
from antmmf.registry import Registry
from antmmf.testing import check_plugin_module
from antmmf_vision import families
from antmmf_vision.encoders.timm_frames import TimmFrames
from hf_tools import config


def test_the_hook_is_sound_and_costs_no_torch() -> None:
    check_plugin_module(families)


def resolve(name: str, *, kind: str = "vision_encoders") -> Any:
    return load_plugins(Registry())[0].hook.antmmf_resolve(kind=kind, name=name)


def test_other_names_are_left_to_others() -> None:
    assert resolve("timm/resnet50", kind="text_encoders") is None
    assert resolve("other/resnet50") is None
    assert resolve("timm/") is None


def test_the_schema_is_the_encoders_but_for_the_models_name() -> None:
    target = resolve("timm/test_vit")
    fields = list(signature_model(target)[0].model_fields)
    assert fields == [name for name in inspect.signature(TimmFrames).parameters if name != "model"]
    made = target(pretrained=False, dim=None)
    assert isinstance(made, TimmFrames)
    assert made.dim == 64


def test_an_unknown_timm_model_gets_a_suggestion() -> None:
    with pytest.raises(ComponentError, match=r"timm has no model 'resnet5O' \(did you mean 'resnet50'\?\)"):
        resolve("timm/resnet5O")


# --- configs ----------------------------------------------------------------------------------------------------------

WITH_DIM = "task_attributes.params.dim=16"


def check(encoder: str) -> str:
    """What ``antmmf check`` says of the quick start with another encoder; its frames are 8 clips of 64 x 64 pixels."""
    plan = plan_run("quickstart", [f"model_attributes.vision_encoder={encoder}", WITH_DIM], registry=Registry())
    return "\n".join(check_run(plan))


@pytest.mark.parametrize("encoder", ["timm/resnet50", "timm/pvt_v2_b2", "video_swin"])
def test_pretrained_encoders_are_checked_without_their_weights(encoder: str, no_network: list[object]) -> None:
    assert "vision: 8 clips of 1 frames of 64 x 64 -> tokens (8, 768)" in check(encoder)
    assert no_network == []


def test_a_transformers_folder_is_checked_without_its_weights(tmp_path: Path, no_network: list[object]) -> None:
    made = config("clip")
    made.vision_config.image_size = 64
    made.save_pretrained(tmp_path)
    assert "-> tokens (512, 24)" in check(f"{{type: hf/{tmp_path}, params: {{output: grid}}}}")
    assert no_network == []


def test_frames_smaller_than_the_square_of_an_encoder_are_sound() -> None:
    assert "tokens (8, 768)" in check("timm/vit_tiny_patch16_224")


@pytest.mark.parametrize(
    ("encoder", "told"),
    [
        ("timm/resnet5O", r"vision_encoder.type: timm has no model 'resnet5O' \(did you mean 'resnet50'\?\)"),
        ("{type: timm/resnet50, params: {pol: mean}}", r"params.pol: is not a parameter of timm/resnet50 .*'pool'"),
        ("{type: timm/resnet50, params: {model: x}}", r"params.model: is not a parameter of timm/resnet50"),
        (
            "{type: timm/resnet50, params: {pretrained: x.pth}}",
            r"model_attributes.vision_encoder: x.pth does not exist",
        ),
        ("hf//no/such", r"model_attributes.vision_encoder: hf//no/such: there is no folder /no/such"),
        ("{type: video_swin, params: {size: huge}}", r"params.size: must be .*'tiny'"),
        ("{type: video_swin, params: {gradient_checkpointing: [true]}}", r"gradient_checkpointing: must have 4 values"),
    ],
)
def test_what_is_wrong_is_told_before_a_run(encoder: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check(encoder)


# --- antmmf show ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["timm/resnet50", "vision_encoders/timm/resnet50"])
def test_show_prints_a_member_of_a_family(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["show", name])
    assert not end.value.code
    shown = capsys.readouterr().out
    assert "timm/resnet50  vision encoder of antmmf-vision" in shown
    assert "temporal                'mean' | 'attention' | 'transformer'  default 'mean'" in shown
    assert "  model " not in shown


def test_show_suggests_a_timm_model(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["show", "timm/resnet5O"])
    assert end.value.code == 2
    assert "timm has no model 'resnet5O' (did you mean 'resnet50'?)" in capsys.readouterr().err
