"""``antmmf data pack``: a data set as a few large tar files, which can be read from anywhere, in any order."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from antmmf.cli.options import OVERRIDES, plugin_options
from antmmf.data.index import Index
from antmmf.data.sources import source_of
from antmmf.errors import DataError

from antmmf_vision.commands.look import planned

if TYPE_CHECKING:
    from antmmf.plan import DataPlan

_BLOCK = 512  # a tar's header and padding


@click.command("pack", context_settings=OVERRIDES)
@click.argument("source")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the shards.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="Only this split.")
@click.option("--shard-mb", type=click.FloatRange(min=0, min_open=True), default=256.0, show_default=True)
@plugin_options
def pack(
    source: str,
    overrides: tuple[str, ...],
    out: Path,
    split: str | None,
    shard_mb: float,
    without_plugin: tuple[str, ...],
    plugin_files: tuple[Path, ...],
) -> None:
    """Copy the files and records of SOURCE into shards; what a killed one finished is not done again.

    SOURCE is a config, a recipe, or a data set's name with its parameters as KEY=VALUE. Members are named as webdataset
    wants it (0000000012.mp4, .json, .txt); the data set `shards` reads them.
    """
    plan = planned(source, overrides, without_plugin, plugin_files)
    if split is not None and split not in plan.datasets:
        raise DataError(f"{source} has no {split} split; it has: {', '.join(plan.datasets)}")
    write_splits(plan, out, split, max_bytes=int(shard_mb * 1e6))


def write_splits(plan: DataPlan, out: Path, split: str | None, *, max_bytes: int) -> None:
    """Pack all splits of a plan, or one."""
    from antmmf.run_data import open_indexes

    out.mkdir(parents=True, exist_ok=True)
    for name in [split] if split else plan.datasets:
        index = open_indexes(plan, [name])[0][name]
        shards = list(write_shards(index, out, name, max_bytes=max_bytes))
        done = {"split": name, "dataset": plan.datasets[name].full_name, "shards": shards}
        (out / f"{name}.json").write_text(json.dumps(done, indent=1), encoding="utf-8")
        records, size = sum(shard["records"] for shard in shards), sum(shard["bytes"] for shard in shards)
        click.echo(f"{name}: {records:,} records in {len(shards)} shards, {size / 1e6:,.1f} MB: {out / f'{name}.json'}")


def write_shards(index: Index, out: Path, name: str, *, max_bytes: int) -> Iterator[dict[str, Any]]:
    """Write the shards of a split one after the other; of each its file, records and bytes.

    A shard is a tar and, beside it, a line of JSON for each record; both are whole or not there.
    """
    row = number = 0
    while row < len(index):
        stem = f"{name}-{number:06d}"
        lines, tar = out / f"{stem}.jsonl", out / f"{stem}.tar"
        if not (lines.exists() and tar.exists()):
            _write(index, row, tar, lines, max_bytes)
        records = sum(1 for _ in lines.open(encoding="utf-8"))
        yield {"file": tar.name, "records": records, "bytes": tar.stat().st_size}
        row, number = row + records, number + 1


def _write(index: Index, row: int, tar: Path, lines: Path, max_bytes: int) -> None:
    """Records from ``row`` on, until the shard is full; a file that several of them name is in it once."""
    parts = (tar.with_suffix(".tar.part"), lines.with_suffix(".jsonl.part"))
    places: dict[str, tuple[str, int, int]] = {}
    with (
        tarfile.open(parts[0], "w", format=tarfile.USTAR_FORMAT) as shard,
        parts[1].open("w", encoding="utf-8") as said,
    ):
        first = row
        while row < len(index) and (row == first or shard.offset < max_bytes):
            record = index.record(row)
            values = {key: value for key, value in asdict(record).items() if key != "media"}
            stem = f"{row:010d}"
            if record.media not in places:
                source = source_of(record.media)
                if source.is_file and source.path.is_dir():
                    raise DataError(f"{source}: is a folder of frames; only files can be packed")
                places[record.media] = _add(shard, stem + (source.suffix or ".bin"), _content(source))
            if record.texts:
                _add(shard, f"{stem}.txt", record.texts[0].encode())
            values["member"] = places[record.media]
            line = json.dumps(values, ensure_ascii=False)
            _add(shard, f"{stem}.json", line.encode())
            said.write(line + "\n")
            row += 1
    for part, whole in zip(parts, (tar, lines), strict=True):
        os.replace(part, whole)


def _content(source: Any) -> bytes:
    try:
        with source.open() as file:
            content: bytes = file.read()
    except OSError as error:
        raise DataError(
            f"{source}: {error.strerror}; missing: drop leaves such records out", reason="missing"
        ) from error
    return content


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> tuple[str, int, int]:
    """Append a member; its name, and where its bytes lie."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    start = shard.offset + _BLOCK
    shard.addfile(info, io.BytesIO(content))
    return name, start, len(content)
