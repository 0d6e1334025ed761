"""Clips and annotations on disk: made once, whole or not at all, and checked before every use."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from antmmf.contracts import Json
from antmmf.data.lock import locked
from antmmf.errors import DataError
from numpy.typing import NDArray

from antmmf_tasks.datasets.shapes.render import render
from antmmf_tasks.datasets.shapes.world import Scene, scene_from_json

ANNOTATIONS, MANIFEST, CLIPS = "annotations.jsonl", "manifest.json", "clips"
_FEW = 64  # so few clips are made faster here than by processes that must start first
_LOG = logging.getLogger("antmmf")

Annotation = dict[str, Json]


def make_folder(folder: Path, annotations: Sequence[Annotation], *, size: int, fps: int, num_frames: int) -> None:
    """Fill ``folder`` with annotations, clips and a manifest of their hashes; it appears whole, or stays as it was.

    Work goes on beside it, in ``<folder>.partial``: a run that was stopped is continued, not repeated. Only one
    process works at a time; one that waited for another finds everything done.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder.parent} cannot be made ({error.strerror}); set root or ANTMMF_CACHE") from error
    with locked(folder.with_name(folder.name + ".lock")):
        problem = whats_wrong(folder)
        if problem is None:
            return
        if folder.exists():
            _LOG.warning("shapes: %s is damaged (%s); making it again", folder, problem)
            shutil.rmtree(folder)
        partial = folder.with_name(folder.name + ".partial")
        _start_partial(partial, annotations)
        settings = {"size": size, "fps": fps, "num_frames": num_frames}
        files = _write_clips(partial, len(annotations), settings)
        files[ANNOTATIONS] = _file_entry(partial / ANNOTATIONS)
        manifest = {"settings": settings, "files": dict(sorted(files.items()))}
        _write_whole(partial / MANIFEST, json.dumps(manifest, indent=0).encode())
        partial.rename(folder)


def whats_wrong(folder: Path) -> str | None:
    """What differs from the manifest, or None; annotations by hash, clips by size (``damaged_files`` reads all)."""
    if not folder.exists():
        return "it does not exist"
    files = _manifest_files(folder)
    if files is None:
        return f"{MANIFEST} is missing or broken"
    sizes = {f"{CLIPS}/{entry.name}": entry.stat().st_size for entry in _scan(folder / CLIPS)}
    wrong = [name for name, (size, _) in files.items() if name != ANNOTATIONS and sizes.get(name) != size]
    if wrong:
        return f"{len(wrong)} clips are missing or of another size, {wrong[0]} the first"
    path = folder / ANNOTATIONS
    if not path.exists() or list(_file_entry(path)) != list(files.get(ANNOTATIONS, ())):
        return f"{ANNOTATIONS} is missing or was changed"
    return None


def damaged_files(folder: Path) -> list[str]:
    """Names of the files that are missing or whose content is not what was written; every file is read."""
    files = _manifest_files(folder)
    if files is None:
        return [MANIFEST]
    return [
        name
        for name, entry in files.items()
        if not (folder / name).exists() or list(_file_entry(folder / name)) != list(entry)
    ]


def read_annotations(path: Path) -> Iterator[Annotation]:
    """One annotation a line; ``DataError`` with file:line for a broken one."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                annotation: Annotation = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: not a line of JSON ({error}); delete {path.parent}") from error
            yield annotation


def encode_mp4(frames: NDArray[np.uint8], *, fps: int) -> bytes:
    """Frames (T, H, W, 3) as an H.264 mp4; the same bytes for the same build of the encoder."""
    import av  # heavy, and needed only where clips are made

    buffer = io.BytesIO()
    options = {"preset": "veryfast", "crf": "20", "bf": "0", "g": "16"}
    with av.open(buffer, "w", format="mp4") as container:
        try:
            stream = container.add_stream("libx264", rate=fps, options=options)
        except ValueError as error:
            raise DataError("PyAV was built without libx264, which makes the clips; install av from PyPI") from error
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def write_share(folder: Path, *, share: int, num_shares: int, size: int, fps: int, num_frames: int) -> Iterator[str]:
    """Make every ``num_shares``-th clip from ``share`` on; yield each one's name once it is whole on the disk."""
    for i, annotation in enumerate(read_annotations(folder / ANNOTATIONS)):
        if i % num_shares != share:
            continue
        path = folder / annotation["media"]
        if not path.exists():
            scene: Scene = scene_from_json(annotation["scene"])
            _write_whole(path, encode_mp4(render(scene, size=size, num_frames=num_frames), fps=fps))
        yield str(annotation["media"])


def _write_clips(folder: Path, num: int, settings: dict[str, int]) -> dict[str, tuple[int, str]]:
    """Make all clips and return their manifest entries; in processes of their own where there are many.

    The processes are started as commands, not by multiprocessing: that would import the caller's main module again.
    """
    done: list[str] = []
    step = 400

    def note(name: str) -> None:
        done.append(name)
        if len(done) % step == 0 or len(done) == num:
            _LOG.info("shapes: %s of %s clips", f"{len(done):,}", f"{num:,}")

    num_shares = 1 if num <= _FEW else max(1, min(os.cpu_count() or 1, 8))
    if num_shares == 1:
        for name in write_share(folder, share=0, num_shares=1, **settings):
            note(name)
    else:
        with ThreadPoolExecutor(num_shares) as pool:
            for watched in [
                pool.submit(_watch_share, folder, i, num_shares, settings, note) for i in range(num_shares)
            ]:
                watched.result()
    return {name: _file_entry(folder / name) for name in done}


def _watch_share(
    folder: Path, share: int, num_shares: int, settings: dict[str, int], note: Callable[[str], None]
) -> None:
    arguments = {"folder": str(folder), "share": share, "num_shares": num_shares, **settings}
    command = [sys.executable, "-m", "antmmf_tasks.datasets.shapes.worker", json.dumps(arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert worker.stdout is not None
    for line in worker.stdout:
        note(line.rstrip("\n"))
    _, complaint = worker.communicate()
    if worker.returncode != 0:
        last = (complaint.strip().splitlines() or ["no message"])[-1]
        raise DataError(f"{folder}: a process that makes clips ended with {worker.returncode}: {last}")


def _start_partial(partial: Path, annotations: Sequence[Annotation]) -> None:
    """The folder to work in; clips in it stay only if they belong to the same annotations."""
    content = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in annotations).encode()
    path = partial / ANNOTATIONS
    if partial.exists() and not (path.exists() and path.read_bytes() == content):
        shutil.rmtree(partial)
    (partial / CLIPS).mkdir(parents=True, exist_ok=True)
    _write_whole(path, content)


def _manifest_files(folder: Path) -> dict[str, tuple[int, str]] | None:
    try:
        files = json.loads((folder / MANIFEST).read_bytes())["files"]
        return {str(name): (int(size), str(digest)) for name, (size, digest) in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _file_entry(path: Path) -> tuple[int, str]:
    content = path.read_bytes()
    return len(content), hashlib.sha256(content).hexdigest()


def _write_whole(path: Path, content: bytes) -> None:
    beside = path.with_name(path.name + ".tmp")
    beside.write_bytes(content)
    beside.replace(path)


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    return list(os.scandir(folder)) if folder.is_dir() else []
