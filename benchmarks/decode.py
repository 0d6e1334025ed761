"""Does our reader keep up with the back ends below it, two workers with two processes, and the cache with its promise?

1. Eight frames of each clip, opened, sampled, decoded, resized and stacked: ours, with the reader's own process as in
   a run, beside decord, PyAV, torchcodec and OpenCV with the same resize and stack; --passes interleaved passes, all on
   one core.
2. The loader with two workers beside two processes that do nothing but read the same clips.
3. Eight frames from the cache beside decoding them.

Clips are --clips, by default real ones where the tests have them, else generated ones with several distances between
key frames. Prints tables and, last, one JSON line.
"""
# ruff: noqa: E402 - the number of threads and torchvision's shim come before what they are for

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import torch
from antmmf import torchvision_shim

torchvision_shim.apply()
from antmmf.batch import Batch
from antmmf.contracts import Record, Sample
from antmmf.data.index import open_index
from antmmf.data.loader import Loader
from antmmf.data.media import SampleReader
from antmmf.data.reader_process import protected
from antmmf_vision.readers.auto import AutoReader
from antmmf_vision.readers.cached import Cached
from antmmf_vision.samplers import Segments
from torchvision.transforms import v2

REAL = Path(__file__).parents[2] / "shared" / "data" / "videos"
NUM, SIDE, IN_A_ROW = 8, 224, 3
MEAN_LIMIT, FILE_LIMIT, WORKERS_LIMIT, CACHE_LIMIT = 0.95, 0.85, 0.9, 10.0


def main() -> None:
    """Measure all three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, help="a folder of videos")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--spin", type=Path, help="read this folder's clips for --seconds, in this process")
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.spin:
        print(json.dumps(spin(sorted_clips(arguments.spin), arguments.seconds)))
        return
    with tempfile.TemporaryDirectory() as folder:
        clips = arguments.clips or (REAL if REAL.is_dir() else generated(Path(folder)))
        with one_core():
            result = backends(sorted_clips(clips), arguments.passes)
        result |= workers(clips, Path(folder), arguments.seconds)
        with one_core():
            result |= cache(sorted_clips(clips), Path(folder))
    passed = {
        "mean": result["geometric_mean"] >= MEAN_LIMIT,
        "file": result["worst_file"] >= FILE_LIMIT,
        "workers": result["workers"] >= WORKERS_LIMIT,
        "cache": result["cache"] >= CACHE_LIMIT,
    }
    limits = {"mean": MEAN_LIMIT, "file": FILE_LIMIT, "workers": WORKERS_LIMIT, "cache": CACHE_LIMIT}
    print(json.dumps({**result, "limits": limits, "pass": all(passed.values()), "passed": passed}))


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and those that it starts, on one core: on a shared host one is often 1.3 times as fast as the
    next for minutes, and a reader in a process of its own would be measured on another one than its peers."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def sorted_clips(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in {".mp4", ".mkv", ".avi", ".webm", ".mov"}
    )


def generated(folder: Path) -> Path:
    """Clips of noise that moves, with several distances between key frames."""
    import av

    rng = np.random.default_rng(0)
    for gap in (8, 25, 60, 250):
        with av.open(str(folder / f"gap{gap}.mp4"), "w") as file:
            stream = file.add_stream("libx264", rate=25, options={"g": str(gap), "crf": "23"})
            stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
            world = rng.integers(0, 256, (512, 700, 3), np.uint8)
            for k in range(300):
                frame = np.ascontiguousarray(world[k % 200 : k % 200 + 256, k : k + 340])
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            file.mux(stream.encode())
    return folder


# --- 1. back ends -----------------------------------------------------------------------------------------------------


def resized(frames: torch.Tensor, rng: object = None) -> torch.Tensor:  # noqa: ARG001
    """(T, 3, H, W) uint8, its shorter side ``SIDE``: the transform of every contestant."""
    height, width = frames.shape[-2:]
    scale = SIDE / min(height, width)
    return v2.functional.resize(frames, [round(height * scale), round(width * scale)], antialias=True)


def picked(total: int) -> np.ndarray:
    return ((np.arange(NUM) + 0.5) * total / NUM).astype(int)


class Clips:
    """A data set of files."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def sources(self) -> list[Path]:
        return []

    def records(self) -> Iterator[Record]:
        for path in self.paths:
            yield Record(key=str(path), media=str(path), texts=("a clip",))


