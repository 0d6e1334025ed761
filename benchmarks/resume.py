"""Is a run that was killed and resumed the run that was never stopped; what does going on cost; what do 50 M records?

Prints tables and, last, one JSON line. 3 epochs of 20 batches with dropout and random augmentation, killed (SIGKILL)
when the checkpoint of step 30 is there, resumed, and compared with an uninterrupted run. Peers: ``peers.txt``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

LIMIT_SKIP_SECONDS, LIMIT_ORDER_MB, LIMIT_FIRST_BATCH_SECONDS = 0.020, 50.0, 2.0
MIN_RECORDS = 4_000_000
OURS = "AntMMF"
WITH_AND_WITHOUT_WORKERS = [{"workers": 0}, {"workers": 2}]
STACKS: dict[str, tuple[str, tuple[str, ...], list[dict[str, int]]]] = {  # function, packages, ways to run it
    OURS: (
        "resuming.train",
        ("antmmf-core",),
        [{"workers": workers, "accumulation": parts, "ranks": 1} for parts in (1, 3) for workers in (0, 2, 4)]
        + [{"workers": workers, "accumulation": parts, "ranks": 2} for workers, parts in ((0, 1), (2, 3))],
    ),
    "HF Trainer": ("resuming_peers.hf_trainer", ("transformers", "accelerate"), WITH_AND_WITHOUT_WORKERS),
    "accelerate, stateful loader": (
        "resuming_peers.accelerate",
        ("accelerate", "torchdata"),
        WITH_AND_WITHOUT_WORKERS,
    ),
    "accelerate, with set_epoch": (
        "resuming_peers.accelerate_seedable",
        ("accelerate", "torchdata"),
        WITH_AND_WITHOUT_WORKERS,
    ),
    "Lightning": ("resuming_peers.lightning", ("lightning",), WITH_AND_WITHOUT_WORKERS),
    "Lightning + torchdata": (
        "resuming_peers.lightning_stateful",
        ("lightning", "torchdata"),
        WITH_AND_WITHOUT_WORKERS,
    ),
}


def main() -> None:
    """Run every stack in a process of its own, then the loader's measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of the stacks to run")
    parser.add_argument("--records", type=int, default=50_000_000, help="size of the large data set")
    parser.add_argument("--written", type=int, default=1_000_000, help="how many of its records differ")
    parser.add_argument("--stack", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.records < MIN_RECORDS:
        parser.error(f"--records must be at least {MIN_RECORDS:,}: batch 200,000 must be there")
    if options.stack:
        compare(options.stack)
        return
    rows = [row for name in STACKS if _wanted(name, options.only) for row in run_stack(name)]
    exact = report_runs(rows)
    large = report_large(large_index(options.records, options.written))
    result = {"benchmark": "resume", **exact, **large, "at": time.strftime("%Y-%m-%d")}
    result["pass"] = all(value for key, value in result.items() if key.endswith("_pass"))
    print(json.dumps(result))


def _wanted(name: str, only: Sequence[str]) -> bool:
    return not only or any(part in name for part in only)


def version(package: str) -> str | None:
    """The installed version, None where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


# --- killed and resumed -----------------------------------------------------------------------------------------------


def run_stack(name: str) -> list[dict[str, Any]]:
    """The rows of one stack, or one that says that it was not run."""
    versions = [version(package) for package in STACKS[name][1]]
    if None in versions:
        return [{"stack": name, "version": None}]
    done = subprocess.run(
        [sys.executable, __file__, "--stack", name], env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-4000:]}")
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return [{"stack": name, "version": " + ".join(map(str, versions)), **row} for row in rows]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}


def compare(name: str) -> None:
    """Run one stack in all its ways; each run is a process that is forked after the imports."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    function = _function(STACKS[name][0])
    rows = []
    for way in STACKS[name][2]:
        with tempfile.TemporaryDirectory() as scratch:
            folders = {part: Path(scratch) / part for part in ("whole", "again", "cut")}
            for folder in folders.values():
                folder.mkdir()
            reference = {**way, "workers": 0} if name == OURS else way  # ours: for any number of workers
            for part in ("whole", "again"):
                _run(function, folders[part], kill=False, resume=False, **(reference if part == "whole" else way))
            _run(function, folders["cut"], kill=True, resume=False, **way)
            _run(function, folders["cut"], kill=False, resume=True, **way)
            again, cut = (_difference(folders["whole"], folders[part]) for part in ("again", "cut"))
            rows.append({**way, "control": again, "resumed": cut})
    answers.write(json.dumps(rows) + "\n")
    answers.close()


def _function(name: str) -> Callable[..., None]:
    import torch
    from antmmf import torchvision_shim

    torch.set_num_threads(1)
    torchvision_shim.apply()  # a torchvision that does not fit would keep lightning from being imported
    from toys import resuming, resuming_peers

    module, _, function = name.partition(".")
    found: Callable[..., None] = getattr({"resuming": resuming, "resuming_peers": resuming_peers}[module], function)
    return found


def _run(function: Callable[..., None], folder: Path, *, kill: bool, **options: Any) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=_in_own_group, args=(function, folder), kwargs={"kill": kill, **options}
    )
    process.start()
    process.join()
    expected = -9 if kill else 0
    if process.exitcode != expected:
        raise SystemExit(f"{function.__name__} {options} ended with {process.exitcode}, not {expected}")


