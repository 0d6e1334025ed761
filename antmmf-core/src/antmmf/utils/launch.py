"""``python -m antmmf.utils.launch``, as the scripts of the first AntMMF call it, and what became of its config keys."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import click

from antmmf.errors import ConfigError, Problem
from antmmf.recipes import recipe_files
from antmmf.registry import Registry

_TRAINING = {
    "trainer": "is not needed: task_attributes.type decides how a model is trained",
    "experiment_name": "is not needed: save_dir names a run",
    "find_unused_parameters|static_graph": "is not needed: every step uses the same parameters",
    "sync_bn": "is not offered: freeze the norms with training_parameters.freeze, or use larger batches",
    "data_parallel": "is not offered: use --nproc-per-node N",
    "local_rank|num_nodes|num_gpus_per_node": "is not needed: the launcher says it, --nproc-per-node N, --nnodes N",
    "synchronized_loss": "is not needed: a contrastive loss always sees the rows of all processes",
    "lr_(steps|ratio)|warmup_(factor|iterations)": "is a parameter of the schedule: training_parameters.lr_scheduler "
    "{type: multistep, params: {lr_steps: [15000], lr_ratio: 0.1, warmup_iterations: 0, warmup_factor: 0.1}}",
    "lr_epochs": "is given in steps: lr_steps in params of training_parameters.lr_scheduler {type: multistep, ...}",
    "use_warmup": "is not needed: warmup_iterations in params of training_parameters.lr_scheduler; 0 is none",
    "clip_gradients|clip_norm_mode": "is not needed: training_parameters.max_grad_l2_norm clips where it is given",
    "should_early_stop": "is not needed: training_parameters.patience stops early where it is given",
    "pin_memory": "is not needed: memory is pinned where there is an accelerator",
    r"(distributed_)?sampler|dataset_\w+_order|task_size_proportional_sampling": "is not needed: the order of samples "
    "follows from training_parameters.seed, on any number of processes",
    "load_pretrained|pretrained_mapping": "is not needed: parameters have the same names in every task; "
    "training_parameters.resume_file and restart take what fits",
    r"evalai_\w+|report_format": "is not needed: training_parameters.run_type predict writes predictions/",
    "logger_level|should_not_log|verbose_dump|disable_tqdm|log_dir": "is not offered: see antmmf run --quiet",
    "overall_metrics": "is the section metrics",
    "replace_speedup_op": "is not offered: see training_parameters.compile",
}
_OTHERS = {
    r"(.*\.)?encoder_lr_decay": "is training_parameters.parameter_groups [{pattern: vision.*, lr_scale: 0.1}]",
    r"(.*\.)?(train_ensemble_n_clips|test_ensembel_n_clips)": "is input_attributes.sampler.params.n_clips",
    r"(?!input_attributes\.)(.*\.)?num_frm": "is input_attributes.sampler.params.num_frm",
    r"task_attributes\.univl_task\.dataset_attributes\b.*": "stands in the section dataset_attributes, in a list for "
    "each split: dataset_attributes.train.0.params.data_root_dir, for instance",
    r"task_attributes\.univl_task\b.*": "is in task_attributes {type: ..., params: {...}}",
    r"model_attributes\.univl\b.*": "is in the encoders, model_attributes.vision_encoder.params and "
    "text_encoder.params, or in task_attributes.params",
    r"amp_attributes\b.*": "is training_parameters.enable_amp: true, bf16 or fp16",
    r"(predictor|interpreter|adversarial|adversarial_optimizer)_parameters\b.*": "is not offered",
}
_VALUES = {
    "training_parameters.run_type": (
        "is '.*in(ference|terpret)",
        "AntMMF's inference is val or predict here, and interpret is not offered",
    ),
    "training_parameters.lr_scheduler": (
        "is (True|False)$",
        "what AntMMF switched on is {type: multistep, params: {lr_steps: [...]}} here",
    ),
}
_REFUSED = {
    "--remote": "is not offered: start the command on the machine that shall run it",
    "--prj": "is not offered: give the file with your components, antmmf run --plugin FILE.py",
    "--config_override": "is not offered: write a config that includes the other one, or give KEY VALUE pairs",
}
_PLACE = ("node_rank", "master_addr", "master_port")
UPSTREAM = {**{rf"training_parameters\.({keys})(\..*)?": text for keys, text in _TRAINING.items()}, **_OTHERS}
"""Pattern of the first AntMMF's keys that are none of ours -> what is ours, or why there is none."""


