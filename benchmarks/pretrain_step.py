"""How fast is the whole pre-training step beside a bare loop of the same module, and what does each loss cost?

1. The run that ``antmmf run quickstart_snps3`` makes (decoded clips through the loader's worker, the trainer with its
   defaults), and the same task in a loop written by hand on batches that are in memory. They take turns in one process:
   a ratio is that to the bare loop's turns just before and after, reported is the median over all rounds. Every turn
   begins with steps that do not count, so that none lives on batches that were made during the other's. On a CPU the
   time of the processor is judged, because the machine may be shared, and that reading a batch takes less of it than a
   step, so that a worker keeps up; the clock's ratio is printed beside it. On an accelerator the clock is judged.
2. The bare loop with each loss left out, beside the one with all of them.

On a CPU with the sizes of the quickstart; on an accelerator with Swin-S, BERT-base and bf16. Prints two tables and,
last, one JSON line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from antmmf.batch import Batch
from antmmf.data.loader import LoadedStep
from antmmf.device import choose_device
from antmmf.plan import plan_run
from antmmf.registry import Registry
from antmmf.run import Run, assemble
from antmmf.step import autocast
from antmmf.task import ContrastiveTask, Share
from torch import nn

LIMIT, LVWM_LIMIT = 0.97, 0.10
LOSSES = ("contrast", "match", "gvtm", "mlm_text", "mlm", "lvwm")
WARM = 3  # steps of the run at the begin of a turn: more than the worker has ready
IN_MEMORY = 16  # batches of the bare loop: all clips once

COMMON = (
    "dataset_attributes.train.0.params.num_train=256",
    "training_parameters.num_threads=1",
    "training_parameters.run_type=train",
    "training_parameters.monitored_metric=null",
    "training_parameters.evaluation_interval=null",
    "callbacks=[console, jsonl]",
)
SIZES = {
    "tiny": ("training_parameters.batch_size=16",),
    "base": (
        "dataset_attributes.train.0.params.size=256",
        "model_attributes.vision_encoder={type: video_swin, params: {pretrained: false}}",
        "model_attributes.text_encoder.params={name: bert-base-uncased, pretrained: false, attention: true}",
        "input_attributes.reader.params.short_side=256",
        "input_attributes.sampler.params.n_clips=4",
        "input_attributes.train_transform.params.size=224",
        "training_parameters.batch_size=32",
        "training_parameters.num_workers=auto",
    ),
}


def main() -> None:
    """Measure both and print them."""
    options = parsed()
    device = choose_device("auto")
    sizes = options.sizes or ("tiny" if device.type == "cpu" else "base")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare = assembled(sizes, folder / "bare", "training_parameters.num_workers=0")
        batches, reading = read(bare)
        whole = assembled(sizes, folder / "whole")
        loader = Turns(whole, bare=Bare(bare, batches), rounds=options.rounds, steps=options.steps)
        loader.fit()
        seconds = leave_one_out(sizes, folder, batches, options)
    report(sizes, loader, reading, seconds, options)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", choices=sorted(SIZES), help="else those that fit the device")
    for name, default in (("rounds", 15), ("steps", 12)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def assembled(sizes: str, folder: Path, *arguments: str) -> Run:
    """A run of the recipe, ready to be trained."""
    plan = plan_run("quickstart_snps3", [*COMMON, *SIZES[sizes], *arguments], registry=Registry())
    return assemble(plan, folder=folder)


def read(run: Run) -> tuple[list[Batch], float]:
    """Batches of a run without workers, of clips that are decoded already, and the processor time that each took."""
    steps = run.loaders["train"].stream(1)
    for _ in range(IN_MEMORY):
        next(steps)
    started = time.process_time()
    batches = [next(steps).batches[0] for _ in range(IN_MEMORY)]
    return batches, (time.process_time() - started) / IN_MEMORY


@dataclass(frozen=True)
class Turn:
    """Seconds of some steps: on the clock, and of this process's processor time."""

    wall: float
    cpu: float