def _in_own_group(function: Callable[..., None], folder: Path, *, ranks: int = 1, **options: Any) -> None:
    """Run in ``ranks`` processes; a run that is killed takes with it everything that it started."""
    os.setpgid(0, 0)
    if ranks == 1:
        function(folder, **options)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(ranks)}
    context = multiprocessing.get_context("fork")
    processes = []
    for rank in range(ranks):
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        processes.append(context.Process(target=function, args=(folder,), kwargs=options))
        processes[-1].start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit(f"a rank failed: {[process.exitcode for process in processes]}")


def _difference(whole: Path, other: Path) -> dict[str, Any]:
    """How the order and the weights of two runs differ; of a killed run only what its checkpoint knows counts."""
    from safetensors.torch import load_file
    from toys.resuming import KILLED_AT

    resumed = _order(other, "resumed")
    started = _order(other, "started")[: KILLED_AT if resumed else None]
    ours, theirs = (load_file(str(folder / "weights.safetensors")) for folder in (other, whole))
    return {
        "order_equal": started + resumed == _order(whole, "started"),
        "bit_exact": all(bool((ours[name] == theirs[name]).all()) for name in theirs),
        "max_diff": max(float((ours[name] - theirs[name]).abs().max()) for name in theirs),
    }


def _order(folder: Path, part: str) -> list[list[int]]:
    """The samples of each step, over all ranks; one that was killed may lack a line."""
    files = [file.read_text().splitlines() for file in sorted(folder.glob(f"{part}.*.jsonl"))]
    return [[id for line in lines for id in json.loads(line)] for lines in zip(*files, strict=False)]


def report_runs(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Print the table of all runs; ours must be exact in every way."""
    heads = f"{'stack':<28} {'version':<17} {'workers':>7} {'accumulation':>12} {'ranks':>5}"
    print(f"{heads} {'order equal':>12} {'weights bit-exact':>18} {'max diff':>9}   two whole runs equal")
    for row in rows:
        if row["version"] is None:
            print(f"{row['stack']:<28} not run")
            continue
        cut, control = row["resumed"], row["control"]
        print(
            f"{row['stack']:<28} {row['version']:<17} {row['workers']:>7} {row.get('accumulation', 1):>12} "
            f"{row.get('ranks', 1):>5} {_yes(cut['order_equal']):>12} {_yes(cut['bit_exact']):>18} "
            f"{cut['max_diff']:>9.1e}   {_yes(control['order_equal'] and control['bit_exact'])}"
        )
    ours = [row for row in rows if row["stack"] == OURS]
    num_exact = sum(row["resumed"]["bit_exact"] and row["resumed"]["order_equal"] for row in ours)
    runs = [{key: value for key, value in row.items() if key != "control"} for row in rows]
    return {"exact_value": num_exact, "exact_limit": len(ours), "exact_pass": num_exact == len(ours), "runs": runs}


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"


# --- the loader over many records -------------------------------------------------------------------------------------


def large_index(num: int, written: int) -> dict[str, Any]:
    """What ``toys.large`` measures, each part in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        parts = {"small": ("1000", "1000"), "large": (str(num), str(min(num, written)))}
        found: dict[str, Any] = {}
        for name, (records, different) in parts.items():
            where = str(Path(folder) / name)
            _large("write", where, records, different)
            found[name] = _large("memory", where, records, different)
        found["skip"] = _large("skip", str(Path(folder) / "large"), *parts["large"])
    return found


def _large(*arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "toys.large", *arguments],
        cwd=Path(__file__).parent,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"toys.large {arguments} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def report_large(found: Mapping[str, Any]) -> dict[str, Any]:
    """Print what resuming late and many records cost, and hold it against the limits."""
    small, large = found["small"], found["large"]
    print(f"\n{'seconds to the first batch of an epoch':<44} {'0 workers':>10} {'2 workers, running already':>28}")
    for place, part in found["skip"].items():
        alone, with_workers = part["seconds"]
        print(f"  from batch {int(place):<31,} {alone:>10.4f} {with_workers:>28.4f}")
    skip = max(value for part in found["skip"].values() for value in part["beyond"])
    heads = (
        f"{'first batch after opening, 0 and 2 workers':>43} {'MB of a worker, and mapped':>28} {'main process':>14}"
    )
    print(f"\n{'records':<12} {heads}")
    for part in (small, large):
        first = " and ".join(f"{part['first_batch'][workers]:.2f}" for workers in ("0", "2"))
        worker, main = (f"{part[f'{kind}_own']:.1f} + {part[f'{kind}_mapped']:.0f}" for kind in ("worker", "main"))
        print(f"{part['records']:<12,} {first + ' s':>43} {worker:>28} {main:>14}")
    order_mb = max(large["worker_own"] - small["worker_own"], large["main_own"] - small["main_own"])
    first = large["first_batch"]["0"]
    return {
        "skip_seconds_value": round(skip, 5),
        "skip_seconds_limit": LIMIT_SKIP_SECONDS,
        "skip_pass": skip <= LIMIT_SKIP_SECONDS,
        "order_mb_value": round(order_mb, 1),
        "order_mb_limit": LIMIT_ORDER_MB,
        "order_mb_pass": order_mb <= LIMIT_ORDER_MB,
        "first_batch_seconds_value": round(first, 3),
        "first_batch_seconds_limit": LIMIT_FIRST_BATCH_SECONDS,
        "first_batch_pass": first <= LIMIT_FIRST_BATCH_SECONDS,
        "large": found,
    }


if __name__ == "__main__":
    main()
