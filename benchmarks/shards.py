"""How fast are packed shards: beside webdataset, and from a server with latency beside a disk?

1. --num samples of --bytes random bytes and a caption in 100 tar files, read in full random order by our index and
   offsets, and by webdataset with as large a shuffle buffer as there are samples; one process and thread, its processor
   time, --rounds in turns, the median of their ratios.
2. Larger ones through the loader with ``shuffle: blocks``, from a disk and from a local HTTP server that waits 50 ms
   before each answer; samples a second, --seconds long each.

Nothing is decoded: a sample is its bytes. Prints a table and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import io
import json
import os
import statistics
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

WEBDATASET_LIMIT, REMOTE_LIMIT = 3.0, 0.9
LATENCY = 0.05  # seconds
NUM_SHARDS = 100


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, arguments.num, arguments.bytes)
        result = beside_webdataset(folder, arguments)
        big = folder / "clips"
        big.mkdir()
        write(big, 4_000, 200_000)
        result |= over_http(big, folder, arguments.seconds)
    passed = {"webdataset": (result["webdataset"] or 0) >= WEBDATASET_LIMIT, "remote": result["remote"] >= REMOTE_LIMIT}
    limits = {"webdataset": WEBDATASET_LIMIT, "remote": REMOTE_LIMIT}
    print(json.dumps({**result, "limits": limits, "pass": all(passed.values()), "passed": passed}))


def write(folder: Path, num: int, size: int) -> None:
    """Shards as ``antmmf data pack`` lays them out, of random bytes."""
    shards = []
    for number in range(NUM_SHARDS):
        stem = folder / f"train-{number:06d}"
        rows = range(number * num // NUM_SHARDS, (number + 1) * num // NUM_SHARDS)
        with tarfile.open(f"{stem}.tar", "w", format=tarfile.USTAR_FORMAT) as tar, open(f"{stem}.jsonl", "w") as lines:
            for row in rows:
                start = tar.offset + 512
                for suffix, content in (("bin", os.urandom(size)), ("txt", f"caption {row}".encode())):
                    info = tarfile.TarInfo(f"{row:010d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                record = {
                    "key": str(row),
                    "texts": [f"caption {row}"],
                    "negatives": [],
                    "options": [],
                    "transcript": [],
                }
                lines.write(json.dumps({**record, "member": [f"{row:010d}.bin", start, size]}) + "\n")
        size_of = Path(f"{stem}.tar").stat().st_size
        shards.append({"file": f"{stem.name}.tar", "records": len(rows), "bytes": size_of})
    (folder / "train.json").write_text(json.dumps({"shards": shards}))


# --- 1. webdataset ----------------------------------------------------------------------------------------------------


def beside_webdataset(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Samples a second of both."""
    index = opened(str(folder), folder)
    contestants: dict[str, Callable[[int], int]] = {"ours": functools.partial(read_ours, index)}
    try:
        import webdataset  # noqa: F401
    except ImportError:
        print("webdataset: not run")
    else:
        contestants["webdataset"] = functools.partial(read_webdataset, folder, arguments.num)
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(arguments.rounds):
        for name, read in contestants.items():
            started = time.process_time()
            count = read(number)
            rates[name].append(count / (time.process_time() - started))
            assert count == arguments.num, f"{name} read {count}"
    for name, values in rates.items():
        print(f"{name}: {statistics.median(values):,.0f} samples/s ({min(values):,.0f} to {max(values):,.0f})")
    ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates.get("webdataset", []), strict=False)]
    return {
        "webdataset": round(statistics.median(ratios), 2) if ratios else None,
        "rates": {name: round(statistics.median(values)) for name, values in rates.items()},
    }


def opened(root: str, folder: Path) -> Any:
    from antmmf.data.index import open_index
    from antmmf_tasks.datasets.shards import Shards

    parameters = {"root": root}
    return open_index(
        Shards(data_root_dir=root), name="bench:shards", version="1", parameters=parameters, folder=folder / "index"
    )


def read_ours(index: Any, epoch: int) -> int:
    """All samples in a permutation of their own."""
    import numpy as np
    from antmmf.data.order import Permutation
    from antmmf.data.sources import source_of

    order, count = Permutation(len(index), seed=0, epoch=epoch), 0
    for first in range(0, len(index), 64):
        for row in order(np.arange(first, min(first + 64, len(index)))).tolist():
            record = index.record(row)
            content = source_of(record.media).open().read()
            count += bool(content and record.texts)
    return count


