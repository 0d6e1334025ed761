"""Install the wheels in a fresh environment, as a user would, and use them there: python isolated.py WHEELS_DIR.

In this order: the core alone; with antmmf-tasks; with a package of a third party; with a tracker; with
broken packages beside them.
Run by ``nox -s isolated``, which builds the wheels. Ends with 1 at the first thing that is not as it must be.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BROKEN = ROOT / "tests" / "plugins" / "broken_plugins.py"
EXAMPLE_TESTS = ROOT / "plugins" / "antmmf-example" / "tests"
SIZES = {"num_train": 64, "num_val": 16, "num_test": 32}
SMALL = [f"dataset_attributes.{s}.0.params.{k}={v}" for s in ("train", "val", "test") for k, v in SIZES.items()]
SMALL += ["training_parameters.max_iterations=2", "training_parameters.batch_size=32"]

TOY = """
from antmmf import Task

class Toy(Task):
    def __init__(self, *, width: int = 3) -> None:
        super().__init__()

    def collator(self, train): ...
    def forward(self, batch): ...

class Part:
    def sources(self): ...
    def records(self): ...
    def read(self, source, pick): ...
    def __call__(self, times, rng): ...

ANTMMF_COMPONENTS = {
    "tasks": {"toy": Toy}, "datasets": {"part": Part}, "readers": {"part": Part}, "samplers": {"part": Part}
}
"""
TOY_CONFIG = """
task_attributes: toy
dataset_attributes: {train: [part]}
input_attributes: {reader: part, sampler: part}
training_parameters: {run_type: train, max_iterations: 1}
"""


class Environment:
    """A fresh virtual environment; commands run in ``folder``, where nothing of the repository can be imported."""

    def __init__(self, folder: Path, *, wheels: Path) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        self._bin = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self._constraints = folder / "constraints.txt"
        ours = {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in sorted(wheels.resolve().glob("*.whl"))}
        lines = [f"{name} @ {wheel.as_uri()}\n" for name, wheel in ours.items()]  # never those of the package index
        self._constraints.write_text((ROOT / "constraints.txt").read_text(encoding="utf-8") + "".join(lines))
        hidden = ("PYTHONPATH", "PYTHONHOME", "ANTMMF_DISABLE_PLUGINS", "ANTMMF_DEBUG", "VIRTUAL_ENV")
        self._env = {name: value for name, value in os.environ.items() if name not in hidden}
        self._env |= {"ANTMMF_CACHE": str(folder / "cache"), "PATH": f"{self._bin}{os.pathsep}{os.environ['PATH']}"}
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)

    def install(self, *packages: str) -> None:
        """``pip install`` at the versions of constraints.txt, our own packages from the wheels."""
        options = ["-q", "--no-compile", "--disable-pip-version-check", "-c", str(self._constraints)]
        self.run("python", "-m", "pip", "install", *options, *packages)

    def run(self, *command: str, code: int = 0, says: str = "") -> str:
        """Run a command that must end with ``code`` and say ``says``; returns what it printed to stdout."""
        started = time.monotonic()
        executable = str(self._bin / command[0])
        done = subprocess.run(
            [executable, *command[1:]], cwd=self.folder, env=self._env, capture_output=True, text=True, check=False
        )
        shown = " ".join(part if len(part) < 60 else f"{part[:57]}..." for part in command[:4])
        print(f"  {time.monotonic() - started:5.1f} s  {shown}", flush=True)
        if done.returncode != code or says not in done.stdout + done.stderr:
            wanted = f"must end with {code}" + (f" and say {says!r}" if says else "")
            sys.exit(f"{' '.join(command)}\n{wanted}, ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def site_packages(self) -> str:
        """The folder that packages are installed in."""
        return self.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()


def core_alone(env: Environment) -> None:
    """The core lists, examines and reads configs by itself, and names the package of what it lacks."""
    env.install("antmmf-core")
    env.run("python", "-c", "import torchvision", code=1, says="No module named 'torchvision'")
    names = {row["name"] for row in json.loads(env.run("antmmf", "list", "--json"))}
    must("AdamW" in names and "retrieval" not in names, f"the core lists {sorted(names)}")
    env.run("antmmf", "list", says="optimizers")
    env.run("antmmf", "doctor", says="everything loads")
    json.loads(env.run("antmmf", "config", "--schema"))
    (env.folder / "toy.py").write_text(TOY)
    (env.folder / "toy.yml").write_text(TOY_CONFIG)
    env.run("antmmf", "config", "toy.yml", "--plugin", "toy.py", says="antmmf-core:AdamW")
    offers = "antmmf-tasks offers it: pip install antmmf-tasks"
    env.run("antmmf", "show", "retrieval", code=2, says=offers)
    asked = ["antmmf", "config", "toy.yml", "--plugin", "toy.py", "task_attributes=retrieval"]
    env.run(*asked, code=2, says=offers)
    env.run("antmmf", "run", "quickstart", code=2, says="pip install antmmf-tasks")


def with_tasks(env: Environment) -> None:
    """``pip install antmmf-core antmmf-tasks`` is all that the quickstart needs."""
    env.install("antmmf-core", "antmmf-tasks")
    env.run("antmmf", "doctor", says="everything loads")
    quickstart(env, "whole")


def with_example(env: Environment) -> None:
    """A package of a third party is usable by name, with no import anywhere, and passes its own tests."""
    env.install("antmmf-example", "pytest")
    env.run("antmmf", "show", "mean_colour", says="vision encoder of antmmf-example")
    quickstart(env, "example", "model_attributes.vision_encoder=mean_colour")
    config = (env.folder / "example" / "config.yml").read_text(encoding="utf-8")
    must("antmmf-example:mean_colour" in config, "config.yml must name the encoder in full")
    lock = json.loads((env.folder / "example" / "plugins.lock.json").read_text(encoding="utf-8"))
    used = ["plugins/disk_space", "vision_encoders/mean_colour"]
    must(sorted(lock["antmmf-example"]["components"]) == used, "the lock must hold the encoder and the hook")
    env.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE_TESTS))


def with_tracker(env: Environment) -> None:
    """The tracker's package needs no account, no network and nothing of ours but the core."""
    env.install("antmmf-wandb")
    quickstart(env, "tracked", "callbacks=[jsonl, {type: wandb, params: {project: clips, mode: offline}}]")
    must(any(env.folder.glob("tracked/wandb/offline-run-*/*.wandb")), "wandb must have written a run")


