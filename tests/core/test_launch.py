"""How processes are started: torchrun's arguments, SLURM's variables, the first AntMMF's command; docs/cluster.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from antmmf.cli.run import command
from antmmf.config.schema import known_keys
from antmmf.distributed import launch
from antmmf.distributed.environment import Ranks, first_host, prepare_environment, ranks, restarted, run_name, started
from antmmf.errors import ConfigError, Problem
from antmmf.plan import plan_run
from antmmf.registry import Registry
from antmmf.utils.launch import in_our_words, translated
from antmmf.utils.launch import main as old_command

ROOT = Path(__file__).parents[2]
TINY, MINE = ROOT / "tests/plugins/tiny.yml", ROOT / "tests/plugins/mine.py"
README = (
    "training_parameters.distributed True training_parameters.run_type train training_parameters.restart True "
    "training_parameters.batch_size 128 training_parameters.test_batch_size 64 optimizer_attributes.params.lr 5e-5 "
    "optimizer_attributes.params.weight_decay 1e-3 training_parameters.enable_amp True training_parameters.save_dir"
)
NINE_PAIRS = README.split()
SCRIPT = "prj/video_text_pretrain/run.py"


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nobody had started this process."""
    for name in [name for name in os.environ if re.match("PET_|SLURM_|TORCHELASTIC_", name)]:
        monkeypatch.delenv(name)


# --- torchrun's arguments ---------------------------------------------------------------------------------------------


def test_torchruns_arguments_are_told_from_ours_in_any_spelling() -> None:
    line = "quickstart --nproc_per_node 2 a.b=1 --rdzv-conf=timeout=60,x=1 --standalone --smoke -q --max-restarts 3 c 2"
    given, rest = launch.split_arguments(line.split())
    assert given == {"nproc-per-node": "2", "rdzv-conf": "timeout=60,x=1", "standalone": "", "max-restarts": "3"}
    assert rest == ["quickstart", "a.b=1", "--smoke", "-q", "c", "2"]


def test_an_argument_of_torchrun_without_its_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="--nnodes needs a value"):
        launch.split_arguments(["quickstart", "--nnodes"])


def test_every_argument_of_the_installed_torchrun_is_known() -> None:
    from torch.distributed.run import get_args_parser

    known = {option.lstrip("-").replace("_", "-") for a in get_args_parser()._actions for option in a.option_strings}
    ours = {"help", "h", "m", "module", "no-python", "run-path"}  # what is run is not the user's to say
    short = {"r", "t"}  # --redirects and --tee
    assert known - set(launch.VALUES) - set(launch.FLAGS) == ours | short


def test_help_has_one_short_section_about_processes() -> None:
    import click

    text = command.get_help(click.Context(command, info_name="run"))
    assert "--nproc-per-node N" in text
    assert len(text.partition("Several processes")[2].splitlines()) < 16


def parsed(*arguments: str) -> dict[str, object]:
    """What torchrun's agent is told."""
    given, rest = launch.split_arguments(arguments)
    return vars(launch._parsed(given, ["run", *rest]))


def test_one_host_meets_at_a_free_port_so_that_two_runs_do_not_collide() -> None:
    found = parsed("quickstart", "--nproc-per-node", "2")
    assert (found["rdzv_backend"], found["rdzv_endpoint"]) == ("c10d", "127.0.0.1:0")
    assert parsed("quickstart", "--nproc-per-node", "2")["rdzv_id"] != found["rdzv_id"]
    assert found["training_script_args"] == ["run", "quickstart"]


def test_a_meeting_point_that_is_given_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    found = parsed("quickstart", "--master-port", "12371")
    assert (found["rdzv_backend"], found["master_addr"], found["master_port"]) == ("static", "127.0.0.1", 12371)
    found = parsed("quickstart", "--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "node1:29400")
    assert (found["rdzv_backend"], found["rdzv_endpoint"]) == ("c10d", "node1:29400")
    monkeypatch.setenv("PET_RDZV_ENDPOINT", "node2:29400")  # Kubernetes
    monkeypatch.setenv("PET_RDZV_BACKEND", "c10d")
    assert parsed("quickstart", "--nproc-per-node", "8")["rdzv_endpoint"] == "node2:29400"


def test_without_a_number_there_is_a_process_for_each_accelerator_or_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert parsed("quickstart", "--max-restarts=1")["nproc_per_node"] == "1"
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    assert parsed("quickstart", "--max-restarts=1")["nproc_per_node"] == "4"
    assert parsed("quickstart", "--nproc-per-node=auto")["nproc_per_node"] == "auto"


@pytest.mark.parametrize(
    "arguments", ["--nproc-per-node=many", "--nnodes=2:1", "--max-restarts=x", "--redirects=7", "--start-method=no"]
)
def test_what_torchrun_refuses_is_one_line(arguments: str) -> None:
    with pytest.raises(ConfigError, match=r"^torchrun's arguments: .+"):
        launch.launch({"nproc-per-node": "1", **launch.split_arguments([arguments])[0]}, ["version"])


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ({0: 1, 1: -15}, 1),  # the agent stopped the other one
        ({0: -15, 1: 2}, 2),
        ({0: 1, 1: -9}, 137),  # killed, so that the other lost its connection
        ({0: 143, 1: 143}, 143),
        ({0: 138, 1: 138}, 138),
        ({1: -15}, 143),
        ({0: 255}, 255),
    ],
)
def test_the_exit_code_is_that_of_the_cause(codes: dict[int, int], expected: int) -> None:
    assert launch._code_of(codes) == expected


