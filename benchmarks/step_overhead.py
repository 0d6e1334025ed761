"""What does the training loop cost beside the same steps in a bare PyTorch loop, and beside the loops of others?

Prints a table and, last, one JSON line. Each loop has a process of its own on one thread. They take turns, and between
two of them the bare loop runs: a ratio is that to the bare loop just before and after, so that a busy or slow moment of
the machine hits both; reported is the median over all rounds, with the quartiles. A step is what happens from one
request for a batch to the next. Judged is the time of the processor, because the machine may be shared; the clock's
ratio is printed beside it. Peers: ``peers.txt``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT = 1.25
STOPWATCH_LIMIT = 0.01
NUM_SAMPLES_READ = 4000


@dataclass(frozen=True)
class Contender:
    """A loop: the function that runs it in ``toys``, the package it comes from, whether ours must cost less, and what
    the package needs but does not require."""

    function: str
    package: str
    to_beat: bool = False
    needs: tuple[str, ...] = ()

    @property
    def is_here(self) -> bool:
        return all(version(package) for package in (self.package, *self.needs))


OURS, BARE = "AntMMF, default features", "bare PyTorch"
CONTENDERS = {
    BARE: Contender("steps.bare", "torch"),
    "bare PyTorch, rate set by hand": Contender("steps.bare_by_hand", "torch"),
    OURS: Contender("steps.ours", "antmmf-core"),
    "Fabric": Contender("step_peers.fabric", "lightning"),
    "accelerate": Contender("step_peers.accelerate", "accelerate", True),
    "mmengine Runner": Contender("step_peers.mmengine", "mmengine", True),
    "Lightning, barebones": Contender("step_peers.lightning_bare", "lightning", True),
    "Lightning, default": Contender("step_peers.lightning_default", "lightning", True),
    "HF Trainer": Contender("step_peers.hf_trainer", "transformers", True, ("accelerate",)),
}


@dataclass(frozen=True)
class Round:
    """Microseconds a step of the processor and on the clock, and those of the bare loop around it."""

    cpu: float
    wall: float
    bare_cpu: float
    bare_wall: float


def main() -> None:
    """Let all loops run ``--rounds`` times in turn and report them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--steps", type=int, default=300, help="that count, of each round")
    parser.add_argument("--warm", type=int, default=50, help="steps of each round before them")
    parser.add_argument("--fused", action="store_true", help="torch's fused AdamW in all loops")
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of the loops to run")
    parser.add_argument("--serve", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options)
        return
    wanted = [
        name for name in CONTENDERS if not options.only or any(part in name for part in [*options.only, BARE, OURS])
    ]
    report(measure(wanted, options), data_path(), options)


def measure(names: Sequence[str], options: argparse.Namespace) -> dict[str, list[Round]]:
    """The rounds of every loop whose package is here; the one that begins is another in each."""
    servers = {name: Server(name, options) for name in names if CONTENDERS[name].is_here}
    around = Server(BARE, options)
    rounds: dict[str, list[Round]] = {name: [] for name in servers}
    for number in range(options.rounds):
        shift = number % len(servers)
        before = around.run()
        for name in [*servers][shift:] + [*servers][:shift]:
            own, after = servers[name].run(), around.run()
            bare_cpu, bare_wall = ((first + second) / 2 for first, second in zip(before, after, strict=True))
            rounds[name].append(Round(*own, bare_cpu, bare_wall))
            before = after
    for server in (around, *servers.values()):
        server.close()
    return rounds


class Server:
    """A process that imports one loop once and runs a round when it is told to."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in close
        command = [sys.executable, __file__, "--serve", name, f"--steps={options.steps}", f"--warm={options.warm}"]
        self._process = subprocess.Popen(
            [*command, *(["--fused"] if options.fused else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"},
        )
        self._ask("ready?")

    def run(self) -> tuple[float, float]:
        """One round: microseconds a step of the processor, and on the clock."""
        cpu, wall = json.loads(self._ask("run"))
        return cpu, wall

    def close(self) -> None:
        self._process.communicate()
        self._said.close()

    def _ask(self, request: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self._said.seek(0)
            raise SystemExit(f"{self._process.args!r} failed:\n{self._said.read()[-4000:]}")
        return answer


def serve(name: str, options: argparse.Namespace) -> None:
    """Answer each line of standard input: ``run`` with a round's times. What the loop itself prints is dropped."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    loop, batches = _loop(CONTENDERS[name])
    from toys.steps import Stream

    for line in sys.stdin:
        if line.strip() == "run":
            stream = Stream(batches, warm=options.warm, steps=options.steps)
            with tempfile.TemporaryDirectory() as folder:
                loop(stream, Path(folder), options.fused)
            answers.write(json.dumps(stream.microseconds()) + "\n")
        else:
            answers.write("yes\n")
        answers.flush()


