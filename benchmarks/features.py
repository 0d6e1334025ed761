"""How much faster is an epoch on stored features than on the frozen encoder that made them, and are the figures equal?

A model with a frozen backbone of timm is trained on the embedded `shapes`, on one thread: with videos decoded and
encoded in every epoch (live), and on what ``antmmf embed --features`` wrote of them (stored). The two take turns; a
ratio is of neighbours, and counts what the loop takes from a request for a batch to the next, so not the start of a
run, nor its evaluation. Prints a table and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from antmmf.cli.main import cli
from antmmf.plan import plan_run
from antmmf.registry import Registry
from antmmf.run import Run, assemble

LIMIT, TOLERANCE = 20.0, 1e-4


def main() -> None:
    """Train ``--rounds`` times on each, from one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--videos", type=int, default=64, help="of an epoch")
    parser.add_argument("--model", default="timm/vit_tiny_patch16_224", help="the frozen encoder")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = train(folder / "base", options, "training_parameters.max_iterations=1").folder
        config, features = base / "config.yml", folder / "features"
        words = [str(base), "--features", f"--data={config}", f"--out={features}", f"--device={options.device}"]
        cli.main(["embed", *words], standalone_mode=False, obj=False)
        size = sum(path.stat().st_size for path in features.rglob("*.arrow"))
        rounds: list[tuple[float, float]] = []
        gaps: list[float] = []
        for number in range(options.rounds):
            start = ("training_parameters.restart=true", f"training_parameters.resume_file={base}")
            live = train(folder / f"live{number}", options, *start)
            stored = train(folder / f"stored{number}", options, *start, f"input_attributes.features={features}")
            rounds.append((seconds(live), seconds(stored)))
            gaps.append(difference(live.folder, stored.folder))
        report(rounds, gaps, size / (options.videos + 24), options)


def train(folder: Path, options: argparse.Namespace, *more: str) -> Run:
    """The quickstart with another encoder, which is frozen, one epoch, and val and test."""
    splits = ("train", "val", "test")
    sizes = {"num_train": options.videos, "num_val": 12, "num_test": 12, "seconds": 1.0}
    arguments = (
        *(f"dataset_attributes.{split}.0.params.{key}={value}" for split in splits for key, value in sizes.items()),
        f"model_attributes.vision_encoder.type={options.model}",
        "model_attributes.vision_encoder.params={pretrained: false, dim: 128}",
        "task_attributes.params.shuffle_control=false",
        "input_attributes.reader=antmmf-vision:auto",
        "input_attributes.sampler.type=antmmf-vision:uniform",
        "input_attributes.train_transform=null",
        "training_parameters.freeze=[vision.*]",
        "training_parameters.batch_size=16",
        "training_parameters.test_batch_size=16",
        "training_parameters.max_epochs=1",
        "training_parameters.max_iterations=null",
        "training_parameters.evaluation_interval=null",
        "training_parameters.log_interval=1",
        "training_parameters.num_workers=0",
        "training_parameters.enable_amp=false",
        f"training_parameters.device={options.device}",
        "callbacks=[antmmf-core:jsonl]",
        f"training_parameters.save_dir={folder}",
    )
    run = assemble(plan_run("quickstart", [*arguments, *more], registry=Registry()))
    run.execute()
    return run


def seconds(run: Run) -> float:
    """What the steps took."""
    assert run.trainer is not None
    return sum(run.trainer.meter.total.values())


def difference(one: Path, other: Path) -> float:
    """The largest difference of any loss or figure of two runs."""
    pairs = zip(_values(one), _values(other), strict=True)
    return max(abs(a - b) for a, b in pairs)


def _values(folder: Path) -> list[float]:
    figures: dict[str, dict[str, Any]] = json.loads((folder / "results.json").read_text())["figures"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [*(line["loss"] for line in lines if "loss" in line), *(figures[name]["value"] for name in sorted(figures))]


def report(rounds: list[tuple[float, float]], gaps: list[float], size: float, options: argparse.Namespace) -> None:
    """Print the table and the JSON line."""
    ratios = [live / stored for live, stored in rounds]
    value = statistics.median(ratios)
    print(f"{options.model} frozen, {options.videos} videos an epoch, {size / 1e6:.2f} MB of features a video")
    print(f"{'round':<8}{'live, s':>10}{'stored, s':>12}{'ratio':>8}{'largest difference':>22}")
    for number, ((live, stored), ratio, gap) in enumerate(zip(rounds, ratios, gaps, strict=True), 1):
        print(f"{number:<8}{live:>10.2f}{stored:>12.3f}{ratio:>8.1f}{gap:>22.1e}")
    line = {
        "benchmark": "features",
        "value": round(value, 1),
        "low": round(min(ratios), 1),
        "high": round(max(ratios), 1),
        "limit": LIMIT,
        "difference": max(gaps),
        "tolerance": TOLERANCE,
        "pass": value >= LIMIT and max(gaps) <= TOLERANCE,
        "torch": torch.__version__,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