def read_webdataset(folder: Path, num: int, epoch: int) -> int:
    """All samples, through a buffer that holds them all: the only full shuffle that it knows."""
    import webdataset

    paths = [str(path) for path in sorted(folder.glob("train-*.tar"))]
    stream = webdataset.WebDataset(paths, shardshuffle=len(paths), seed=epoch).shuffle(num, initial=num)
    return sum(bool(sample["bin"] and sample["txt"]) for sample in stream)


# --- 2. a server with latency -----------------------------------------------------------------------------------------


class Slow(http.server.SimpleHTTPRequestHandler):
    """Waits before each answer."""

    def do_GET(self) -> None:
        time.sleep(LATENCY)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Bytes:
    """A reader that decodes nothing: one frame of the first bytes."""

    def read(self, source: Any, pick: Any) -> Any:
        import numpy as np
        from antmmf.contracts import Clip

        content = source.open().read()
        pick(np.zeros(1))
        return Clip(
            frames=np.frombuffer(bytearray(content[: 32 * 32 * 3]), np.uint8).reshape(1, 32, 32, 3), num_total=1
        )


class First:
    """The first frame."""

    def __call__(self, times: Any, rng: Any) -> Any:  # noqa: ARG002
        import numpy as np

        return np.zeros((1, 1), np.int64)


class Collate:
    """As little as a batch needs."""

    def __call__(self, samples: list[Any]) -> Any:
        import torch
        from antmmf.batch import Batch

        time.sleep(0.002 * len(samples))  # what decoding takes at the least
        num = len(samples)
        return Batch(
            ids=torch.tensor([sample.id for sample in samples]),
            frames=torch.stack([sample.frames for sample in samples]),
            sizes=torch.full((num, 2), 32),
            tokens=torch.zeros(num, 1, dtype=torch.long),
            token_mask=torch.ones(num, 1, dtype=torch.bool),
            owner=torch.arange(num),
        )


def over_http(shards: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """Samples a second in blocks, from a disk and from a server."""
    sys.modules["shards"] = sys.modules["__main__"]  # the workers' name for this file
    for kind in (Bytes, First, Collate):
        kind.__module__ = "shards"
    sys.path.insert(0, str(Path(__file__).parent))
    handler = functools.partial(Slow, directory=str(shards))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    rates: dict[str, list[float]] = {"disk": [], "server": []}
    for number in range(3):
        rates["disk"].append(rate(str(shards), folder / f"disk{number}", seconds))
        url = f"http://127.0.0.1:{server.server_port}"
        rates["server"].append(rate(url, folder / f"server{number}", seconds))
    server.shutdown()
    typical = {name: statistics.median(values) for name, values in rates.items()}
    ratio = typical["server"] / typical["disk"]
    print(f"blocks: {typical['disk']:,.0f} samples/s from a disk, {typical['server']:,.0f} from a server: {ratio:.2f}")
    return {"remote": round(ratio, 3), "blocks": {name: round(value, 1) for name, value in typical.items()}}


def rate(root: str, folder: Path, seconds: float) -> float:
    """Samples a second of the loader, after its first batch; every copy is a new one."""
    from antmmf.data.loader import Loader
    from antmmf.data.media import SampleReader
    from antmmf.data.sources import Sources
    from antmmf_tasks.datasets.shards import Shards

    folder.mkdir()
    os.environ["ANTMMF_CACHE"] = str(folder)
    index = opened(root, folder)
    sources = Sources(folder / "copies", max_gb=0.2)
    reader = SampleReader(
        index,
        dataset=Shards(data_root_dir=root),
        reader=Bytes(),
        reader_name="bytes",
        sampler=First(),
        transform=None,
        seed=0,
        train=True,
        sources=sources,
    )
    loader = Loader(
        reader,
        Collate(),
        batch_size=16,
        train=True,
        seed=0,
        num_workers=1,
        shuffle="blocks",
        prefetch=sources.prefetch,
    )
    count, started = 0, 0.0
    for number, step in enumerate(stepped(loader)):
        if number == 0:
            started = time.perf_counter()
            continue
        count += sum(len(batch) for batch in step.batches)
        if time.perf_counter() - started > seconds:
            break
    loader.close()
    sources.close()
    return count / (time.perf_counter() - started)


def stepped(loader: Any) -> Iterator[Any]:
    return loader.stream(1)


if __name__ == "__main__":
    main()
