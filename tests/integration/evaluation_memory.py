"""Evaluates and predicts 1,000 videos of 16 frames that nobody has to decode; also the ``--plugin`` file of it.

``python evaluation_memory.py FOLDER`` prints how many MiB more than before the evaluation this process held at most.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from antmmf import Clip, Encoded, Record
from antmmf.contracts import Pick, Source
from antmmf.plan import plan_run
from antmmf.registry import Registry
from antmmf.run import assemble
from torch import Tensor, nn

VIDEOS, FRAMES, SIDE, DIM = 1000, 16, 224, 768


class Many:
    """Videos that exist in name only, with one caption each."""

    def __init__(self, *, num: int = VIDEOS) -> None:
        self.num = num

    def sources(self) -> Sequence[Path]:
        return []

    def records(self) -> Iterator[Record]:
        for number in range(self.num):
            yield Record(f"v{number}", f"v{number}", texts=(f"video number {number} of many",))


class Made:
    """Frames of one colour."""

    def read(self, source: Source, pick: Pick) -> Clip:
        times = pick(np.arange(2 * FRAMES) / 4)
        colour = np.random.default_rng(int(source.path.name[1:])).integers(0, 256, 3, np.uint8)
        frames = np.empty((len(times), SIDE, SIDE, 3), np.uint8)
        frames[:] = colour
        return Clip(frames, 2 * FRAMES)


class Thumbnails(nn.Module):
    """As many and as large tokens as those of VideoSwin: a scaled thumbnail of each frame."""

    dim, image_size, masks_padding = DIM, None, False

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(DIM))

    def blocks(self) -> Sequence[nn.Module]:
        return []

    def forward(self, frames: Tensor, sizes: Tensor) -> Encoded:  # noqa: ARG002
        seen = frames[..., :: SIDE // 16, :: SIDE // 16].flatten(3).flatten(1, 2)  # (B, T, DIM)
        tokens = seen / 255 * self.scale
        return Encoded(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool), tokens.mean(1), clips=tokens)


ANTMMF_COMPONENTS = {
    "datasets": {"many": Many},
    "readers": {"made": Made},
    "vision_encoders": {"thumbnails": Thumbnails},
}

CONFIG = {
    "model_attributes": {
        "vision_encoder": "thumbnails",
        "text_encoder": {
            "type": "bert",
            "params": {
                "name": "google/bert_uncased_L-2_H-128_A-2",
                "pretrained": False,
                "layers": 1,
                "max_length": 30,
                "video_dim": DIM,
            },
        },
    },
    "task_attributes": {"type": "retrieval", "params": {"head": "mlp", "dim": 256, "match": 1.0, "rerank": 4}},
    "dataset_attributes": {"train": [{"type": "many", "params": {"num": 40}}], "test": ["many"]},
    "input_attributes": {"reader": "made", "sampler": {"type": "segments", "params": {"n_clips": FRAMES}}},
    "metrics": ["recall"],
    "callbacks": ["jsonl"],
    "training_parameters": {
        "run_type": "train",
        "max_iterations": 1,
        "batch_size": 32,
        "num_workers": 0,
        "num_threads": 1,
        "device": "cpu",
    },
}


def memory(what: str) -> int:
    """VmRSS, what this process holds, or VmHWM, what it held at most, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) >> 10


def main(folder: Path) -> None:
    (folder / "config.yml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    arguments = [f"training_parameters.save_dir={folder / 'run'}"]
    run = assemble(plan_run(str(folder / "config.yml"), arguments, registry=Registry(files=[Path(__file__)])))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the most that is held is counted anew
    before = memory("VmRSS")
    figures = run.evaluate_split("test", predict=True)
    assert figures["l2@4/t2v/R1"].n == VIDEOS
    sys.stdout.write(f"{memory('VmHWM') - before}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
