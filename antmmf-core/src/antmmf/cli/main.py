"""The entry of ``antmmf``: lazily loaded commands, and what an error looks like.

Exit codes: 0 done; 1 a defect, or ``doctor`` found something broken; 2 the user can mend it (one line says how);
130 interrupted; 128 + n stopped by signal n. Several processes end with the code that one would have.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, NoReturn

import click

from antmmf.distributed.environment import ranks
from antmmf.errors import AntmmfError, ConfigError

if TYPE_CHECKING:
    from antmmf.registry import Component

COMMANDS: dict[str, tuple[str, str]] = {
    # name: (module, one line for --help, which is shown without importing the module)
    "run": ("antmmf.cli.run", "Train and evaluate what a config or recipe says."),
    "check": ("antmmf.cli.check", "Find a config's mistakes in seconds, on the CPU, without weights or data."),
    "list": ("antmmf.cli.listing", "List components, recipes and hooks; imports none of them."),
    "show": ("antmmf.cli.show", "Show one component or recipe: parameters, defaults, origin."),
    "config": ("antmmf.cli.config", "Print a resolved config, where each value came from, or the JSON Schema."),
    "doctor": ("antmmf.cli.doctor", "Load every plugin and say which are broken and why."),
    "version": ("antmmf.cli.version", "Print versions."),
}


class Commands(click.Group):
    """Our commands and those that packages offer in ``antmmf.commands``; ``data.check`` is ``data check``."""

    prefix = ""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._own(), *sorted(self._offered())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._own():
            command: click.Command = import_module(COMMANDS[cmd_name][0]).command
            return command
        from antmmf.registry import Registry

        names = {component.name for component in self._offered().get(cmd_name, [])}
        if not names:
            return None
        if names == {self.prefix + cmd_name}:
            found = Registry().find("commands", self.prefix + cmd_name)  # raises where two packages offer it
            loaded: click.Command | None = found.load() if found else None
            return loaded
        group = Commands(cmd_name, help="Commands of installed packages.", no_args_is_help=False)
        group.prefix = f"{self.prefix}{cmd_name}."
        return group

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        is_known = not args or args[0].startswith("-") or args[0] in self._own() or args[0] in self._offered()
        if not is_known:
            from antmmf.errors import did_you_mean

            hint = did_you_mean(args[0], self.list_commands(ctx))
            raise click.UsageError(f"no command is called {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, COMMANDS[name][1]) for name in self._own()]
        for name, components in sorted(self._offered().items()):
            parts = sorted(component.name.removeprefix(f"{self.prefix}{name}.") for component in components)
            inside = f": {', '.join(parts)}" if parts != [self.prefix + name] else ""
            if self.prefix and not inside:  # few, and asked for: they may be imported
                rows.append((name, components[0].load().get_short_help_str(limit=100)))
            else:
                rows.append((name, f"from {', '.join(sorted({one.distribution for one in components}))}{inside}"))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _own(self) -> list[str]:
        return [] if self.prefix else list(COMMANDS)

    def _offered(self) -> dict[str, list[Component]]:
        """What other packages offer, by the next word that a user has to type."""
        from antmmf.registry import Registry

        found: dict[str, list[Component]] = {}
        for component in Registry().components("commands"):
            if component.name.startswith(self.prefix):
                word = component.name.removeprefix(self.prefix).partition(".")[0]
                found.setdefault(word, []).append(component)
        return found


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """AntMMF: multimodal (video, image and text) pre-training, fine-tuning and inference.

    Start with: antmmf run quickstart. Add --debug to any command to see the traceback of an error.
    """


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names of files may be any bytes, and terminals may know few letters
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or bool(os.environ.get("ANTMMF_DEBUG"))
    arguments = [argument for argument in arguments if argument != "--debug"]
    arguments = {(): ["--help"], ("--version",): ["version"]}.get(tuple(arguments), arguments)
    try:
        code = cli.main(arguments, prog_name="antmmf", standalone_mode=False, obj=debug)
        sys.exit(code if isinstance(code, int) else 0)
    except (click.Abort, KeyboardInterrupt):
        if ranks().size == 1:  # else the launcher says so, once
            click.echo("antmmf: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        known = tell(error, debug=debug)
        if known is None:
            raise
        sys.exit(known)


def tell(error: Exception, *, debug: bool) -> int | None:
    """Print an error that the user can mend, and return the exit code; None, and nothing is printed, for a defect."""
    if isinstance(error, click.UsageError):
        hint = f" (see: {error.ctx.command_path} --help)" if error.ctx else ""
        lines = [f"{error.format_message()}{hint}"]
    elif isinstance(error, click.ClickException):
        lines = [error.format_message()]
    elif isinstance(error, AntmmfError):
        lines = [str(problem) for problem in error.problems] if isinstance(error, ConfigError) else [str(error)]
        if debug:
            traceback.print_exception(error)
    elif isinstance(error, OSError) and error.filename is not None and not debug:
        lines = [f"{error.filename}: {error.strerror}"]  # a folder that cannot be written to, a full disk
    else:
        return None
    for line in lines:
        click.echo(f"antmmf: {line}", err=True)
    return 2