class Stopwatch:
    """Waits for the device, and tells what passed since the last call."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last = (0.0, 0.0)

    def __call__(self) -> Turn:
        if self._device.type != "cpu":
            torch.accelerator.synchronize()
        now = time.perf_counter(), time.process_time()
        turn = Turn(now[0] - self._last[0], now[1] - self._last[1])
        self._last = now
        return turn


class Bare:
    """What one would write by hand around the task of ``run``, on batches that are in memory."""

    def __init__(self, run: Run, batches: Sequence[Batch]) -> None:
        assert run.trainer is not None
        assert isinstance(run.task, ContrastiveTask)
        self.task, self.optimizer, self.device, self.amp = run.task, run.trainer.optimizer, run.device, run.amp
        self.max_norm = run.trainer.settings.max_grad_l2_norm
        self.weights = [parameter for parameter in run.task.parameters() if parameter.requires_grad]
        self.batches = itertools.cycle(batches)
        self.number, self.watch = 0, Stopwatch(run.device)
        self.task.train()

    def turn(self, steps: int) -> Turn:
        """Seconds of ``steps``, after one that does not count."""
        for number in range(1 + steps):
            if number == 1:
                self.watch()
            self._step(next(self.batches).to(self.device, non_blocking=True))
        return self.watch()

    def _step(self, batch: Batch) -> None:
        rows = torch.arange(len(batch.owner), device=self.device)
        share = Share(rows, torch.ones_like(rows, dtype=torch.bool), torch.Generator().manual_seed(self.number))
        assert self.task.relate is not None
        with autocast(self.device, self.amp):
            features = replace(self.task.encode(batch), step=self.number)
            tensors, related = self.task.relate(features, share)
            compared = self.task.loss(replace(features, extras={**features.extras, **tensors}))
        terms = (*features.terms.values(), *related.values(), *compared.values())
        sum(term.weight * term.sum / term.count for term in terms if term.weight).backward()
        nn.utils.clip_grad_norm_(self.weights, self.max_norm or float("inf"))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.task.after_step()
        self.number += 1


class Turns:
    """The loader of a run, which lets the bare loop have a turn between those of the run and reads the clock."""

    def __init__(self, whole: Run, *, bare: Bare, rounds: int, steps: int) -> None:
        self.run, self._bare, self._rounds, self._steps = whole, bare, rounds, steps
        self._loader = whole.loaders["train"]
        self.turns: dict[str, list[Turn]] = {"bare": [], "antmmf": []}

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def fit(self) -> None:
        """Train ``whole``; afterwards ``turns`` has one more of the bare loop than of the run."""
        trainer = self.run.trainer
        assert trainer is not None
        trainer.loader, trainer.checkpoints = self, None  # type: ignore[assignment]
        num = WARM + self._rounds * (WARM + self._steps) + 1
        trainer.settings = replace(trainer.settings, max_steps=num)
        trainer.fit(self.run.state)
        self._loader.close()

    def stream(self, epoch: int, *, start: int = 0) -> Iterator[LoadedStep]:
        steps = self._loader.stream(epoch, start=start)
        watch = Stopwatch(self.run.device)
        yield from itertools.islice(steps, WARM)
        self.turns["bare"].append(self._bare.turn(self._steps))
        for _ in range(self._rounds):
            yield from itertools.islice(steps, WARM)
            watch()
            yield from itertools.islice(steps, self._steps)
            self.turns["antmmf"].append(watch())
            self.turns["bare"].append(self._bare.turn(self._steps))
        yield next(steps)

    def ratios(self, of: Callable[[Turn], float]) -> list[float]:
        """The run's rate as a share of the bare loop's, of each round."""
        bare = [of(turn) for turn in self.turns["bare"]]
        around = [(before + after) / 2 for before, after in itertools.pairwise(bare)]
        return [other / of(turn) for other, turn in zip(around, self.turns["antmmf"], strict=True)]


def leave_one_out(
    sizes: str, folder: Path, batches: Sequence[Batch], options: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds a turn of the bare loop with all losses (``all``) and without each, all of them in turn in each round."""
    names = ["all", *LOSSES, "all but contrast"]
    loops = {}
    for name in names:
        left_out = LOSSES[1:] if name == "all but contrast" else () if name == "all" else (name,)
        zeros = [f"task_attributes.params.weights.{loss}=0" for loss in left_out]
        loops[name] = Bare(assembled(sizes, folder / name.replace(" ", "_"), *zeros), batches)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(options.rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            turn = loops[name].turn(options.steps)
            seconds[name].append((turn.cpu if loops[name].device.type == "cpu" else turn.wall) / options.steps)
    return seconds


def report(
    sizes: str, loader: Turns, reading: float, seconds: dict[str, list[float]], options: argparse.Namespace
) -> None:
    """Print the tables and the JSON line."""
    size, device = loader.run.info.batch_size, loader.run.device
    clock = loader.ratios(lambda turn: turn.wall)
    processor = loader.ratios(lambda turn: turn.cpu)
    lower, ratio, upper = statistics.quantiles(processor if device.type == "cpu" else clock)
    worker = reading * options.steps / statistics.median(turn.cpu for turn in loader.turns["bare"])
    rates = {
        name: statistics.median(options.steps * size / turn.wall for turn in turns)
        for name, turns in loader.turns.items()
    }
    print(f"{sizes} sizes on {device}, batches of {size}, {options.rounds} rounds of {options.steps} steps")
    for name, rate in rates.items():
        print(f"{name:<24} {rate:>9.1f} samples/s")
    judged = "the processor" if device.type == "cpu" else "the clock"
    print(f"ratio {ratio:.3f} by {judged}, quartiles {lower:.3f} to {upper:.3f}; clock {statistics.median(clock):.3f}")
    print(f"reading a batch takes {worker:.1%} of the processor time of a step")
    print(f"{'left out':<24} {'ms/step':>9} {'saves':>7} {'quartiles':>14}")
    saved = {}
    for name, values in seconds.items():
        shares = [1 - value / every for value, every in zip(values, seconds["all"], strict=True)]
        low, saved[name], high = statistics.quantiles(shares)
        shown = name if name in LOSSES else {"all": "nothing"}.get(name, name)
        print(
            f"{shown:<24} {1e3 * statistics.median(values):>9.2f} {saved[name]:>7.1%} {f'{low:.1%} to {high:.1%}':>14}"
        )
    result = {
        "benchmark": "pretrain_step",
        "value": round(ratio, 4),
        "limit": LIMIT,
        "quartiles": [round(lower, 4), round(upper, 4)],
        "value_on_the_clock": round(statistics.median(clock), 4),
        "reading_share": round(worker, 4),
        "lvwm_value": round(saved["lvwm"], 4),
        "lvwm_limit": LVWM_LIMIT,
        "share_of_step": {name: round(value, 4) for name, value in saved.items() if name != "all"},
        "samples_a_second": {name: round(rate, 1) for name, rate in rates.items()},
        "sizes": sizes,
        "device": torch.get_device_module(device).get_device_name(0) if device.type == "cuda" else platform.machine(),
        "torch": torch.__version__,
        "at": time.strftime("%Y-%m-%d"),
        "pass": ratio >= LIMIT and saved["lvwm"] <= LVWM_LIMIT and (device.type != "cpu" or worker < 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