def _loop(contender: Contender) -> tuple[Callable[..., None], Sequence[Any]]:
    """The function, and the batches in the shape that it takes."""
    import torch
    from antmmf import torchvision_shim
    from toys import step_peers, steps

    torch.set_num_threads(1)
    torchvision_shim.apply()  # a torchvision that does not fit would keep lightning from being imported
    module, _, function = contender.function.partition(".")
    ready: Sequence[Any] = steps.loaded_steps() if function == "ours" else steps.pairs()
    if function == "hf_trainer":
        ready = [{"inputs": inputs, "labels": classes} for inputs, classes in steps.pairs()]
    return getattr({"steps": steps, "step_peers": step_peers}[module], function), ready


def data_path() -> dict[str, float]:
    """Microseconds a sample that the real loader takes in this process, over records whose frames are in memory."""
    command = [sys.executable, "-m", "toys.data", str(NUM_SAMPLES_READ)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def stopwatch() -> float:
    """Microseconds that a step takes to note where its time goes."""
    from antmmf.meter import PARTS, Stopwatch

    watch = Stopwatch()

    def step() -> None:
        watch.start()
        for part in PARTS:
            watch.lap(part)

    return min(timeit.repeat(step, number=2000, repeat=20)) / 2000 * 1e6


def version(package: str) -> str | None:
    """The installed version, None where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def report(rounds: Mapping[str, list[Round]], sample: Mapping[str, float], options: argparse.Namespace) -> None:
    """Print the table and the JSON line."""
    ratios = {name: statistics.quantiles([one.cpu / one.bare_cpu for one in all]) for name, all in rounds.items()}
    ratio = {name: middle for name, (_, middle, _) in ratios.items()}
    clock = {name: statistics.median(one.wall / one.bare_wall for one in all) for name, all in rounds.items()}
    took = {name: statistics.median(one.cpu for one in all) for name, all in rounds.items()}
    print(f"{'loop':<31} {'version':<10} {'us/step':>7} {'over bare':>9} {'ratio':>6} {'quartiles':>11} {'clock':>6}")
    for name, contender in CONTENDERS.items():
        if name not in rounds:
            print(f"{name:<31} not run")
            continue
        lower, middle, upper = ratios[name]
        print(
            f"{name:<31} {version(contender.package):<10} {took[name]:>7.0f} {(middle - 1) * took[BARE]:>9.0f} "
            f"{middle:>6.2f} {f'{lower:.2f}-{upper:.2f}':>11} {clock[name]:>6.2f}"
        )
    print("our data path, us a sample: " + ", ".join(f"{part} {value:.0f}" for part, value in sample.items()))
    kept = stopwatch()
    print(f"of which noting where the time goes: {kept:.2f} us a step, {kept / took[OURS]:.2%}")
    below = {name: ratio[OURS] < ratio[name] for name, loop in CONTENDERS.items() if loop.to_beat and name in rounds}
    result = {
        "benchmark": "step_overhead",
        "value": round(ratio[OURS], 4),
        "limit": LIMIT,
        "value_on_the_clock": round(clock[OURS], 4),
        "below": below,
        "not_run": [name for name in CONTENDERS if name not in rounds],
        "ratio": {name: round(value, 4) for name, value in ratio.items()},
        "us_step": {name: round(value, 1) for name, value in took.items()},
        "us_sample_data_path": sample,
        "stopwatch_share": round(kept / took[OURS], 5),
        "steps": options.rounds * options.steps,
        "fused": options.fused,
        "at": time.strftime("%Y-%m-%d"),
        "pass": ratio[OURS] <= LIMIT and all(below.values()) and kept / took[OURS] <= STOPWATCH_LIMIT,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