# --- who and where ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node7", "node7"),
        ("node7,node9", "node7"),
        ("node[003-010,12],login1", "node003"),
        ("node[12,14]", "node12"),
        ("rack[1-2]node[05-07].example.org,x", "rack1node05.example.org"),
        ("gpu-a[1,3-4]-b,c", "gpu-a1-b"),
    ],
)
def test_rank_0_is_on_the_first_host_of_slurms_list(hosts: str, first: str) -> None:
    assert first_host(hosts) == first


SLURM = {
    "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "9", "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "123456", "SLURM_STEP_NODELIST": "node[3-4]", "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
}  # fmt: skip


def test_a_slurm_step_says_who_and_where() -> None:
    env = dict(SLURM)
    prepare_environment(env)
    assert ranks(env) == Ranks(rank=9, size=16, local_rank=1, num_local=8)
    assert env["MASTER_ADDR"] == "node3"
    assert 15_000 <= int(env["MASTER_PORT"]) < 30_000
    other = {**SLURM, "SLURM_STEP_ID": "1"}
    prepare_environment(other)
    assert other["MASTER_PORT"] != env["MASTER_PORT"]


def test_torchruns_variables_go_before_slurms() -> None:
    env = {**SLURM, "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    env |= {"MASTER_ADDR": "a", "MASTER_PORT": "1"}
    before = dict(env)
    prepare_environment(env)
    assert (env, ranks(env)) == (before, Ranks(1, 2, 1, 2))


def test_ranks_without_a_meeting_point_are_refused() -> None:
    with pytest.raises(ConfigError, match="MASTER_ADDR and MASTER_PORT must be set too"):
        prepare_environment({"RANK": "0", "WORLD_SIZE": "2"})
    prepare_environment({})


def test_a_restart_is_known_by_torchruns_count() -> None:
    assert [restarted(env) for env in ({}, {"TORCHELASTIC_RESTART_COUNT": "0"})] == [False, False]
    assert restarted({"TORCHELASTIC_RESTART_COUNT": "1"})


def test_the_launcher_names_the_run() -> None:
    assert re.fullmatch(r"2\d{7}-\d{6}-4711", run_name(1_800_000_000.0, 4711))
    assert started({"ANTMMF_STARTED": "20261123-113000-4711", "TORCHELASTIC_RUN_ID": "x"}) == "20261123-113000-4711"
    assert started({}) is None


# --- the first AntMMF's command ---------------------------------------------------------------------------------------


def test_the_documented_command_of_antmmf_works_verbatim(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = "prj/video_text_pretrain/configs/quickstart.yml"
    own = ["--nproc_per_node=8", "--master_port=12371"]
    arguments = translated([*own, SCRIPT, "--config", config, *NINE_PAIRS, f"{tmp_path}/test"])
    notes = capsys.readouterr().err.splitlines()
    assert notes[0].startswith(f"antmmf: {SCRIPT} is not used")
    assert notes[1:] == [f"antmmf: {config} does not exist; taking the recipe quickstart"]
    given, (run, source, *overrides) = launch.split_arguments(arguments)
    assert (run, source) == ("run", "quickstart")
    assert given == {"nproc-per-node": "8", "nnodes": "1", "master-port": "12371"}
    train = plan_run(source, overrides, registry=Registry()).config.training_parameters
    assert (train.distributed, train.restart, train.enable_amp, train.run_type) == (True, True, True, "train")
    assert (train.batch_size, train.test_batch_size, train.save_dir) == (128, 64, f"{tmp_path}/test")


def test_it_trains_in_this_process_when_one_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEN", str(tmp_path))
    pairs = [*NINE_PAIRS, str(tmp_path / "test"), "training_parameters.batch_size", "4", "--plugin", str(MINE)]
    with pytest.raises(SystemExit) as ended:
        old_command(["--use_env", SCRIPT, "--config", str(TINY), "--local_rank=0", *pairs])
    assert ended.value.code == 0
    assert (tmp_path / "test/checkpoints/step_000002").is_dir()


@pytest.mark.parametrize("option", ["--remote", "--prj=prj.video", "--config_override=x.yml"])
def test_an_option_that_cannot_be_had_says_what_to_do(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        old_command([SCRIPT, "--config", "quickstart", option])
    assert ended.value.code == 2
    assert re.search(rf"antmmf: {option.partition('=')[0]}: is not offered: .+", capsys.readouterr().err)


OLD_KEYS = """trainer experiment_name find_unused_parameters static_graph sync_bn data_parallel lr_steps lr_epochs
lr_ratio use_warmup warmup_factor warmup_iterations clip_gradients clip_norm_mode should_early_stop pin_memory
load_pretrained pretrained_mapping.module evalai_inference evalai_inference_file report_format synchronized_loss
distributed_sampler.type dataset_train_order logger_level local_rank"""
OLD_SECTIONS = """task_attributes.univl_task.dataset_attributes.video_text_retrieval.annotations.train.0
model_attributes.univl.encoder_lr_decay amp_attributes.opt_level predictor_parameters.model_dir
task_attributes.univl_task.dataset_attributes.video_text_retrieval.processors.x.params.test_ensembel_n_clips"""


def test_all_keys_that_became_something_else_are_named_together(capsys: pytest.CaptureFixture[str]) -> None:
    keys = [*(f"training_parameters.{key}" for key in OLD_KEYS.split()), *OLD_SECTIONS.split()]
    pairs = [part for key in keys for part in (key, "1")]
    with pytest.raises(SystemExit) as ended:
        old_command([SCRIPT, "--config", "quickstart", *pairs])
    assert ended.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "argument" in line]
    assert len(lines) == len(keys)
    for key in keys:
        assert sum(f": {key}: is a key of the first AntMMF; here it " in line for line in lines) == 1, key


def test_values_that_became_something_else_are_named() -> None:
    pairs = ["training_parameters.run_type=train+inference", "training_parameters.lr_scheduler=True"]
    with pytest.raises(ConfigError) as refused:
        plan_run("quickstart", pairs, registry=Registry())
    text = str(in_our_words(refused.value))
    assert "AntMMF's inference is val or predict here" in text
    assert "{type: multistep, params: {lr_steps: [...]}}" in text


def test_other_mistakes_keep_their_message() -> None:
    problems = [Problem("model_attributes.vison", "x.yml:3", "is not a key"), Problem("metrics", "", "is wrong")]
    problems.append(Problem("training_parameters.run_type", "", "must be 'train' or 'val', is 'trian'"))
    assert in_our_words(ConfigError(problems)).problems == tuple(problems)


def test_no_key_of_ours_is_called_the_first_antmmfs() -> None:
    keys = [*known_keys(), "input_attributes.sampler.params.num_frm", "task_attributes.params.temperature"]
    problems = [Problem(key, "", "is not a key") for key in keys]
    assert in_our_words(ConfigError(problems), keys).problems == tuple(problems)


# --- two processes, end to end ----------------------------------------------------------------------------------------


def antmmf(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``antmmf run tiny.yml ARGUMENTS`` in two processes."""
    command = [
        sys.executable,
        "-m",
        "antmmf",
        "run",
        str(TINY),
        "--plugin",
        str(MINE),
        "--nproc-per-node=2",
        *arguments,
    ]
    env = {**os.environ, **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)


def test_two_processes_train_and_only_the_first_prints(tmp_path: Path) -> None:
    done = antmmf(f"training_parameters.save_dir={tmp_path / 'run'}", SEEN=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("everything lies in") == 1
    assert (done.stdout + done.stderr).count("starting fresh with seed 0") == 1
    assert "step 2/2" in (tmp_path / "run" / "log.rank0.txt").read_text()
    assert (tmp_path / "run" / "log.rank1.txt").exists()
    assert (tmp_path / "run/checkpoints/step_000002").is_dir()


def test_a_mistake_in_the_config_is_said_once_and_the_launcher_ends_with_2(tmp_path: Path) -> None:
    done = antmmf("training_parameters.batch_size=0", SEEN=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "training_parameters.batch_size: must be greater than 0, is 0" in done.stderr


# --- docs/cluster.md --------------------------------------------------------------------------------------------------

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "docs/cluster.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("script", [text for language, text in BLOCKS if language == "bash"])
def test_the_documented_scripts_are_sound_shell(script: str) -> None:
    assert subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False).stderr == ""


def test_the_documented_manifest_is_a_pytorchjob_that_runs_our_command() -> None:
    (job,) = (yaml.safe_load(text) for language, text in BLOCKS if language == "yaml")
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    policy = job["spec"]["elasticPolicy"]
    assert worker["replicas"] == policy["maxReplicas"]
    (container,) = worker["template"]["spec"]["containers"]
    given, rest = launch.split_arguments(container["command"])
    assert set(given) == {"nproc-per-node"}
    assert rest[:2] == ["antmmf", "run"]


def test_the_documented_commands_name_keys_and_options_that_exist() -> None:
    text = (ROOT / "docs/cluster.md").read_text()
    assert {f"training_parameters.{key}" for key in re.findall(r"training_parameters\.(\w+)", text)} <= set(
        known_keys()
    )
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("antmmf run "):
            _, rest = launch.split_arguments(line.split())
            assert not [word for word in rest if word.startswith("--")]