def in_our_words(error: ConfigError, arguments: Sequence[str] = ()) -> ConfigError:
    """The same error; where a key or a value was the first AntMMF's it says what is ours, or why there is none.

    So it does for each of the ``arguments``, where several are in one section that is not there.
    """
    problems = {(problem.path, problem.message): problem for problem in map(_translated, error.problems)}
    for number, argument in enumerate(arguments, start=1):
        key = argument.partition("=")[0]
        if _ours(key):
            problems.setdefault((key, _ours(key)), Problem(key, f"argument {number}", _ours(key)))
    return ConfigError(list(problems.values()))


def _translated(problem: Problem) -> Problem:
    value, meaning = _VALUES.get(problem.path, ("$^", ""))
    if re.search(value, problem.message):
        return replace(problem, message=f"{problem.message}; {meaning}")
    if not re.search("^is not a |so there is no ", problem.message):
        return problem
    written = re.search(r"\(([\w.]+)=", problem.where)  # as an argument; the path may only name its first unknown part
    key = written[1] if written else problem.path
    return replace(problem, path=key, message=_ours(key)) if _ours(key) else problem


def _ours(key: str) -> str:
    found = next((text for pattern, text in UPSTREAM.items() if re.fullmatch(pattern, key)), None)
    return f"is a key of the first AntMMF; here it {found}" if found else ""


def translated(argv: Sequence[str]) -> list[str]:
    """The arguments of ``antmmf`` that do what these of AntMMF's launcher did; stderr says what is left out.

    Raises ``ConfigError`` for options that cannot be had.
    """
    parser = argparse.ArgumentParser("python -m antmmf.utils.launch", description=__doc__, allow_abbrev=False)
    for name in ("nproc_per_node", "nnodes"):
        parser.add_argument(f"--{name}", type=int, default=1)
    for name in _PLACE:
        parser.add_argument(f"--{name}")
    parser.add_argument("--use_env", action="store_true", help="not needed: done always")
    parser.add_argument("script", help="not used: antmmf run is what runs")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="--config FILE [KEY VALUE ...]")
    given = parser.parse_args(argv)
    _note(f"{given.script} is not used: this is antmmf run")
    source, rest = _config_and_rest(given.arguments)
    if given.nproc_per_node * given.nnodes == 1:
        return ["run", source, *rest]
    place = [f"--{name}={getattr(given, name)}" for name in _PLACE if getattr(given, name) is not None]
    return ["run", source, f"--nproc-per-node={given.nproc_per_node}", f"--nnodes={given.nnodes}", *place, *rest]


def _config_and_rest(arguments: Sequence[str]) -> tuple[str, list[str]]:
    parser = argparse.ArgumentParser("python -m antmmf.utils.launch ... SCRIPT", allow_abbrev=False)
    parser.add_argument("--config", required=True)
    parser.add_argument("--remote", action="store_true")
    for option in ("--local_rank", "--config_override", "--prj"):
        parser.add_argument(option)
    given, rest = parser.parse_known_args(arguments)
    if given.local_rank is not None:
        _note("--local_rank is not used: the launcher tells each process")
    refused = [option for option in _REFUSED if getattr(given, option.lstrip("-"))]
    if refused:
        raise ConfigError([Problem(option, "", _REFUSED[option]) for option in refused])
    return _known_config(given.config), rest


def _known_config(config: str) -> str:
    """The file, or, where there is none, the recipe that is called like it."""
    stem = Path(config).stem
    recipes = [name for name in recipe_files(Registry()) if re.split("[/:]", name)[-1] == stem]
    if Path(config).expanduser().is_file() or len(recipes) != 1:
        return config
    _note(f"{config} does not exist; taking the recipe {recipes[0]}")
    return recipes[0]


def _note(text: str) -> None:
    click.echo(f"antmmf: {text}", err=True)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit, with the codes of ``antmmf``."""
    from antmmf.cli.main import main as antmmf
    from antmmf.cli.main import tell

    try:
        arguments = translated(sys.argv[1:] if argv is None else argv)
    except ConfigError as error:
        sys.exit(tell(error, debug=False))
    antmmf(arguments)


if __name__ == "__main__":
    main()
