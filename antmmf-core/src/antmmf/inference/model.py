"""A trained model in use: vectors of videos and texts, answers to questions; it needs no training data."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from antmmf.batch import Batch
from antmmf.checkpoint import find_checkpoint, load_checkpoint, load_model
from antmmf.config.reader import parse
from antmmf.contracts import Encoded, Json, Record, Sample
from antmmf.data.index import Index
from antmmf.data.loader import Loader
from antmmf.data.media import SampleReader
from antmmf.data.quarantine import BadSample, Quarantine
from antmmf.distributed.world import World
from antmmf.errors import CheckpointError, ComponentError, DataError
from antmmf.evaluate import batch_rows
from antmmf.inference.features import fingerprint, seeing
from antmmf.plan import RunPlan, plan_run
from antmmf.registry import Registry
from antmmf.run import build_task, device_of, weights_of
from antmmf.run_data import num_workers, run_assets, sample_reader, worker_setup
from antmmf.run_folder import flat
from antmmf.task import ContrastiveTask, Task

log = logging.getLogger("antmmf")

T = TypeVar("T")
Place: TypeAlias = "str | PathLike[str]"
Rows: TypeAlias = "Mapping[str, Tensor]"

_NOT_IN_USE = {
    "model_attributes.vision_encoder.params.pretrained": "false",  # the checkpoint has the weights
    "task_attributes.params.shuffle_control": "false",  # only a figure of evaluations
    "input_attributes.features": "null",  # a new video has none
}
_ANY_TEXT = "a"  # beside a video of which only the vector is wanted


@dataclass(frozen=True, slots=True)
class Answer:
    """One of a model's answers."""

    text: str
    probability: float


def load(
    run: Place,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    registry: Registry | None = None,
    world: World | None = None,
) -> Model:
    """The model of a run's folder (its best checkpoint, else the latest) or of a checkpoint, ready to be used.

    It sees videos as the run's evaluation does; ``batch_size`` is that of the run where none is given. Raises
    ``CheckpointError`` for what is no checkpoint, ``ConfigError`` where a component of it is not installed.
    """
    checkpoint = load_checkpoint(find_checkpoint(Path(run).expanduser(), prefer="best"))
    config = checkpoint.path / "config.yml"
    if "config.yml" not in checkpoint.files:
        raise CheckpointError(f"{checkpoint.path} has no config.yml, so nobody can say what model it is of")
    saved = flat(parse(checkpoint.files["config.yml"], name=str(config)).values)
    changes = {key: value for key, value in _NOT_IN_USE.items() if key in saved} | {
        "training_parameters.device": device
    }
    arguments = [f"{key}={value}" for key, value in changes.items()]
    plan = plan_run(str(config), arguments, registry=registry or Registry())
    assets = run_assets(plan, {}, checkpoint.assets)
    with torch.random.fork_rng(devices=[]):
        task = build_task(plan, assets)
    load_model(task, weights_of(checkpoint))
    return Model(plan, task, source=checkpoint.path, assets=assets.values(), batch_size=batch_size, world=world)


