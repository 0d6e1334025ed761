from __future__ import annotations

import torch
from antmmf.distributed import parallel
from torch import nn


def test_convolutions_over_pictures_become_channels_last_and_those_over_videos_stay() -> None:
    """Module.to(memory_format=...) fails on the five dimensions of a Conv3d."""
    task = nn.ModuleList([nn.Conv2d(3, 8, 3), nn.Conv3d(3, 8, 3), nn.Linear(3, 8)])
    before = {name: value.clone() for name, value in task.state_dict().items()}
    parallel.prepare(task, compile=False, activation_checkpointing=False, channels_last=True, sharded=False)
    assert task[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not task[0].weight.is_contiguous()
    assert task[1].weight.is_contiguous()
    assert all(value.equal(before[name]) for name, value in task.state_dict().items())
