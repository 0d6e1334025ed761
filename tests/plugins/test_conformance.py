"""The shipped components keep their contracts, and the checks notice when one does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from antmmf import Clip, Encoded, Figure, Record, Source, Term
from antmmf.assets import RunAssets
from antmmf.errors import DataError, PluginError
from antmmf.registry import KINDS, Registry
from antmmf.testing import (
    check_component,
    check_dataset,
    check_loss,
    check_metric,
    check_plugin_module,
    check_reader,
    check_sampler,
    check_text_encoder,
    check_transform,
    check_vision_encoder,
    fake_distribution,
    on_path,
)
from torch import Tensor, nn

OURS = ("antmmf-core", "antmmf-vision", "antmmf-text", "antmmf-tasks")
SHIPPED = [
    (component.kind, component.full_name)
    for kind in KINDS
    if kind not in ("recipes", "commands", "plugins")
    for component in Registry().components(kind)
    if component.distribution in OURS
]


def load(kind: str, name: str) -> Any:
    component = Registry().find(kind, name)
    assert component is not None
    return component.load()


# --- what we ship -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_every_shipped_component_loads_and_its_defaults_fit(kind: str, name: str) -> None:
    check_component(kind, name)


def test_small_video_keeps_its_contract() -> None:
    check_vision_encoder(load("vision_encoders", "small_video")(dim=32, depth=1, image_size=32))


def test_small_text_keeps_its_contract() -> None:
    assets = RunAssets(texts=lambda: iter(["a dog and two cats sit", "one dog"]))
    check_text_encoder(load("text_encoders", "small_text")(dim=32, depth=1, assets=assets))


@pytest.mark.parametrize("name", ["dense", "fps", "segments", "uniform"])
def test_samplers_keep_their_contract(name: str) -> None:
    check_sampler(load("samplers", name)(n_clips=3, num_frm=2))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("longside", {"max_size": 256}),
        ("randaugment_crop", {"size": 32, "num_layers": 4, "prob": 1}),
        ("resize_crop", {"size": 32, "max_scale": 1.5, "flip": True}),
    ],
)
def test_transforms_keep_their_contract(name: str, params: dict[str, Any]) -> None:
    check_transform(load("transforms", name)(**params))


def test_infonce_keeps_its_contract() -> None:
    check_loss(load("losses", "infonce")())


def test_recall_keeps_its_contract() -> None:
    batches = []
    for part in range(2):
        draw = torch.Generator().manual_seed(part)
        ids = torch.arange(4) + 4 * part
        unit = [nn.functional.normalize(torch.randn(4, 8, generator=draw), dim=1) for _ in range(2)]
        batches.append(
            {"video": unit[0], "video_id": ids, "text": unit[1], "text_video_id": ids, "text_hash": 100 + ids}
        )
    check_metric(load("metrics", "recall")(), batches)


@pytest.fixture(scope="module")
def shapes() -> Any:
    return load("datasets", "shapes")(split="val", num_train=4, num_val=4, num_test=4)


def test_shapes_keeps_its_contract(shapes: Any) -> None:
    check_dataset(shapes)


@pytest.mark.parametrize("name", ["auto", "pyav", "decord"])
def test_video_readers_keep_their_contract(name: str, shapes: Any) -> None:
    if name == "decord":
        pytest.importorskip("decord", reason="decord is not installed")
    shapes.prepare()
    check_reader(load("readers", name)(), Path(next(iter(shapes.records())).media))


def test_the_image_reader_keeps_its_contract(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "red.png"
    Image.new("RGB", (20, 10), "red").save(path)
    check_reader(load("readers", "image")(), path)


# --- what a check must notice -----------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """A sound encoder: the mean colour of the real pixels, projected."""

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.image_size, self.masks_padding = 4, 16, True
        self.project = nn.Linear(3, 4)

    def forward(self, frames: Tensor, sizes: Tensor) -> Encoded:
        real = [
            row[..., :height, :width].float().mean((-1, -2)) for row, (height, width) in zip(frames, sizes, strict=True)
        ]
        tokens = self.project(torch.stack(real) / 255).flatten(1, 2)  # (B, C * F, 4)
        return Encoded(tokens, torch.ones(tokens.shape[:2]).bool(), tokens.mean(1))

    def blocks(self) -> Sequence[nn.Module]:
        return [self.project]


def changed(**fields: Callable[[Encoded], Any]) -> Encoder:
    class Changed(Encoder):
        def forward(self, frames: Tensor, sizes: Tensor) -> Encoded:
            encoded = super().forward(frames, sizes)
            return dataclasses.replace(encoded, **{name: change(encoded) for name, change in fields.items()})

    return Changed()


class Padded(Encoder):
    def forward(self, frames: Tensor, sizes: Tensor) -> Encoded:
        return super().forward(frames, torch.full_like(sizes, frames.shape[-1]))


class Batched(Encoder):
    def forward(self, frames: Tensor, sizes: Tensor) -> Encoded:
        encoded = super().forward(frames, sizes)
        return dataclasses.replace(encoded, pooled=encoded.pooled - encoded.pooled.mean(0))


class Forgetful(Encoder):
    """Computes with a value that its state_dict does not hold."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, frames: Tensor, sizes: Tensor) -> Encoded:
        self.calls += 1
        encoded = super().forward(frames, sizes)
        return dataclasses.replace(encoded, pooled=encoded.pooled + self.calls)