class Model:
    """What ``load`` returns; vectors are float32 tensors on the CPU, of unit length where the task's are.

    ``hash`` is of the weights and of all that turns a file into what they see: equal hashes, equal vectors.
    """

    def __init__(
        self,
        plan: RunPlan,
        task: Task,
        *,
        source: Path,
        assets: Mapping[str, Json],
        batch_size: int | None = None,
        world: World | None = None,
    ) -> None:
        train = plan.config.training_parameters
        self.plan, self.source = plan, source
        self.device = device_of(plan, world)
        self.task = task.to(self.device).eval()
        self.batch_size = batch_size or train.test_batch_size or train.batch_size
        self._assets, self._num_workers = assets, num_workers(plan, self.device, world or World())
        self._reader: SampleReader = sample_reader(plan, "in use", Listed([]), train=False)

    @cached_property
    def hash(self) -> str:
        """Of weights, components and assets (tokenizer, answers), in hexadecimal digits."""
        return fingerprint(self.plan, self.task.state_dict(), assets=self._assets)

    @cached_property
    def vision_hash(self) -> str:
        """The same of the vision encoder alone, and of how it sees files."""
        return fingerprint(self.plan, self.task.state_dict())

    def encode_video(self, paths: Iterable[Place]) -> Tensor:
        """The vectors (n, dim) of videos or pictures; raises ``DataError`` naming the first that cannot be read."""
        self.must_compare("encode_video")
        return self.video_rows([Record(str(path), str(path)) for path in _several(paths, "videos")])["video"]

    def encode_text(self, texts: Iterable[str]) -> Tensor:
        """The vectors (n, dim) of texts."""
        self.must_compare("encode_text")
        return self.text_rows(_several(texts, "texts"))["text"]

    def similarity(self, videos: Sequence[Place] | Tensor, texts: Sequence[str] | Tensor) -> Tensor:
        """How well each video fits each text, (videos, texts): cosines; of either also vectors may be given."""
        seen = videos if isinstance(videos, Tensor) else self.encode_video(videos)
        read = texts if isinstance(texts, Tensor) else self.encode_text(texts)
        return seen @ read.T

    def answer(self, video: Place, question: str, *, options: Sequence[str] = ()) -> list[Answer]:
        """Answers, the most probable first: those that the task knows, or for multiple choice the ``options``."""
        (question,) = _several([question], "questions")
        record = Record(str(video), str(video), question=question, options=tuple(_several(options, "options")))
        (found,) = self.answers([record])
        return found

    def answers(self, records: Sequence[Record]) -> list[list[Answer]]:
        """The same for the question and options of each record."""
        if isinstance(self.task, ContrastiveTask):
            raise ComponentError(
                f"{self._name} answers no questions: it has encode_video, encode_text and similarity; "
                "answers give runs of tasks such as vqa and mcqa"
            )
        lines = self.task.predictions(self.rows(records), lambda id: records[id])
        found = [[Answer(one["answer"], one["probability"]) for one in line["answers"]] for line in lines]
        for record, answers in zip(records, found, strict=True):
            if record.options and {answer.text for answer in answers} != set(record.options):
                raise ComponentError(f"{self._name} chooses among its own answers: leave the options out")
        return [sorted(answers, key=lambda answer: -answer.probability) for answers in found]

    def video_rows(self, records: Sequence[Record], *, skip: bool = False) -> dict[str, Tensor]:
        """As ``rows``, of the videos alone."""
        return self.rows([replace(record, texts=(_ANY_TEXT,)) for record in records], skip=skip)

    def rows(self, records: Sequence[Record], *, skip: bool = False) -> dict[str, Tensor]:
        """The task's evaluation rows for what the records say of videos; ids are the places in ``records``.

        A video that cannot be read is a ``DataError``, or with ``skip`` left out with a warning.
        """
        if not records:
            raise DataError("there is nothing to see: the list of videos is empty")
        self._reader.index = Listed(records)
        quarantine = Quarantine(policy="skip", max_bad_rate=1.0) if skip else _Strict()
        found = self.rows_of(self._reader, quarantine)
        bad = quarantine.summary()
        if bad:
            log.warning(bad)
        if not found:
            raise DataError(f"none of the {len(records)} videos can be read")
        return found

    def rows_of(self, reader: SampleReader, quarantine: Quarantine) -> dict[str, Tensor]:
        """The task's evaluation rows for all that ``reader`` reads; nothing where it can read nothing."""
        return self._joined(self.batches(reader, quarantine))

    def batches(self, reader: SampleReader, quarantine: Quarantine) -> Iterator[Batch]:
        """All that ``reader`` reads, in batches as the run's evaluation has them."""
        loader = Loader(
            reader,
            self.task.collator(False),
            batch_size=self.batch_size,
            train=False,
            seed=0,
            quarantine=quarantine,
            num_workers=min(self._num_workers, len(reader) // self.batch_size),  # to start one takes seconds
            device=self.device,
            worker_setup=worker_setup(self.plan),
        )
        try:
            for step in loader.epoch(0):
                yield from step.batches
        finally:
            loader.close()

    def text_rows(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The task's evaluation rows for texts alone: no video is seen."""
        if not texts:
            raise DataError("there is nothing to read: the list of texts is empty")
        collate, each = self.task.collator(False), self.batch_size
        chunks = [tuple(texts[start : start + each]) for start in range(0, len(texts), each)]
        nothing = torch.zeros(1, 1, 3, 1, 1, dtype=torch.uint8)
        batches = (collate([Sample(0, Record("", "", texts=chunk), nothing, chunk)]) for chunk in chunks)
        with seeing(cast(Any, self.task).vision, self._blank):
            return self._joined(batches)

    def _blank(self, frames: Tensor, sizes: Tensor) -> Encoded:  # noqa: ARG002
        token = torch.ones(len(frames), 1, cast(Any, self.task).vision.dim, device=self.device)
        return Encoded(token, torch.ones_like(token[..., 0], dtype=torch.bool), token[:, 0], token)

    def _joined(self, batches: Iterator[Batch]) -> dict[str, Tensor]:
        with torch.no_grad():
            parts = batch_rows(self.task, ((batch, False) for batch in batches), self.device)
        return {name: torch.cat(tensors) for name, tensors in parts.items()}

    @property
    def _name(self) -> str:
        return f"{self.source}: task {self.plan.task.full_name.rpartition(':')[2]}"

    def must_compare(self, wanted: str) -> None:
        """Raise ``ComponentError`` where the task has no vectors, which is what ``wanted`` needs."""
        if not isinstance(self.task, ContrastiveTask):
            raise ComponentError(
                f"{self._name} has no vectors, so no {wanted}. It has answer(video, question); vectors have runs of "
                "retrieval and of the pre-training tasks"
            )


def _several(given: Iterable[T], what: str) -> list[T]:
    """``given`` as a list; raises ``DataError`` for a single text, whose letters would be taken for ``what``, and for
    things that are no texts, or for videos no paths."""
    if isinstance(given, str | bytes | PathLike):
        raise DataError(f"{what} must be a list, got {given!r}; write [{given!r}]")
    found = list(given)
    kinds = (str, PathLike) if what == "videos" else (str,)
    if wrong := [one for one in found if not isinstance(one, kinds)]:
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise DataError(f"{what} must be {expected}, one is {type(wrong[0]).__name__}")
    return found


class Listed(Index):
    """Records that are at hand, as an index; without ``ids`` these are their places."""

    def __init__(self, records: Sequence[Record], ids: npt.NDArray[np.int64] | None = None) -> None:
        self.records = records
        self.ids = np.arange(len(records), dtype=np.int64) if ids is None else ids
        self.blocks = np.array([len(records)], dtype=np.int64)

    def __reduce__(self) -> tuple[type[Index], tuple[Any, ...]]:
        return Listed, (self.records, self.ids)

    def record(self, row: int) -> Record:
        return self.records[row]


class _Strict(Quarantine):
    """A file that cannot be read ends the call."""

    def take(self, bad: Sequence[BadSample], *, num_seen: int) -> None:  # noqa: ARG002
        for sample in bad:
            raise DataError(f"{sample.media}: {sample.message}", reason=sample.reason)
