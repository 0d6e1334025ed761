"""Kill a training run again and again, at random moments and inside of saves; is its end that of a run left alone?

``python kill_sweep.py FOLDER KILLS SEED`` prints one JSON line. The victims are forked: torch is imported once.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from antmmf.checkpoint import Checkpoints, load_checkpoint
from antmmf.contracts import RunState
from antmmf.optim import AdamW, Cosine, build_optimizer
from antmmf.plugins import new_manager
from antmmf.trainer import Trainer, TrainSettings
from engine_toys import ToyTask, toy_loader

STEPS = 24
OPERATIONS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")


def train(folder: Path) -> None:
    """Go on from the newest whole checkpoint in ``folder``, to the end."""
    torch.manual_seed(3)
    task = ToyTask()
    checkpoints = Checkpoints(folder / "checkpoints", max_ckpt_num=2)
    trainer = Trainer(
        task,
        optimizer=build_optimizer(AdamW(lr=1e-2), task),
        schedule=Cosine(),
        loader=toy_loader(folder / "data"),
        settings=TrainSettings(max_steps=STEPS, snapshot_interval=2, async_save=True),
        hook=new_manager().hook,
        checkpoints=checkpoints,
    )
    newest = checkpoints.newest_whole()
    trainer.fit(trainer.restore(load_checkpoint(newest)) if newest else RunState())
    checkpoints.wait()


def kill_at(number: int, folder: Path) -> None:
    """Kill this process when it is about to do its ``number``-th operation on a file in ``folder``."""
    count = itertools.count(1)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        is_ours = event in OPERATIONS or (event == "open" and str(arguments[0]).startswith(str(folder)))
        if is_ours and next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def live(act: Callable[[], None], *, seconds: float | None = None) -> bool:
    """Do ``act`` in a fork, killed after ``seconds``; did it get to its end?"""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), f"the run failed with {code}"
    return code == 0


def sweep(folder: Path, *, kills: int, seed: int) -> dict[str, Any]:
    """Kill lives of one run after another, half of them inside of saves; compare each run's end with a whole one's."""
    rng = np.random.default_rng(seed)
    started = time.perf_counter()
    assert live(lambda: train(folder / "whole"))
    duration, num_killed, num_inside, num_runs, num_equal = time.perf_counter() - started, 0, 0, 0, 0
    goal = load_checkpoint(folder / "whole/checkpoints" / f"step_{STEPS:06d}")
    while num_killed < kills:
        run, ended = folder / f"run{num_runs}", False
        while not ended:
            before = remains(run)
            if num_killed == kills:
                ended = live(lambda run=run: train(run))  # type: ignore[misc]
            elif rng.random() < 0.5:
                ended = live(lambda run=run: train(run), seconds=rng.uniform(0, duration / 2))  # type: ignore[misc]
            else:
                number = int(rng.integers(1, 150))
                ended = live(lambda run=run, number=number: (kill_at(number, run), train(run)))  # type: ignore[misc]
            num_killed += not ended
            num_inside += bool(remains(run) - before)
        num_runs += 1
        end = load_checkpoint(Checkpoints(run / "checkpoints").newest_whole())  # type: ignore[arg-type]
        same = all(torch.equal(goal.model[name], end.model[name]) for name in goal.model)
        num_equal += same and end.state == goal.state
    seconds = round(time.perf_counter() - started)
    return {"kills": num_killed, "inside": num_inside, "runs": num_runs, "equal": num_equal, "seconds": seconds}


def remains(run: Path) -> set[tuple[str, int]]:
    """What killed saves have left behind."""
    return {(path.name, path.stat().st_ino) for path in (run / "checkpoints").glob(".*")}


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.basicConfig(stream=sys.stderr)
    report = sweep(Path(sys.argv[1]), kills=int(sys.argv[2]), seed=int(sys.argv[3]))
    sys.stdout.write(json.dumps(report) + "\n")
