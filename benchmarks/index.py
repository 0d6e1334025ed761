"""Five million captions: how fast they become an index, and what it costs to open and to read it.

Writes --num lines of jsonl (caption, video, start and end; a thousand segments a video) and reads them through the data
set `captions`, beside a Python list of dicts, AntMMF's way, and Hugging Face `datasets` where it is installed. Each is
measured in a process of its own. Prints a table and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from antmmf.data.index import open_index
from antmmf_tasks.datasets.captions import Captions

SEGMENTS = 1000  # a video
NUM_READ = 100_000
BUILD_LIMIT, OPEN_LIMIT, MEMORY_LIMIT, READ_LIMIT = 100_000, 1.0, 100.0, 50_000
WORDS = "a man woman dog is walking riding along the road with red blue bicycle while people watch and music plays"


def main() -> None:
    """Measure all contestants."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=5_000_000)
    parser.add_argument("--builds", type=int, default=3, help="the fastest counts")
    parser.add_argument(
        "--part", choices=["ours", "open", "list", "datasets"], help="measure this one, in this process"
    )
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.part:
        print(
            json.dumps(
                {"ours": ours, "open": opened, "list": as_list, "datasets": hugging_face}[arguments.part](
                    arguments.folder
                )
            )
        )
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "data")
        folder.mkdir()
        write(folder, arguments.num)
        builds = [
            measured("ours", folder) for _ in range(arguments.builds)
        ]  # what else the machine does slows some down
        print("builds, records/s:", ", ".join(f"{one['build_per_second']:,}" for one in builds))
        found = {"ours": max(builds, key=lambda one: one["build_per_second"])}
        found |= {part: measured(part, folder) for part in ("open", "list")}
        if find_spec("datasets"):
            found["datasets"] = measured("datasets", folder)
        else:
            print("Hugging Face datasets: not run (pip install datasets)")
    show(found)
    mine = {**found["ours"], **found["open"]}
    passed = {
        "build": mine["build_per_second"] >= BUILD_LIMIT,
        "open": mine["open_seconds"] <= OPEN_LIMIT,
        "memory": mine["worker_mb"] <= MEMORY_LIMIT,
        "read": mine["read_per_second"] >= READ_LIMIT,
    }
    limits = {"build": BUILD_LIMIT, "open": OPEN_LIMIT, "memory": MEMORY_LIMIT, "read": READ_LIMIT}
    print(json.dumps({"num": arguments.num, **found, "limits": limits, "pass": all(passed.values()), "passed": passed}))


def write(folder: Path, num: int) -> None:
    """The lines, and empty files in place of the videos."""
    words = np.array(WORDS.split())[np.random.default_rng(0).integers(0, len(WORDS.split()), (SEGMENTS, 10))]
    captions = [" ".join(chosen) for chosen in words.tolist()]
    for video in range(-(-num // SEGMENTS)):
        (folder / f"video{video}.mp4").touch()
    with (folder / "captions.jsonl").open("w", encoding="utf-8") as file:
        for number in range(num):
            video, segment = divmod(number, SEGMENTS)
            line = {
                "video": f"video{video}.mp4",
                "start": segment * 4.0,
                "end": segment * 4.0 + 4,
                "caption": f"{captions[segment]} {video}",
                "split": "train",
            }
            file.write(json.dumps(line) + "\n")


def measured(part: str, folder: Path) -> dict[str, Any]:
    """What ``part`` finds out in a process of its own."""
    command = [sys.executable, __file__, "--part", part, "--folder", str(folder)]
    environment = {
        **os.environ,
        "ANTMMF_CACHE": str(folder.parent / "cache"),
        "HF_HOME": str(folder.parent / "hf"),
        "OMP_NUM_THREADS": "1",
    }
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def index_of(folder: Path) -> Any:
    return open_index(
        Captions(data_root_dir=folder, split="train"),
        name="bench:captions",
        version="1",
        parameters={},
        folder=folder.parent / "index",
    )


def ours(folder: Path) -> dict[str, Any]:
    """Through ``records`` into the index, on one core, anew."""
    shutil.rmtree(folder.parent / "index", ignore_errors=True)
    started = time.perf_counter()
    num = len(index_of(folder))
    return {"build_per_second": round(num / (time.perf_counter() - started)), "build_mb": round(private_mb())}


def opened(folder: Path) -> dict[str, Any]:
    """Opening it afterwards, as the trainer and its workers do, and reading from all over it."""
    before, started = private_mb(), time.perf_counter()
    index = index_of(folder)
    seconds = time.perf_counter() - started
    rate = reading(lambda row: index.record(row), len(index))
    return {"open_seconds": round(seconds, 4), "read_per_second": rate, "worker_mb": round(private_mb() - before, 1)}


def as_list(folder: Path) -> dict[str, Any]:
    """A list of dicts in every process."""
    before, started = private_mb(), time.perf_counter()
    with (folder / "captions.jsonl").open(encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    seconds = time.perf_counter() - started
    rate = reading(lambda row: records[row], len(records))
    return {
        "build_per_second": round(len(records) / seconds),
        "open_seconds": round(seconds, 4),
        "read_per_second": rate,
        "worker_mb": round(private_mb() - before, 1),
    }


def hugging_face(folder: Path) -> dict[str, Any]:
    """``load_dataset("json")``, twice: building its Arrow file and opening it."""
    import datasets

    datasets.disable_progress_bars()

    def load() -> Any:
        return datasets.load_dataset(
            "json", data_files=str(folder / "captions.jsonl"), split="train", cache_dir=str(folder.parent / "hf")
        )

    started = time.perf_counter()
    num = len(load())
    built = time.perf_counter() - started
    before, started = private_mb(), time.perf_counter()
    records = load()
    seconds = time.perf_counter() - started
    rate = reading(lambda row: records[row], num)
    return {
        "build_per_second": round(num / built),
        "open_seconds": round(seconds, 4),
        "read_per_second": rate,
        "worker_mb": round(private_mb() - before, 1),
    }


def reading(read: Any, num: int) -> int:
    """Records a second in random order."""
    rows = np.random.default_rng(1).integers(0, num, NUM_READ).tolist()
    started = time.perf_counter()
    for row in rows:
        read(row)
    return round(len(rows) / (time.perf_counter() - started))


def private_mb() -> float:
    """Memory that this process cannot share with others; pages of mapped files can."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous")) / 1024


def show(found: dict[str, dict[str, Any]]) -> None:
    names = ("build_per_second", "open_seconds", "read_per_second", "worker_mb")
    table = {**found, "ours": {**found["ours"], **found["open"]}}
    print(f"{'':10} {'  '.join(f'{name:>18}' for name in names)}")
    for name in (name for name in table if name != "open"):
        print(f"{name:10} {'  '.join(f'{table[name][column]:>18,}' for column in names)}")


if __name__ == "__main__":
    main()