def test_a_sound_encoder_passes() -> None:
    check_vision_encoder(Encoder())


@pytest.mark.parametrize(
    ("encoder", "claim"),
    [
        (changed(mask=lambda e: e.mask.float()), "mask must be bool"),
        (changed(mask=lambda e: e.mask[:, :1]), r"mask must be \(3, 4\)"),
        (changed(tokens=lambda e: e.tokens[..., :2]), r"tokens must be \(3, L, 4\)"),
        (changed(pooled=lambda e: e.pooled[:1]), r"pooled must be \(3, 4\)"),
        (changed(pooled=lambda e: e.pooled * torch.nan), "must be finite"),
        (changed(pooled=lambda e: torch.ones_like(e.pooled)), "different videos"),
        (changed(clips=lambda e: e.pooled), "clips must be"),
        (Padded(), "beyond sizes must change nothing"),
        (Batched(), "must not depend on its batch"),
        (Forgetful(), "must not depend on its batch"),
    ],
)
def test_a_broken_encoder_is_noticed(encoder: Encoder, claim: str) -> None:
    with pytest.raises(AssertionError, match=claim):
        check_vision_encoder(encoder)


@dataclasses.dataclass
class Sampler:
    """One frame, chosen by ``choose(total, rng)``."""

    choose: Callable[[int, Any], Any]

    def __call__(self, times: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        return np.asarray(self.choose(len(times), rng))


def beyond(total: int, _: Any) -> list[list[int]]:
    return [[total]]


def everything(total: int, _: Any) -> list[list[int]]:
    return [list(range(total))]


def flat(total: int, _: Any) -> list[int]:  # noqa: ARG001
    return [0]


def unseeded(total: int, _: Any) -> list[list[int]]:
    return [[int(np.random.default_rng().integers(total))]]


@pytest.mark.parametrize(
    ("choose", "claim"),
    [(beyond, "must lie in 0 to 0"), (everything, "same for every video"), (flat, "integers"), (unseeded, "only")],
)
def test_a_broken_sampler_is_noticed(choose: Callable[[int, Any], Any], claim: str) -> None:
    with pytest.raises(AssertionError, match=claim):
        check_sampler(Sampler(choose))


def test_a_sampler_that_cannot_be_pickled_is_noticed() -> None:
    with pytest.raises(AssertionError, match="must be picklable"):
        check_sampler(Sampler(lambda total, rng: [[0]]))  # noqa: ARG005


class InPlace:
    def __call__(self, frames: Tensor, rng: np.random.Generator | None) -> Tensor:  # noqa: ARG002
        return frames.zero_()


class EachFrame:
    def __call__(self, frames: Tensor, rng: np.random.Generator | None) -> Tensor:  # noqa: ARG002
        return frames + torch.arange(len(frames), dtype=torch.uint8)[:, None, None, None]


@pytest.mark.parametrize(("transform", "claim"), [(InPlace(), "in place"), (EachFrame(), "alike")])
def test_a_broken_transform_is_noticed(transform: Any, claim: str) -> None:
    with pytest.raises(AssertionError, match=claim):
        check_transform(transform)


class SortingReader:
    """Returns sorted frames, and nothing for a file that is not there."""

    def read(self, source: Source, pick: Callable[[np.ndarray], np.ndarray]) -> Clip:
        if not source.path.exists():
            raise DataError(f"{source} does not exist")
        frames = np.arange(5 * 2 * 2 * 3, dtype=np.uint8).reshape(5, 2, 2, 3)
        return Clip(frames[np.sort(pick(np.arange(5) / 10))], 5)


class LenientReader(SortingReader):
    def read(self, source: Source, pick: Callable[[np.ndarray], np.ndarray]) -> Clip:  # noqa: ARG002
        return Clip(np.zeros((5, 2, 2, 3), np.uint8)[pick(np.arange(5) / 10)], 5)


@pytest.mark.parametrize(
    ("reader", "claim"), [(SortingReader(), "as picked"), (LenientReader(), "must raise DataError")]
)
def test_a_broken_reader_is_noticed(reader: Any, claim: str, tmp_path: Path) -> None:
    (tmp_path / "clip").touch()
    with pytest.raises(AssertionError, match=claim):
        check_reader(reader, tmp_path / "clip")


@dataclasses.dataclass
class Dataset:
    keys: Sequence[str]
    files: Sequence[Path] = ()

    def sources(self) -> Sequence[Path]:
        return self.files

    def records(self) -> Iterator[Record]:
        yield from (Record(key=key, media=key) for key in self.keys)


@pytest.mark.parametrize(
    ("dataset", "claim"),
    [
        (Dataset([]), "at least one"),
        (Dataset(["a", "b", "a"]), "1 are repeated"),
        (Dataset(["a"], [Path("/no/such/file")]), "does not"),
    ],
)
def test_a_broken_data_set_is_noticed(dataset: Dataset, claim: str) -> None:
    with pytest.raises(AssertionError, match=claim):
        check_dataset(dataset)


class LastBatch:
    def __init__(self) -> None:
        self.value = 0.0

    def update(self, rows: Mapping[str, Tensor]) -> None:
        self.value = float(rows["x"].sum())

    def compute(self) -> dict[str, Figure]:
        return {"x": Figure(self.value)}

    def reset(self) -> None: ...


def test_a_broken_metric_is_noticed() -> None:
    with pytest.raises(AssertionError, match="order of batches"):
        check_metric(LastBatch(), [{"x": torch.ones(2)}, {"x": torch.ones(3)}])


def test_a_broken_loss_is_noticed() -> None:
    def first(video: Tensor, text: Tensor, owner: Tensor) -> Term:  # noqa: ARG001
        return Term((video[0] * text[0]).sum(), 1.0)

    with pytest.raises(AssertionError, match="order of the texts"):
        check_loss(first)


@pytest.mark.parametrize(
    ("source", "error", "claim"),
    [
        ("", PluginError, "it has no hook"),
        (
            "import torch\nfrom antmmf import hookimpl\n@hookimpl\ndef antmmf_step_end(): ...",
            AssertionError,
            "without torch",
        ),
    ],
)
def test_a_broken_plugin_module_is_noticed(source: str, error: type[Exception], claim: str, tmp_path: Path) -> None:
    from importlib import import_module

    with on_path(fake_distribution(tmp_path, name="hooks", modules={"some_hooks": source})):
        module: ModuleType = import_module("some_hooks")
        with pytest.raises(error, match=claim):
            check_plugin_module(module)