def reader_of(paths: list[Path], folder: Path, reader: Any = None, transform: Any = resized) -> SampleReader:
    """What a run reads samples with: the reader in its own process."""
    dataset = Clips(paths)
    index = open_index(
        dataset, name="bench:clips", version="1", parameters={"paths": list(map(str, paths))}, folder=folder / "index"
    )
    return SampleReader(
        index,
        dataset=dataset,
        reader=protected(reader or AutoReader(), timeout=60),
        reader_name="auto",
        sampler=Segments(n_clips=NUM),
        transform=transform,
        seed=0,
        train=False,
    )


def with_decord(path: Path) -> np.ndarray:
    import decord

    file = decord.VideoReader(str(path), num_threads=1)
    return file.get_batch(picked(len(file))).asnumpy()


def with_torchcodec(path: Path) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder

    file = VideoDecoder(str(path), num_ffmpeg_threads=1, dimension_order="NHWC")
    return file.get_frames_at(picked(file.metadata.num_frames).tolist()).data.numpy()


def with_opencv(path: Path) -> np.ndarray:
    import cv2

    file = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    wanted = set(picked(int(file.get(cv2.CAP_PROP_FRAME_COUNT))).tolist())
    frames = []
    for number in range(max(wanted) + 1):
        if not file.grab():
            break
        if number in wanted:
            frames.append(cv2.cvtColor(file.retrieve()[1], cv2.COLOR_BGR2RGB))
    return np.stack(frames)


def with_pyav(path: Path) -> np.ndarray:
    import av

    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1
        total = stream.frames or sum(1 for packet in file.demux(stream) if packet.size)
        file.seek(0)
        wanted = set(picked(total).tolist())
        frames = []
        for number, frame in enumerate(file.decode(stream)):
            if number in wanted:
                frames.append(frame.to_ndarray(format="rgb24"))
            if number >= max(wanted):
                break
    return np.stack(frames)


PEERS: dict[str, Callable[[Path], np.ndarray]] = {
    "decord": with_decord,
    "torchcodec": with_torchcodec,
    "opencv": with_opencv,
    "pyav": with_pyav,
}


def backends(clips: list[Path], passes: int) -> dict[str, Any]:
    """The best back end's time over ours, for each clip: the fastest reads of all passes, for machines drift.

    In a pass all read one clip, each a few times in a row, before all read the next.
    """
    there = {name: read for name, read in PEERS.items() if loads(name)}
    for name in PEERS:
        if name not in there:
            print(f"{name}: not run")
    with tempfile.TemporaryDirectory() as folder:
        ours = reader_of(clips, Path(folder))
        contestants: dict[str, Callable[[int], object]] = {"ours": lambda row: ours.read(row, epoch=0)}
        for name, read in there.items():
            contestants[name] = lambda row, read=read: resized(torch.from_numpy(read(clips[row])).permute(0, 3, 1, 2))
        seconds: dict[tuple[str, int], list[float]] = {}
        names = list(contestants)
        for number in range(passes):
            for row in range(len(clips)):
                first = (row + number) % len(names)
                for name in names[first:] + names[:first]:  # one clip after the other: what else goes on hits all alike
                    took = fastest(contestants[name], row, peer=name != "ours")
                    seconds.setdefault((name, row), []).append(took)
    best = {key: min(values) for key, values in seconds.items()}
    print(f"{'clip':40} {'  '.join(f'{name:>10}' for name in contestants)}  best / ours")
    ratios = {}
    for row, clip in enumerate(clips):
        ratios[clip.name] = min(best[name, row] for name in there) / best["ours", row]
        shown = "  ".join(f"{1000 * best[name, row]:10.1f}" for name in contestants)
        print(f"{clip.name[:40]:40} {shown}  {ratios[clip.name]:.2f}")
    worst = min(ratios, key=lambda name: ratios[name])
    mean = float(np.exp(np.mean(np.log(list(ratios.values())))))
    against = {
        name: round(
            float(np.exp(np.mean([np.log(best[name, row] / best["ours", row]) for row in range(len(clips))
                                  if np.isfinite(best[name, row])]))), 3
        )
        for name in there
    }  # fmt: skip
    print(
        f"best back end of each file / ours: geometric mean {mean:.3f}, worst {ratios[worst]:.2f} ({worst}); {against}"
    )
    return {
        "clips": len(clips),
        "geometric_mean": round(mean, 3),
        "worst_file": round(ratios[worst], 3),
        "peers_over_ours": against,
    }


