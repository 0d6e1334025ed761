"""``antmmf data download``: annotation files that may be fetched by anyone, from where their publishers keep them."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import click
from antmmf.cli.options import make_registry, plugin_options
from antmmf.errors import ConfigError, DataError

_PART = 1 << 20


@click.command("download")
@click.argument("name")
@click.option(
    "--root", type=click.Path(path_type=Path, file_okay=False), required=True, help="Where the data set is to lie."
)
@plugin_options
def download(name: str, root: Path, without_plugin: tuple[str, ...], plugin_files: tuple[Path, ...]) -> None:
    """Fetch the annotations of data set NAME, if its terms and a lasting address allow it; else say what to fetch.

    A download that was stopped goes on where it was. Pictures and videos are never fetched.
    """
    registry = make_registry(without_plugin, plugin_files)
    component = registry.find("datasets", name)
    if component is None:
        raise ConfigError(registry.missing("datasets", name))
    kind: Any = component.load()
    click.echo(f"{component.full_name}: terms: {getattr(kind, 'terms', 'unknown')}")
    addresses = getattr(kind, "downloads", ())
    if not addresses:
        lines = " ".join((kind.__doc__ or "").split())
        raise DataError(f"{name} cannot be downloaded from here; fetch it from {getattr(kind, 'home', '?')}. {lines}")
    root.mkdir(parents=True, exist_ok=True)
    for address in addresses:
        path = root / address.rpartition("/")[2]
        if path.exists():
            click.echo(f"{path}: is there")
        else:
            fetch(address, path)
            click.echo(f"{path}: {path.stat().st_size:,} bytes")
        if path.suffix == ".zip":
            _unpack(path, root)


def fetch(address: str, path: Path) -> None:
    """Download one file; a part of it that is there already is kept. Raises ``DataError``."""
    part = path.with_name(f"{path.name}.part")
    have = part.stat().st_size if part.exists() else 0
    try:
        request = Request(address, headers={"Range": f"bytes={have}-"} if have else {})
        with urlopen(request, timeout=60) as answer:
            resumed = answer.status == 206
            if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                raise DataError(f"{address}: another part came than was asked for; remove {part} and start again")
            total = int(answer.headers.get("Content-Length") or 0) + (have if resumed else 0)
            parts: Iterator[bytes] = iter(lambda: answer.read(_PART), b"")
            left = (total - (have if resumed else 0)) // _PART + 1 if total else None
            hidden = not sys.stderr.isatty()
            bar = click.progressbar(parts, length=left, label=path.name, file=sys.stderr, hidden=hidden)
            with part.open("ab" if resumed else "wb") as file, bar as shown:
                file.writelines(shown)
    except HTTPError as error:
        if error.code != 416 or not have:
            raise DataError(f"{address}: {error.code} {error.reason}; has it moved?") from error
        if error.headers.get("Content-Range", "").rpartition("/")[2] != str(have):  # what is there is of another file
            part.unlink()
            fetch(address, path)
            return
        total = have  # all of it is there
    except (URLError, OSError, HTTPException, ValueError) as error:
        said = getattr(error, "reason", error) or type(error).__name__
        raise DataError(f"{address}: {said}; start again to go on") from error
    if total and part.stat().st_size != total:
        raise DataError(f"{address}: {part.stat().st_size:,} of {total:,} bytes came; start again to go on")
    part.replace(path)


def _unpack(path: Path, root: Path) -> None:
    """Write the members of a zip below ``root`` that are not there; none leads out of it, and each is whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                target = root / os.path.normpath(f"/{member.filename}").lstrip("/")
                there = target.is_file() and target.stat().st_size == member.file_size
                if member.is_dir() or there:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                part = target.with_name(f"{target.name}.part")
                with archive.open(member) as source, part.open("wb") as file:
                    shutil.copyfileobj(source, file, _PART)
                part.replace(target)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: is no whole zip ({error}); remove it and fetch it again") from error
