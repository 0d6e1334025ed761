"""``antmmf data miniature``: a small copy of a data set in the format of its release."""

from __future__ import annotations

from pathlib import Path

import click

from antmmf_tasks.miniatures import HELD_OUT, write_miniature


@click.command("miniature")
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Where it is to lie.")
@click.option("--num", type=click.IntRange(6), default=24, show_default=True, help="Videos or pictures.")
@click.option("--seed", type=int, default=0, show_default=True)
def miniature(name: str, out: Path, num: int, seed: int) -> None:
    """Write a miniature of data set NAME: its files as they are published, with moving shapes for media."""
    write_miniature(name, out, num=num, seed=seed)
    share = " val_share=0.2" if name in HELD_OUT else ""  # of so few the usual share is none
    click.echo(f"{out}: {name} with {num} videos or pictures; try: antmmf data prepare {name} --root {out}{share}")
