"""What do checkpoints cost a run that saves every 100 of 1,000 steps: in the background, in the foreground, not at all?

The three take turns every 100 steps, in an order that changes, so that a busy moment hits all of them. A share is the
median over pairs of neighbours. Prints a table and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from antmmf.checkpoint import Checkpoints
from antmmf.contracts import RunState
from torch import nn

LIMIT = 0.01
INTERVAL, STEPS = 100, 1_000
DEPTH, BATCH = 5, 256
MODES = ("none", "background", "foreground")


class Training:
    """Square layers with AdamW, whose two states are saved too."""

    def __init__(self, width: int) -> None:
        layers = [layer for _ in range(DEPTH) for layer in (nn.Linear(width, width), nn.ReLU())]
        self.model = nn.Sequential(*layers)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.inputs = torch.randn(BATCH, width)
        self.num_steps = 0

    def steps(self, between: Callable[[], object]) -> None:
        """``INTERVAL`` steps, and ``between`` after each."""
        for _ in range(INTERVAL):
            self.model(self.inputs).square().mean().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.num_steps += 1
            between()


def main() -> None:
    """Time ``--rounds`` times 1,000 steps of each mode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--width", type=int, default=500, help="of the layers; 500 makes 1.25 M parameters")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        stores = {mode: Checkpoints(Path(folder) / mode, max_ckpt_num=2) for mode in MODES[1:]}
        seconds = measure(Training(options.width), stores, options.rounds)
        size = sum(file.stat().st_size for file in (Path(folder) / "background").glob("step_*/*")) / 2
    report(seconds, {mode: store.longest_stall for mode, store in stores.items()}, size, options.rounds)


def measure(training: Training, stores: dict[str, Checkpoints], rounds: int) -> dict[str, list[float]]:
    """Seconds of every 100 steps with the save before them, by mode; a first turn of each is not counted."""
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    for turn in range(1 + rounds * STEPS // INTERVAL):
        for mode in MODES[turn % 3 :] + MODES[: turn % 3]:
            started = time.perf_counter()
            store = stores.get(mode)
            if store is not None:
                state = RunState(step=training.num_steps)
                model, optimizer = training.model.state_dict(), training.optimizer.state_dict()
                store.save(state, model=model, optimizer=optimizer, in_background=mode == "background")
            training.steps(store.finished if store is not None else int)
            if store is not None:
                store.wait()  # or its end would be on another's account
            if turn:
                seconds[mode].append(time.perf_counter() - started)
            elif store is not None:
                store.longest_stall = 0.0
    return seconds


def report(seconds: dict[str, list[float]], stalls: dict[str, float], size: float, rounds: int) -> None:
    """Print the table and the JSON line."""
    added = {
        mode: statistics.median(own / alone - 1 for own, alone in zip(values, seconds["none"], strict=True))
        for mode, values in seconds.items()
    }
    print(f"{rounds} rounds, checkpoints of {size / 1e6:.0f} MB")
    print(f"{'saving':<12} {'1,000 steps':>12} {'added':>8} {'longest stall':>15}")
    for mode, values in seconds.items():
        stall = f"{1000 * stalls[mode]:.0f} ms" if mode in stalls else "-"
        print(f"{mode:<12} {sum(values) / rounds:>10.2f} s {100 * added[mode]:>6.2f} % {stall:>15}")
    result = {
        "benchmark": "async_save",
        "value": round(added["background"], 5),
        "limit": LIMIT,
        "foreground_value": round(added["foreground"], 5),
        "longest_stall_s": round(stalls["background"], 5),
        "foreground_stall_s": round(stalls["foreground"], 5),
        "added_ms_per_save": round(1000 * added["background"] * statistics.median(seconds["none"]), 2),
        "checkpoint_mb": round(size / 1e6, 1),
        "step_ms": round(1000 * statistics.median(seconds["none"]) / INTERVAL, 3),
        "pass": added["background"] <= LIMIT,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