def fastest(act: Callable[[int], object], row: int, *, peer: bool) -> float:
    """Seconds of the fastest of ``IN_A_ROW`` reads; without end for a peer that cannot read the clip."""
    taken = []
    for _ in range(IN_A_ROW):
        started = time.perf_counter()
        try:
            act(row)
        except Exception:
            if not peer:
                raise
            return float("inf")
        taken.append(time.perf_counter() - started)
    return min(taken)


def loads(name: str) -> bool:
    """Whether a peer can be used here."""
    try:
        PEERS[name](Path("nothing.mp4"))
    except ImportError:
        return False
    except Exception as error:
        return "libtorchcodec" not in str(error)
    return True


# --- 2. workers -------------------------------------------------------------------------------------------------------


class Collate:
    """As little as a batch needs."""

    def __call__(self, samples: list[Sample]) -> Batch:
        num = len(samples)
        return Batch(
            ids=torch.tensor([sample.id for sample in samples]),
            frames=torch.stack([sample.frames[:, :, :, :64, :64].contiguous() for sample in samples]),
            sizes=torch.full((num, 2), 64),
            tokens=torch.zeros(num, 1, dtype=torch.long),
            token_mask=torch.ones(num, 1, dtype=torch.bool),
            owner=torch.arange(num),
        )


def spin(clips: list[Path], seconds: float) -> float:
    """Clips a second that this process alone reads."""
    reader = AutoReader()
    with tempfile.TemporaryDirectory() as folder:
        samples = reader_of(clips, Path(folder))
        samples.reader = reader
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            samples.read(count % len(clips), epoch=0)
            count += 1
        return count / (time.perf_counter() - started)


def workers(clips: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """Clips a second of two workers over those of two processes; they take turns."""
    paths = sorted_clips(clips)
    loaded, spun = [], []
    for _ in range(3):
        command = [sys.executable, __file__, "--spin", str(clips), "--seconds", str(seconds)]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        spun.append(sum(float(one.communicate()[0].splitlines()[-1]) for one in both))
        reader = reader_of(paths, folder)
        loader = Loader(reader, Collate(), batch_size=4, train=True, seed=0, num_workers=2)
        count, started = 0, None
        for number, step in enumerate(loader.stream(1)):
            if number == 3:  # the workers are warm
                started, count = time.perf_counter(), 0
            count += sum(len(batch) for batch in step.batches)
            if started is not None and time.perf_counter() - started > seconds:
                break
        assert started is not None
        loaded.append(count / (time.perf_counter() - started))
        loader.close()
    ratio = statistics.median(loaded) / statistics.median(spun)
    print(
        f"two workers {statistics.median(loaded):.1f} clips/s, two processes {statistics.median(spun):.1f}: {ratio:.2f}"
    )
    return {"workers": round(ratio, 3), "clips_per_second": round(statistics.median(loaded), 1)}


# --- 3. cache ---------------------------------------------------------------------------------------------------------


def cache(clips: list[Path], folder: Path) -> dict[str, Any]:
    """Decoding over fetching, geometric mean over the clips: raw, and as JPEG; without and with the transform."""
    found: dict[str, Any] = {}
    plain = reader_of(clips, folder, transform=None)
    decoded = timed(plain)
    for name, quality in (("cache", None), ("cache_jpeg", 90)):
        made = Cached(fps=2.0, short_side=SIDE, jpeg_quality=quality, folder=folder / name, max_gb=100)
        for transform in (None, resized):
            reader = reader_of(clips, folder, reader=made, transform=transform)
            for row in range(len(clips)):
                reader.read(row, epoch=0)
            fetched = timed(reader)
            ratio = float(np.exp(np.mean(np.log(np.array(decoded) / np.array(fetched)))))
            key = name if transform is None else f"{name}_with_transform"
            found[key] = round(ratio, 2)
            took, took_before = 1000 * statistics.mean(fetched), 1000 * statistics.mean(decoded)
            print(f"{key}: {took:.2f} ms a clip, decoding {took_before:.1f}: {ratio:.1f} times")
        found[f"{name}_mb"] = round(sum(path.stat().st_size for path in (folder / name).rglob("*.clip")) / 1e6, 1)
    return found


def timed(reader: SampleReader, rounds: int = 3) -> list[float]:
    """The least seconds of each clip."""
    best = [float("inf")] * len(reader)
    for _ in range(rounds):
        for row in range(len(reader)):
            started = time.perf_counter()
            reader.read(row, epoch=0)
            best[row] = min(best[row], time.perf_counter() - started)
    return best


if __name__ == "__main__":
    main()
