"""Momentum contrast goes on where it was: queues and momentum encoders are part of the checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from antmmf.plan import plan_run
from antmmf.registry import Registry
from antmmf.run import Run, assemble
from antmmf_tasks.tasks.snps3 import Snps3
from safetensors.torch import load_file

TINY = (
    "callbacks=[antmmf-core:jsonl]",
    "training_parameters.max_iterations=6",
    "training_parameters.batch_size=8",
    "training_parameters.test_batch_size=8",
    "training_parameters.snapshot_interval=2",
    "training_parameters.evaluation_interval=100",
    "training_parameters.log_interval=1",
    "training_parameters.max_ckpt_num=10",
    "training_parameters.num_workers=0",
    "training_parameters.device=cpu",
    "model_attributes.vision_encoder.params.depth=1",
    "model_attributes.text_encoder.params.layers=1",
    "model_attributes.text_encoder.params.dropout=0.1",
    "input_attributes.sampler.params.n_clips=2",
    "task_attributes.params.contrast={type: moco, params: {video_queue: 24, text_queue: 20, momentum: 0.9}}",
    *(
        f"dataset_attributes.{split}.0.params.{name}={value}"
        for split in ("train", "val")
        for name, value in (("num_train", 40), ("num_val", 8), ("seconds", 1.0))
    ),
)


def run_in(folder: Path, *more: str) -> Run:
    overrides = (*TINY, f"training_parameters.save_dir={folder}", *more)
    return assemble(plan_run("quickstart_snps3", overrides, registry=Registry()))


def test_queues_and_momentum_encoders_survive_a_resume_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in(tmp_path / "whole").execute()

    usual, steps = Snps3.after_step, []

    def dies(self: Snps3) -> None:
        steps.append(len(steps) + 1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        usual(self)

    with monkeypatch.context() as patch:
        patch.setattr(Snps3, "after_step", dies)
        with pytest.raises(KeyboardInterrupt):
            run_in(tmp_path / "resumed").execute()
    again = run_in(tmp_path / "resumed", "training_parameters.resume=auto")
    assert again.state.step == 2
    again.execute()

    path = "checkpoints/step_{:06}/model.safetensors"
    early, one, two = (
        load_file(tmp_path / name / path.format(step)) for name, step in (("whole", 2), ("whole", 6), ("resumed", 6))
    )
    assert {"contrast.video_keys", "contrast.text_keys", "contrast.places"} <= one.keys()
    assert one["contrast.places"].tolist() == [6 * 8 * 2 % 24, 6 * 8 % 20]
    for name, tensor in one.items():
        assert tensor.equal(two[name]), name
    followers = [name for name in one if name.startswith("keys.text.") and name.endswith("query.weight")]
    for name in ("contrast.text_keys", *followers):
        assert not one[name].equal(early[name]), name
    assert followers
    assert not one[followers[0]].equal(one[followers[0].removeprefix("keys.")])
