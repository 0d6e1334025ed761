"""``antmmf run``: train and evaluate what a config says."""

from __future__ import annotations

import functools
import logging
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from antmmf.cli.options import OVERRIDES, make_registry, plugin_options
from antmmf.cli.seeds import parse_seeds, seed_overrides, seeds_table
from antmmf.distributed.environment import ranks
from antmmf.distributed.launch import launch, split_arguments
from antmmf.errors import ConfigError

if TYPE_CHECKING:
    from antmmf.distributed.world import World
    from antmmf.plan import RunPlan

log = logging.getLogger("antmmf")

_LAUNCH = "antmmf.launch"
_MAX_EARLY = 10_000
_LAUNCH_HELP = (
    ("--nproc-per-node N", "Processes on this host: a number, or auto, gpu, cpu. Those below too are torchrun's."),
    ("--nnodes N, --node-rank R", "Hosts, and which of them this one is."),
    ("--master-addr, --master-port", "Where rank 0 is; with one host a free port is taken."),
    ("--rdzv-backend, -endpoint, -id", "How hosts meet instead: c10d, host:port, a name. Also --rdzv-conf."),
    ("--max-restarts N", "Start all again, from the newest checkpoint, when one process dies."),
    ("...", "See torchrun --help: --standalone, --monitor-interval, --log-dir, --redirects, --tee, --role, ..."),
)


class _Launchable(click.Command):
    """A command whose torchrun arguments are taken out and kept, beside those that are left, in ``ctx.meta``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given, rest = split_arguments(args)
        kept = list(rest)
        if "--seeds" in kept:
            del kept[kept.index("--seeds") : kept.index("--seeds") + 2]
        ctx.meta[_LAUNCH] = given, [argument for argument in kept if not argument.startswith("--seeds=")]
        return super().parse_args(ctx, rest)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Several processes (docs/cluster.md)"):
            formatter.write_dl(_LAUNCH_HELP)


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from antmmf.recipes import recipe_files
    from antmmf.registry import Registry

    return [CompletionItem(name) for name in sorted(recipe_files(Registry())) if name.startswith(incomplete)]


@click.command("run", cls=_Launchable, context_settings=OVERRIDES)
@click.argument("source", shell_complete=_complete)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option("--data", type=click.Path(path_type=Path), metavar="FOLDER", help="Your own videos with a captions file.")
@click.option("--smoke", is_flag=True, help="3 steps, 2 evaluation batches, save, resume; leaves no run folder.")
@click.option("--seeds", metavar="0,1,...", help="A run for each seed, in save_dir/seed0, ..., and their mean ± std.")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and the result.")
@plugin_options
@click.pass_context
def command(
    ctx: click.Context,
    source: str,
    overrides: tuple[str, ...],
    data: Path | None,
    smoke: bool,
    seeds: str | None,
    quiet: bool,
    without_plugin: tuple[str, ...],
    plugin_files: tuple[Path, ...],
) -> int:
    """Run SOURCE, a config file or a recipe (antmmf list recipes).

    OVERRIDES are key=value, or pairs of a key and a value, such as training_parameters.max_iterations=100.
    """
    from antmmf.plan import plan_run
    from antmmf.utils.launch import in_our_words

    given, rest = ctx.meta[_LAUNCH]
    own = ranks()
    show_log(quiet=quiet, first=own.rank == 0)

    def plan(*more: str) -> RunPlan:
        try:
            registry = make_registry(without_plugin, plugin_files)
            return plan_run(source, [*overrides, *more], registry=registry, data=data)
        except ConfigError as error:
            raise in_our_words(error, overrides) from error

    def once(*more: str) -> int:
        if given:
            return launch(given, [*(["--debug"] if ctx.find_root().obj else []), "run", *rest, *more])
        _run(plan(*more), smoke=smoke)
        return 0

    if seeds is not None:
        if smoke or own.size > 1:
            raise ConfigError("--seeds must not go with --smoke, nor in processes that torchrun or srun started")
        return _each_seed(parse_seeds(seeds), plan(), once)
    if given or own.size == 1:
        return once()
    from antmmf.distributed.failure import together

    with together(functools.partial(tell_and_code, debug=ctx.find_root().obj)) as world:
        _run(plan(), world, smoke=smoke)
    return 0


def _each_seed(seeds: list[int], plan: RunPlan, once: Callable[..., int]) -> int:
    """One run after the other, until one fails; then what they say together."""
    from antmmf.run_folder import choose_folder

    named = plan.config.training_parameters.save_dir
    base = Path(named).expanduser() if named else choose_folder(plan)
    folders = [base / f"seed{seed}" for seed in seeds]
    for number, seed in enumerate(seeds, start=1):
        log.info("seed %d (%d of %d) -> %s", seed, number, len(seeds), base / f"seed{seed}")
        code = once(*seed_overrides(base, seed))
        if code:
            return code
    click.echo(seeds_table(folders))
    return 0


def _run(plan: RunPlan, world: World | None = None, *, smoke: bool) -> None:
    early = MemoryHandler(_MAX_EARLY, flushLevel=logging.CRITICAL)  # what is said before the folder is known
    log.addHandler(early)
    for plugin in plan.broken:
        log.warning("left out: %s", plugin.reason)
    if smoke:
        from antmmf.smoke import smoke_run

        _say(smoke_run(plan, world), world)
        return
    from antmmf.run import assemble

    started = time.monotonic()
    run = assemble(plan, world=world)
    handler = logging.FileHandler(run.folder / f"log.rank{run.world.rank}.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.removeHandler(early)
    early.setTarget(handler)
    early.close()
    try:
        run.execute()
    except Exception:
        log.debug("the run failed", exc_info=True)
        raise
    finally:
        log.removeHandler(handler)
        handler.close()
    _say(f"{_duration(time.monotonic() - started)} in all; everything lies in {run.folder}", world)


def _say(result: str, world: World | None) -> None:
    if world is None or world.is_first:
        click.echo(result)


def tell_and_code(error: Exception, *, debug: bool) -> int:
    """Print an error of one process among several, and return the exit code that it means."""
    from antmmf.cli.main import tell

    if ranks().rank > 0:
        click.echo(f"antmmf: rank {ranks().rank} ({platform.node()}) failed:", err=True)
    code = tell(error, debug=debug)
    if code is None:
        traceback.print_exception(error)
    return code or 1


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def show_log(*, quiet: bool, first: bool = True) -> None:
    """Print log messages plainly, of other processes than the ``first`` only errors; the run folder's files get all."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.ERROR if not first else logging.WARNING if quiet else logging.INFO)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(lambda record: record.name != "antmmf.said")
    log.handlers[:] = [handler]
    log.setLevel(logging.DEBUG)
    log.propagate = False
    if not first:
        warnings.simplefilter("ignore")
