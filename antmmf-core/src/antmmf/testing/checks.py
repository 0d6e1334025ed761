"""Checks of the contracts of components that are no models; each raises ``AssertionError`` that says what must hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from pydantic import ValidationError
from pydantic_core import to_json
from torch import Tensor

from antmmf.bind import explain, signature_model
from antmmf.contracts import (
    Clip,
    ContrastiveLoss,
    Dataset,
    Figure,
    FrameReader,
    Metric,
    Record,
    Sampler,
    Source,
    Transform,
)
from antmmf.errors import DataError
from antmmf.plugins import new_manager, register
from antmmf.registry import Registry
from antmmf.testing.claims import must, pickled, same


def check_component(kind: str, name: str) -> None:
    """Check that ``name`` (or ``distribution:name``) loads, and that its defaults can stand in a config."""
    registry = Registry()
    component = registry.find(kind, name)
    if component is None:
        raise AssertionError(registry.missing(kind, name))
    model, _ = signature_model(component.load())
    defaults = {key: info.default for key, info in model.model_fields.items() if not info.is_required()}
    try:
        model.__pydantic_validator__.validate_json(
            to_json(defaults, inf_nan_mode="constants", fallback=str), strict=True
        )
    except ValidationError as error:
        wrong = [explain(entry) for entry in error.errors() if entry["type"] != "missing"]
        must(not wrong, f"{component}: its defaults must fit their types: {'; '.join(wrong)}")


def check_dataset(dataset: Dataset) -> None:
    """Check a prepared data set: its files, unique keys, plain and repeatable records, a pure ``draw``."""
    prepare = getattr(dataset, "prepare", None)
    if prepare is not None:
        prepare()
    for source in dataset.sources():
        must(Path(source).exists(), f"sources() must name files that exist, {source} does not")
    records = list(dataset.records())
    must(len(records) > 0, "records() must yield at least one record")
    must(all(isinstance(record, Record) for record in records), "records() must yield antmmf.Record")
    keys = [record.key for record in records]
    must(len(set(keys)) == len(keys), f"keys must be unique, {len(keys) - len(set(keys))} are repeated")
    must(list(pickled(dataset).records()) == records, "records() must yield the same again, also after pickling")
    for record in records:
        must(json.loads(json.dumps(asdict(record))) is not None, f"{record.key}: a record must hold plain values")
        must(record.start is None or record.end is None or record.start < record.end, f"{record.key}: start < end")
    draw = getattr(dataset, "draw", None)
    if draw is not None:
        drawn = [draw(records[0], np.random.default_rng(1)) for _ in range(2)]
        must(drawn[0] == drawn[1], "draw must depend on the record and the generator only")


def check_reader(reader: FrameReader, source: Path) -> None:
    """Check a reader on ``source``, a video or image that it can decode."""
    seen: list[np.ndarray] = []

    def read(choose: Callable[[int], list[int]], by: FrameReader = reader) -> Clip:
        def pick(times: np.ndarray) -> np.ndarray:
            seen.append(times)
            return np.asarray(choose(len(times)), dtype=np.int64)

        return by.read(Source(source), pick)

    whole = read(lambda total: list(range(total)))
    times = seen[0]
    must(
        times.dtype == np.float64 and times.ndim == 1 and len(times) > 0, "pick must get times (T,) in float64 seconds"
    )
    must(bool((np.diff(times) >= 0).all()), "times must not go back")
    must(whole.num_total == len(times), f"num_total must be {len(times)}, is {whole.num_total}")
    frames = whole.frames
    fits = frames.ndim == 4 and frames.shape[0] == len(times) and frames.shape[3] == 3 and frames.dtype == np.uint8
    must(fits, f"frames must be ({len(times)}, H, W, 3) uint8, are {frames.shape} {frames.dtype}")
    last = len(times) - 1
    order = [last, 0, last]
    mixed = read(lambda total: order, pickled(reader)).frames  # noqa: ARG005
    must(np.array_equal(mixed, frames[order]), "frames must come as picked, repeated and in any order")
    try:
        reader.read(Source(source.with_name(f"no-{source.name}")), lambda times: np.arange(len(times)))
    except DataError:
        return
    raise AssertionError("a file that is not there must raise DataError")


def check_sampler(sampler: Sampler) -> None:
    """Check a sampler on short and long videos, in training and in evaluation."""
    shapes = set()
    for total in (1, 2, 7, 300):
        times = np.arange(total) / 25
        for seed in (None, 0, 1):
            twice = [
                one(times.copy(), None if seed is None else np.random.default_rng(seed))
                for one in (sampler, pickled(sampler))
            ]
            must(np.array_equal(twice[0], twice[1]), "indices must depend on the times and the generator only")
            must(twice[0].ndim == 2 and np.issubdtype(twice[0].dtype, np.integer), "indices must be (C, F) integers")
            must(bool(((twice[0] >= 0) & (twice[0] < total)).all()), f"indices must lie in 0 to {total - 1}")
            shapes.add(twice[0].shape)
    must(len(shapes) == 1, f"(C, F) must be the same for every video, is {sorted(shapes)}")


def check_transform(transform: Transform, *, shape: tuple[int, int, int] = (4, 48, 64)) -> None:
    """Check a transform on noise of ``shape`` (T, H, W): the same picture T times must come out T times alike."""
    num, height, width = shape
    picture = torch.randint(
        0, 256, (1, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    frames = picture.repeat(num, 1, 1, 1)  # (T, 3, H, W)
    for seed in (None, 0, 1):
        outputs = [
            one(frames, None if seed is None else np.random.default_rng(seed))
            for one in (transform, pickled(transform))
        ]
        out = outputs[0]
        fits = out.dtype == torch.uint8 and out.ndim == 4 and out.shape[:2] == (num, 3)
        must(fits, f"frames must be ({num}, 3, h, w) uint8, are {tuple(out.shape)} {out.dtype}")
        must(torch.equal(out, outputs[1]), "pixels must depend on the frames and the generator only")
        must(torch.equal(out, out[:1].expand_as(out)), "all frames of a clip must be changed alike")
        must(torch.equal(frames, picture.expand_as(frames)), "the given frames must not be changed in place")


def check_loss(loss: ContrastiveLoss, *, dim: int = 8) -> None:
    """Check a contrastive loss on 3 videos and 5 texts, one of which belongs to nobody."""
    draw = torch.Generator().manual_seed(0)
    video, text = (torch.nn.functional.normalize(torch.randn(n, dim, generator=draw), dim=1) for n in (3, 5))
    owner = torch.tensor([0, 1, 1, 2, -1])
    video.requires_grad_()
    term = loss(video, text, owner)
    must(term.sum.shape == () and bool(term.sum.isfinite()), "sum must be a finite scalar")
    must(float(term.count) > 0, "count must be positive")
    order = torch.tensor([4, 2, 0, 3, 1])
    must(same(loss(video, text[order], owner[order]).sum, term.sum), "the order of the texts must not matter")
    term.sum.backward()  # type: ignore[no-untyped-call]
    must(video.grad is not None and bool(video.grad.isfinite().all()), "the gradient must be finite")


def check_metric(metric: Metric, batches: Sequence[Mapping[str, Tensor]]) -> None:
    """Check a metric on the rows of ``batches``: figures, ``reset``, and indifference to the order of the batches."""
    metric.reset()
    results: list[dict[str, Figure]] = []
    for order in (batches, batches[::-1]):
        for rows in order:
            metric.update(rows)
        results.append(metric.compute())
        metric.reset()
    must(bool(results[0]) and all(isinstance(f, Figure) for f in results[0].values()), "compute must return Figures")
    for name, figure in results[0].items():
        other = results[1].get(name)
        equal = other is not None and bool(np.isclose(figure.value, other.value, rtol=1e-5, equal_nan=True))
        must(equal, f"{name} must depend neither on the order of batches nor on rows before reset()")
        inside = figure.low is None or figure.high is None or figure.low <= figure.value <= figure.high
        must(inside, f"{name}: {figure.value} must lie in its interval")


def check_plugin_module(module: ModuleType) -> None:
    """Check a hook plugin: its hooks exist and take what is offered, and importing it loads no torch."""
    register(new_manager(), module, name=module.__name__)
    code = f"import sys, {module.__name__}; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False, capture_output=True, text=True)
    must(done.returncode == 0, f"{module.__name__} must be importable without torch {done.stderr.strip()[-500:]}")
