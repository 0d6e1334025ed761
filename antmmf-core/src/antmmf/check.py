"""What planning alone cannot tell: do the files exist, do the built parts fit together? No weights, no data, no device.

Encoders are built and run under torch's fake tensors: shapes are computed, memory and arithmetic are not spent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from antmmf.assets import RunAssets
from antmmf.config.reader import Path_, dotted
from antmmf.contracts import Encoded
from antmmf.device import choose_device
from antmmf.errors import AntmmfError, ConfigError, Problem
from antmmf.plan import ENCODERS, RunPlan

Check = Callable[[RunPlan], Iterator[Problem]]


def check_run(plan: RunPlan, *, files: bool = True) -> list[str]:
    """Check a planned run and return what was seen, a line each; raises ``ConfigError`` with every problem."""
    seen: list[str] = []
    problems = [*_check_device(plan), *_check_metric(plan), *(_check_files(plan) if files else ())]
    problems += _check_parts(plan, seen)
    if problems:
        raise ConfigError(problems)
    return seen


def _problem(plan: RunPlan, path: Path_, message: str) -> Problem:
    return Problem(dotted(path), plan.layers.where(path), message)


def _check_device(plan: RunPlan) -> Iterator[Problem]:
    path = ("training_parameters", "device")
    try:
        choose_device(plan.config.training_parameters.device, where=plan.layers.where(path))
    except ConfigError as error:
        yield from error.problems


def _check_metric(plan: RunPlan) -> Iterator[Problem]:
    """The monitored metric must be one that the metrics measure."""
    wanted = plan.config.training_parameters.monitored_metric
    if wanted is None:
        return
    names: list[str] = []
    for metric in (metric_plan.build() for metric_plan in plan.metrics):
        if not hasattr(metric, "names"):
            return  # a metric that does not say beforehand what it measures
        names += metric.names()
    if wanted.removeprefix("val/") not in names:
        message = f"must be measured by metrics, is {wanted!r}; they measure: {', '.join(names)}"
        yield _problem(plan, ("training_parameters", "monitored_metric"), message)


def _check_files(plan: RunPlan) -> Iterator[Problem]:
    resume_file = plan.config.training_parameters.resume_file
    if resume_file and not Path(resume_file).expanduser().exists():
        yield _problem(plan, ("training_parameters", "resume_file"), f"there is no {resume_file}")
    for split, dataset_plan in plan.datasets.items():
        path = ("dataset_attributes", split, 0)
        try:
            dataset = dataset_plan.build()
            if hasattr(dataset, "prepare"):
                continue  # it makes what it reads
            missing = [source for source in dataset.sources() if not Path(source).exists()]
            if missing:
                yield _problem(plan, path, f"{dataset_plan.full_name} reads {missing[0]}, which does not exist")
        except AntmmfError as error:
            yield _problem(plan, path, str(error).removeprefix(f"{dotted(path)}: "))


def _check_parts(plan: RunPlan, seen: list[str]) -> list[Problem]:
    """Build samplers, transforms, encoders and the task, and push one fake batch through the encoders."""
    problems: list[Problem] = []

    def attempt(path: Path_, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except ConfigError as error:
            problems.extend(error.problems)
        except AntmmfError as error:
            problems.append(_problem(plan, path, str(error).removeprefix(f"{dotted(path)}: ")))
        except Exception as error:
            problems.append(
                _problem(plan, path, f"cannot be built: {type(error).__name__}: {' '.join(str(error).split())}")
            )
        return None

    picks = attempt(("input_attributes", "sampler"), lambda: plan.inputs["sampler"].build()(np.arange(64) / 8.0, None))
    size = _frame_size(plan, attempt)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assets = RunAssets(texts=lambda: iter(["a red circle moves to the left"]))
        built: dict[str, Any] = {}
        for parameter, key in ENCODERS.items():
            if key in plan.encoders:
                encoder_plan = plan.encoders[key]
                built[parameter] = attempt(("model_attributes", key), lambda p=encoder_plan: p.build(assets=assets))
        whole = None not in built.values()
        task = attempt(("task_attributes",), lambda: plan.task.build(assets=assets, **built)) if whole else None
        if picks is not None and whole:
            path = ("model_attributes", "vision_encoder")
            video = (
                attempt(path, lambda: _run_vision(built["vision"], picks.shape, size, seen))
                if "vision" in built
                else None
            )
            path = ("model_attributes", "text_encoder")
            if "text" in built:
                attempt(path, lambda: _run_text(built["text"], built.get("fusion"), video, seen))
    if isinstance(task, nn.Module):
        count = sum(parameter.numel() for parameter in task.parameters())
        seen.append(f"task {plan.task.full_name}: {count / 1e6:.2f} M parameters")
    return problems


def _frame_size(plan: RunPlan, attempt: Callable[..., Any]) -> tuple[int, int]:
    """Height and width of the frames that reach the encoder, for a clip of 320 x 240."""
    transform_plan = plan.inputs.get("eval_transform")
    frames = torch.zeros(2, 3, 240, 320, dtype=torch.uint8)
    if transform_plan is not None:
        moved = attempt(("input_attributes", "eval_transform"), lambda: transform_plan.build()(frames, None))
        frames = frames if moved is None else moved
    return frames.shape[-2], frames.shape[-1]


def _run_vision(vision: Any, picks: tuple[int, ...], size: tuple[int, int], seen: list[str]) -> Encoded:
    clips, frames = picks
    wanted = vision.image_size
    if wanted is not None and size != (wanted, wanted):
        raise ConfigError(
            Problem(
                "input_attributes.eval_transform",
                "",
                f"must give {wanted} x {wanted} pixels, as the vision encoder needs; gives {size[0]} x {size[1]}",
            )
        )
    encoded: Encoded = vision(
        torch.zeros(2, clips, frames, 3, *size, dtype=torch.uint8), torch.tensor([list(size)] * 2)
    )
    _check_encoded(encoded, rows=2, dim=vision.dim)
    if encoded.clips is not None and tuple(encoded.clips.shape) != (2, clips, vision.dim):
        raise AntmmfError(f"clips must be (2, {clips}, {vision.dim}), is {tuple(encoded.clips.shape)}")
    seen.append(
        f"vision: {clips} clips x {frames} frames of {size[0]} x {size[1]} -> tokens {tuple(encoded.tokens.shape[1:])}"
    )
    return encoded


def _run_text(text: Any, fusion: Any, video: Encoded | None, seen: list[str]) -> None:
    tokens, mask = torch.zeros(2, 6, dtype=torch.long), torch.ones(2, 6, dtype=torch.bool)
    _check_encoded(text(tokens, mask), rows=2, dim=text.dim)
    seen.append(
        f"text: vocabulary {len(text.tokenizer)}, dim {text.dim}" if fusion is None else f"text: dim {text.dim}"
    )
    fuser = fusion if fusion is not None else text
    if video is not None and hasattr(fuser, "fuse") and video.tokens.shape[-1] == fuser.dim:
        fused = fuser.fuse(tokens, mask, video)
        _check_encoded(fused, rows=2, dim=fuser.dim)


def _check_encoded(encoded: Any, *, rows: int, dim: int) -> None:
    if not isinstance(encoded, Encoded):
        raise AntmmfError(f"must return antmmf.Encoded, returns {type(encoded).__name__}")
    if tuple(encoded.pooled.shape) != (rows, dim):
        raise AntmmfError(f"pooled must be ({rows}, {dim}) since dim is {dim}, is {tuple(encoded.pooled.shape)}")
    if encoded.mask.dtype != torch.bool or encoded.mask.shape != encoded.tokens.shape[:2]:
        raise AntmmfError(
            f"mask must be bool and {tuple(encoded.tokens.shape[:2])} like tokens, is {encoded.mask.dtype} {tuple(encoded.mask.shape)}"
        )