def with_broken(env: Environment) -> None:
    """Broken packages are named, and hurt nobody who does not use them."""
    env.run("python", str(BROKEN), env.site_packages())
    env.run("antmmf", "list", says="needy")
    report = json.loads(env.run("antmmf", "doctor", "--json", code=1))
    must(len({entry["distribution"] for entry in report["broken"]}) >= 20, "doctor must name every broken package")
    env.run("antmmf", "show", "needy", code=2, says="it needs the module 'surely_not_installed'")
    quickstart(env, "beside-broken")


def quickstart(env: Environment, folder: str, *overrides: str) -> None:
    """Run a small quickstart into ``folder``; it must leave results."""
    env.run("antmmf", "run", "quickstart", *overrides, *SMALL, f"training_parameters.save_dir={folder}")
    figures = json.loads((env.folder / folder / "results.json").read_text(encoding="utf-8"))["figures"]
    must("test/t2v/R1" in figures, f"results.json must hold test/t2v/R1, has {sorted(figures)}")


def must(holds: bool, claim: str) -> None:
    """End with 1 unless the claim holds."""
    if not holds:
        sys.exit(claim)


def main(wheels: Path) -> None:
    """Run all stages in one environment, each on top of the one before."""
    with tempfile.TemporaryDirectory(prefix="antmmf-isolated-") as folder:
        env = Environment(Path(folder), wheels=wheels)
        for stage in (core_alone, with_tasks, with_example, with_tracker, with_broken):
            print(stage.__name__.replace("_", " "), flush=True)
            stage(env)
    print("isolated: everything as it must be")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
