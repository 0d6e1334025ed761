"""How long does the command line take to answer, compared with ``torchrun --help`` on the same machine?

Prints a table and, last, one JSON line. Commands are timed in turn, so that a busy moment hits all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

SHARE_OF_TORCHRUN = 1 / 8
SHARE_WITH_MANY = 1 / 3
NUM_DISTRIBUTIONS, NUM_EACH = 200, 10
HEAVY = ("torch", "numpy", "transformers")
BIN = Path(sys.executable).parent
PROBE = """
import json, sys
from antmmf.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    print(json.dumps([name for name in {heavy!r} if name in sys.modules]), file=sys.stderr)
"""


def main() -> None:
    """Time every command ``--rounds`` times and report shares of torchrun's time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    commands = {
        "torchrun --help": [str(BIN / "torchrun"), "--help"],
        "antmmf --help": [str(BIN / "antmmf"), "--help"],
        "antmmf list": [str(BIN / "antmmf"), "list"],
        "antmmf list --json": [str(BIN / "antmmf"), "list", "--json"],
    }
    with tempfile.TemporaryDirectory() as folder:
        write_distributions(Path(folder))
        crowd = {**os.environ, "PYTHONPATH": folder}
        listed = json.loads(output(commands["antmmf list --json"], crowd))
        num_listed = sum(row["distribution"].startswith("crowd-") for row in listed)
        many = f"antmmf list, {num_listed:,} components more"
        environments = {**{name: dict(os.environ) for name in commands}, many: crowd}
        seconds = measure({**commands, many: commands["antmmf list"]}, environments, rounds)
    heavy = {name: loaded_by(arguments[1:]) for name, arguments in commands.items() if name.startswith("antmmf")}
    report(seconds, heavy, many, num_listed, rounds)


def write_distributions(folder: Path) -> None:
    """Metadata of distributions that offer readers, as pip would have written it."""
    for number in range(NUM_DISTRIBUTIONS):
        info = folder / f"crowd_{number}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: crowd-{number}\nVersion: 1.0\n")
        names = "".join(f"reader_{number}_{i} = crowd_{number}.readers:Reader{i}\n" for i in range(NUM_EACH))
        (info / "entry_points.txt").write_text(f"[antmmf.readers]\n{names}")


def output(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a command prints; an error when it fails."""
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def measure(
    commands: Mapping[str, Sequence[str]], environments: Mapping[str, Mapping[str, str]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each command in each round, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            started = time.perf_counter()
            output(command, environments[name])
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def loaded_by(arguments: Sequence[str]) -> list[str]:
    """The heavy packages that a command has imported when it ends."""
    command = [sys.executable, "-c", PROBE.format(heavy=HEAVY), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stderr.splitlines()[-1])
    return found


def report(
    seconds: Mapping[str, list[float]], heavy: Mapping[str, list[str]], many: str, num_listed: int, rounds: int
) -> None:
    """Print the table and the JSON line; shares are of medians."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    share = {name: value / median["torchrun --help"] for name, value in median.items()}
    print(f"{'command':<40} {'minimum':>9} {'median':>9} {'share':>7}   ({rounds} rounds)")
    for name, values in seconds.items():
        print(f"{name:<40} {min(values):>7.3f} s {median[name]:>7.3f} s {share[name]:>7.3f}")
    worst = max(share[name] for name in heavy)
    clean = not any(heavy.values())
    result = {
        "benchmark": "startup",
        "value": round(worst, 4),
        "limit": SHARE_OF_TORCHRUN,
        "many_value": round(share[many], 4),
        "many_limit": round(SHARE_WITH_MANY, 4),
        "many_components": num_listed,
        "heavy_modules": heavy,
        "seconds_median": {name: round(value, 4) for name, value in median.items()},
        "pass": worst <= SHARE_OF_TORCHRUN and share[many] <= SHARE_WITH_MANY and clean,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
