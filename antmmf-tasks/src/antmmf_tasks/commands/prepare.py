"""``antmmf data prepare``: is a data set all there, and is it what was published; its indexes are built on the way."""

from __future__ import annotations

import hashlib
import logging
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from antmmf.cli.options import OVERRIDES, bold, json_option, make_registry, plugin_options, print_json, table
from antmmf.errors import AntmmfError, ConfigError

from antmmf_tasks.datasets.release import Release

_SPLITS = ("train", "val", "test")


@click.command("prepare", context_settings=OVERRIDES)
@click.argument("name")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option("--root", type=click.Path(path_type=Path, file_okay=False), help="Where the data set lies.")
@json_option
@plugin_options
def prepare(
    name: str,
    overrides: tuple[str, ...],
    root: Path | None,
    as_json: bool,
    without_plugin: tuple[str, ...],
    plugin_files: tuple[Path, ...],
) -> None:
    """Find the files of data set NAME, count and compare them with what was published, and build its indexes.

    Parameters follow as KEY=VALUE; they must be those of the run that is to use the indexes. Exit 1 when something is
    missing or differs. What was indexed before it was stopped is not indexed again.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    registry = make_registry(without_plugin, plugin_files)
    component = registry.find("datasets", name)
    if component is None:
        raise ConfigError(registry.missing("datasets", name))
    kind = component.load()
    given = [f"data_root_dir={root}", *overrides] if root else list(overrides)
    parts = [_part(name, given, split, registry) for split in _splits(kind, given)]
    files = list(_compared(kind, parts))
    report = {
        "dataset": component.full_name,
        "from": getattr(kind, "home", None),
        "terms": getattr(kind, "terms", None),
        "files": files,
        "splits": parts,
    }
    print_json(report) if as_json else click.echo("\n".join(_lines(report)))
    if any(part["problems"] for part in parts) or any(file["same"] is False for file in files):
        raise SystemExit(1)


def _splits(kind: Any, given: Sequence[str]) -> list[str | None]:
    """The splits that the data set's constructor knows, or the one that was asked for."""
    if any(text.startswith("split=") for text in given):
        return [None]
    hint = typing.get_type_hints(kind.__init__).get("split")
    known = [split for split in _SPLITS if split in typing.get_args(hint)]
    return list(known) or [None]


def _part(name: str, given: Sequence[str], split: str | None, registry: Any) -> dict[str, Any]:
    """What is there of one split."""
    from antmmf.plan import plan_data
    from antmmf.run_data import open_indexes

    plan = plan_data(name, [*given, f"split={split}"] if split else given, registry=registry)
    (key,) = plan.datasets
    part: dict[str, Any] = {"split": split or str(plan.datasets[key].saved.get("split")), "problems": []}
    try:
        dataset = plan.datasets[key].build()
        part["files"] = [str(path) for path in dataset.sources() if Path(path).is_file()]
        with _progress(f"indexing {part['split']}", total=(_expected(dataset) or (None,))[0]):
            index = open_indexes(plan, [key])[0][key]
    except AntmmfError as error:
        part["problems"].append(re.sub(r"^dataset_attributes\.\w+\.0: ", "", str(error)))
        return part
    part |= {"records": len(index), "texts": index.num_texts, "index": str(index.path)}
    expected = _expected(dataset)
    if expected is not None:
        part |= {"published_records": expected[0], "published_texts": expected[1] or None}
        part["problems"] += [
            f"{there:,} {what}, a complete copy has {published:,}"
            for what, there, published in (
                ("records", len(index), expected[0]),
                ("texts", index.num_texts, expected[1]),
            )
            if published and there != published
        ]
    return part


class _Counter(logging.Handler):
    """Hears how many records are indexed."""

    def __init__(self, tell: Callable[[int], object]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        count = getattr(record, "indexed", None)
        if count is not None:
            self._tell(count)


@contextmanager
def _progress(what: str, *, total: int | None) -> Iterator[None]:
    """A bar of the records indexed so far, on a terminal; without a ``total`` their number alone."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console, log = Console(stderr=True), logging.getLogger("antmmf")
    if not console.is_terminal:
        yield
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        row = bar.add_task(what, total=total)
        counter = _Counter(lambda count: bar.update(row, completed=count))
        before = log.propagate, log.level
        log.propagate = False  # the bar says it instead
        log.setLevel(logging.DEBUG)
        log.addHandler(counter)
        try:
            yield
        finally:
            log.removeHandler(counter)
            log.propagate = before[0]
            log.setLevel(before[1])


def _expected(dataset: object) -> tuple[int, int] | None:
    return dataset.sizes.get(dataset.part) if isinstance(dataset, Release) else None


def _compared(kind: Any, parts: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each annotation file, and whether it is the published one, where that is known."""
    known: Mapping[str, str] = getattr(kind, "hashes", {})
    for path in dict.fromkeys(path for part in parts for path in part.get("files", ())):
        published = known.get(Path(path).name)
        yield {"file": path, "bytes": Path(path).stat().st_size, "same": published and published == _sha256(Path(path))}


def _sha256(path: Path) -> str:
    """The hash of a file; in tables and lists the ends of lines do not count."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 22):
            digest.update(part.replace(b"\r", b"") if path.suffix in (".txt", ".csv") else part)
    return digest.hexdigest()


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    said = {True: "as published", False: "DIFFERS from what was published", None: ""}
    yield f"{bold(report['dataset'])}: from {report['from']}; terms: {report['terms']}"
    if report["files"]:
        files = [(file["file"], f"{file['bytes']:,} bytes", said[file["same"]]) for file in report["files"]]
        yield table(files)
    rows = [("split", "records", "published", "texts", "published")]
    for part in report["splits"]:
        numbers = (part.get(key) for key in ("records", "published_records", "texts", "published_texts"))
        rows.append((part["split"], *(f"{number:,}" if number is not None else "-" for number in numbers)))
    yield table(rows)
    for part in report["splits"]:
        for problem in part["problems"]:
            yield f"  {part['split']}: {problem}"
        if "index" in part:
            yield f"  {part['split']}: index {part['index']}"
