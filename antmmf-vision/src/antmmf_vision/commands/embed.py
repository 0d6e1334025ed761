"""``antmmf embed``: the vectors of a data set's videos and texts as Parquet, or what a frozen encoder sees of them."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from antmmf.cli.options import OVERRIDES, make_registry, plugin_options
from antmmf.cli.run import show_log, tell_and_code
from antmmf.distributed.environment import ranks
from antmmf.distributed.launch import launch
from antmmf.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from antmmf import Model
    from antmmf.contracts import Record
    from antmmf.data.index import Index
    from antmmf.data.media import SampleReader
    from antmmf.data.quarantine import Quarantine
    from antmmf.distributed.world import World
    from antmmf.plan import DataPlan
    from antmmf.registry import Registry

_ABOUT = "about.json"
_STANDARD = "a"  # what a task asks for beside a video, where only the video counts


@dataclass(frozen=True)
class About:
    """What all parts of a folder have in common; ``data`` is a hash of the records."""

    model: str
    kind: str
    data: str
    part_size: int
    batch_size: int


@click.command("embed", context_settings=OVERRIDES)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option("--data", required=True, metavar="X", help="A data set's name, a config, or a folder of videos.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write to.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="Only this split.")
@click.option("--features", is_flag=True, help="All that the vision encoder gives, for input_attributes.features.")
@click.option("--part-size", type=click.IntRange(1), default=1000, show_default=True, help="Records in a file.")
@click.option("--batch-size", type=click.IntRange(1), help="Videos at a time.  [default: the run's]")
@click.option("--device", default="auto", show_default=True)
@click.option("--nproc-per-node", metavar="N", help="Share the parts among so many processes.")
@plugin_options
@click.pass_context
def command(
    ctx: click.Context,
    run: Path,
    overrides: tuple[str, ...],
    data: str,
    out: Path,
    split: str | None,
    features: bool,
    part_size: int,
    batch_size: int | None,
    device: str,
    nproc_per_node: str | None,
    without_plugin: tuple[str, ...],
    plugin_files: tuple[Path, ...],
) -> int:
    """Write the vectors of X as the model of RUN (a run's folder or a checkpoint) has them.

    Parameters of a data set follow as KEY=VALUE. Each split gets a folder in DIR: videos/ (key, media, vector, model)
    and texts/ (key, text, vector, model) in Parquet; with --features features/ instead. Parts that are there are not
    computed again, so a command that was stopped goes on where it was.
    """
    own, debug = ranks(), bool(ctx.find_root().obj)
    show_log(quiet=False, first=own.rank == 0)
    if nproc_per_node is not None and own.size == 1:
        return launch({"nproc-per-node": nproc_per_node}, _arguments(ctx, debug=debug))
    registry = make_registry(without_plugin, plugin_files)
    plan = _planned(data, overrides, registry)
    if split is not None and not plan.parts(split):
        raise ConfigError(f"{plan.name} has no {split} split; it has: {', '.join(plan.datasets)}")
    from antmmf.distributed.failure import together
    from antmmf.distributed.world import World

    tell = functools.partial(tell_and_code, debug=debug)
    with together(tell) if own.size > 1 else nullcontext(World()) as world:
        model = _model(run, device=device, batch_size=batch_size, registry=registry, world=world)
        kind = "features" if features else "vectors"
        for name in plan.parts(split) if split else plan.datasets:
            _Embedding(model, plan, name, folder=out / name, kind=kind, part_size=part_size, world=world).write()
    return 0


def _arguments(ctx: click.Context, *, debug: bool) -> list[str]:
    """This command for each of several processes."""
    given = ctx.params
    options = {name: given[name] for name in ("data", "out", "split", "part_size", "batch_size", "device")}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]
    words += ["--features"] * given["features"]
    words += [f"--without-plugin={name}" for name in given["without_plugin"]]
    words += [f"--plugin={path}" for path in given["plugin_files"]]
    return [*(["--debug"] if debug else []), "embed", str(given["run"]), *given["overrides"], *words]


def _planned(data: str, overrides: Sequence[str], registry: Registry) -> DataPlan:
    from antmmf.plan import plan_data
    from antmmf.recipes import recipe_files

    if Path(data).is_dir():
        return plan_data(
            "antmmf-tasks:folder", [f"data_root_dir={Path(data).resolve()}", *overrides], registry=registry
        )
    if registry.find("datasets", data) is None and not Path(data).is_file() and data not in recipe_files(registry):
        hint = did_you_mean(data, {component.name for component in registry.components("datasets")})
        raise ConfigError(f"--data {data}: must be a folder of videos, a data set's name, a config or a recipe{hint}")
    return plan_data(data, overrides, registry=registry)


def _model(run: Path, *, device: str, batch_size: int | None, registry: Registry, world: World) -> Model:
    import torch
    from antmmf.inference.model import load

    model = load(run, device=device, batch_size=batch_size, registry=registry, world=world)
    threads = model.plan.config.training_parameters.num_threads
    if threads:
        torch.set_num_threads(threads)
    return model


class _Embedding:
    """One data set of one command."""

    def __init__(
        self, model: Model, plan: DataPlan, name: str, *, folder: Path, kind: str, part_size: int, world: World
    ) -> None:
        from antmmf.data.quarantine import Quarantine
        from antmmf.run_data import open_indexes, sample_reader

        self.model, self.kind, self.folder, self.part_size, self.world = model, kind, folder, part_size, world
        if kind == "vectors":
            model.must_compare("embed; with --features you get what its vision encoder sees")
        inputs = model.plan.config.input_attributes
        seen = replace(
            plan,
            inputs=model.plan.inputs,
            config=plan.config.model_copy(update={"input_attributes": inputs}),
        )
        self.index: Index = open_indexes(plan, [name])[0][name]
        self.reader: SampleReader = sample_reader(seen, name, self.index, train=False)
        hash = model.hash if kind == "vectors" else model.vision_hash
        self.about = About(hash, kind, _digest(self.index.path / "records.arrow"), part_size, model.batch_size)
        if world.is_first:
            self._claim()
        world.wait()
        self.quarantine: Quarantine = Quarantine(
            folder,
            rank=world.rank,
            policy="fail" if inputs.on_bad_sample == "fail" else "skip",
            max_bad_rate=plan.config.input_attributes.max_bad_rate,
        )

    def write(self) -> None:
        """Write this process's share of the parts; then the first says what is there."""
        work = self._write_vectors if self.kind == "vectors" else self._write_features
        for number in range(self.world.rank, -(-len(self.index) // self.part_size), self.world.size):
            work(number)
        self.world.wait()
        if self.world.is_first:
            click.echo(
                f"{self.folder}: {', '.join(self._counts())} of {len(self.index):,} records; model {self.about.model}"
            )
            bad = self.quarantine.summary()
            if bad:
                click.echo(bad, err=True)

    def _claim(self) -> None:
        """Say what the folder holds. Raises ``DataError`` where it, or one beside it, holds something else."""
        for path in sorted(self.folder.parent.glob(f"*/{_ABOUT}")):
            there = About(**json.loads(path.read_text(encoding="utf-8")))
            if (there.model, there.kind) != (self.about.model, self.about.kind):
                raise DataError(
                    f"{path.parent}: holds {there.kind} of model {there.model}, these would be {self.about.kind} of "
                    f"{self.about.model} ({self.model.source}); what is compared must be of one: give another --out"
                )
            if path.parent == self.folder and there != self.about:
                raise DataError(
                    f"{path.parent}: was begun with other data, --part-size or --batch-size ({there.data}, "
                    f"{there.part_size}, {there.batch_size}), now they are {self.about.data}, {self.part_size}, "
                    f"{self.about.batch_size}; give the same, or another --out"
                )
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self.about), indent=2) + "\n"
        _whole(self.folder / _ABOUT, lambda path: path.write_text(text, encoding="utf-8"))

    def _records(self, number: int) -> list[tuple[int, Record]]:
        rows = range(number * self.part_size, min((number + 1) * self.part_size, len(self.index)))
        return [(int(self.index.ids[row]), self.index.record(row)) for row in rows]

    def _seen(self, groups: dict[tuple[Any, ...], list[int]], records: dict[int, Record]) -> SampleReader:
        """What reads each video of a part once: of the records that show it, the first."""
        import numpy as np
        from antmmf.inference.model import Listed

        wanted = [
            replace(
                records[ids[0]],
                texts=(_STANDARD,),
                negatives=(),
                question=_STANDARD,
                answer=_STANDARD,
                options=(_STANDARD, f"{_STANDARD} {_STANDARD}"),
                extras={},
            )
            for ids in groups.values()
        ]
        self.reader.index = Listed(wanted, np.array([ids[0] for ids in groups.values()], dtype=np.int64))
        return self.reader

    def _write_vectors(self, number: int) -> None:
        paths = {kind: self.folder / kind / f"part-{number:05d}.parquet" for kind in ("videos", "texts")}
        if all(path.is_file() for path in paths.values()):
            return
        records = dict(self._records(number))
        rows = self.model.rows_of(self._seen({(id,): [id] for id in records}, records), self.quarantine)
        seen = [records[id] for id in rows["video_id"].tolist()] if rows else []
        columns = {"key": [record.key for record in seen], "media": [record.media for record in seen]}
        self._write_table(paths["videos"], columns, rows.get("video"))
        texts = [(record.key, text) for record in records.values() for text in record.texts]
        read = self.model.text_rows([text for _, text in texts])["text"] if texts else None
        columns = {"key": [key for key, _ in texts], "text": [text for _, text in texts]}
        self._write_table(paths["texts"], columns, read)

    def _write_table(self, path: Path, columns: dict[str, list[str]], vectors: Any) -> None:
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        table: dict[str, Any] = {name: pa.array(values, pa.string()) for name, values in columns.items()}
        if vectors is None:  # of any text, for the number of dimensions
            vectors = self.model.text_rows(["a"])["text"][:0]
        table["vector"] = pa.FixedSizeListArray.from_arrays(vectors.numpy().reshape(-1), vectors.shape[1])
        table["model"] = pa.array([self.about.model] * len(table["vector"]), pa.string())
        _whole(path, lambda beside: pq.write_table(pa.table(table), beside))

    def _write_features(self, number: int) -> None:
        import pyarrow as pa
        import torch
        from antmmf.inference.features import feature_rows

        path = self.folder / "features" / f"part-{number:05d}.arrow"
        if path.is_file():
            return
        records = dict(self._records(number))
        groups: dict[tuple[Any, ...], list[int]] = {}  # questions about a video share what is seen of it
        for id, record in records.items():
            groups.setdefault((record.media, record.start, record.end), []).append(id)
        by_first = {ids[0]: ids for ids in groups.values()}
        vision: Any = self.model.task.vision
        tables = []
        with torch.no_grad():
            for batch in self.model.batches(self._seen(groups, records), self.quarantine):
                encoded = vision(batch.frames.to(self.model.device), batch.sizes.to(self.model.device))
                tables.append(
                    feature_rows([by_first[id] for id in batch.ids.tolist()], encoded, model=self.about.model)
                )
        if not tables:
            raise DataError(f"{self.folder}: not one video of part {number} can be read: {self.quarantine.summary()}")
        table = pa.concat_tables(tables).combine_chunks()

        def write(beside: Path) -> None:
            with pa.OSFile(str(beside), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)

        _whole(path, write)

    def _counts(self) -> Iterator[str]:
        """How many rows the parts of each kind have."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self.kind == "features":
            paths = self.folder.glob("features/*.arrow")
            yield f"{sum(len(pa.ipc.open_file(pa.memory_map(str(path))).read_all()) for path in paths):,} videos"
            return
        for kind in ("videos", "texts"):
            paths = self.folder.glob(f"{kind}/*.parquet")
            yield f"{sum(pq.read_metadata(path).num_rows for path in paths):,} {kind}"


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=8)
    with path.open("rb") as file:
        while part := file.read(1 << 22):
            digest.update(part)
    return digest.hexdigest()


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written beside its place, then put there: it is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    write(beside)
    os.replace(beside, path)
