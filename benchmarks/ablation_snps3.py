"""What do the parts of SNP-S3 and CNVid bring? Table III of SNP-S3, SNP against P3E, and rows C1 to C3 of CNVid.

Every arm is pre-trained on the same thousands of clips of ``shapes``, then fine-tuned on a few hundred others, once
for retrieval and once for questions, and tested on clips whose combinations no training shows. All arms have the same
vocabulary, steps, batches and seeds; the arm ``none`` is only fine-tuned. Prints tables and, last, one JSON line;
writes results as JSON. What is done lies in ``--out`` and is not done again: kill it, start it again, it goes on.
Several processes may share a folder if they have different ``--seeds``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
TEXT = "google/bert_uncased_L-2_H-128_A-2"  # its sizes, not its weights
PAPER: Mapping[str, Mapping[str, str]] = {  # SNP-S3, PVT, MSR-VTT: R@1 and QA; CNVid, VATEX-Chinese: R@1
    "en": {
        "p3e": "22.7, 40.76",
        "mlm_gvtm": "25.0, 41.44",
        "mssm_gvtm": "27.2, 41.74",
        "mlm_gvtm_lvwm": "25.5, 41.72",
        "mssm_gvtm_lvwm": "26.6, 42.00",
    },
    "zh": {"none": "36.4", "c1": "39.9", "c2": "40.7", "c3": "41.5"},
}


@dataclass(frozen=True)
class Arm:
    """A way to pre-train: the task's block without what all share, None for none."""

    name: str
    language: str
    task: Mapping[str, Any] | None
    fusion: bool = False


def _snps3(policy: str, lvwm: int) -> dict[str, Any]:
    return {"type": "antmmf-tasks:snps3", "params": {"masking": {"policy": policy}, "weights": {"lvwm": lvwm}}}


def _cnvid(when: str, steps: int) -> dict[str, Any]:
    share = max(1, round(steps * 5_000 / 130_000))  # of the steps, as in the published schedule
    return {"type": "antmmf-tasks:cnvid", "params": {"hard_samples": {"when": when, "change_iter": share}}}


def arms(steps: int) -> list[Arm]:
    """All arms, those without pre-training first."""
    return [
        Arm("none", "en", None),
        Arm("mlm_gvtm", "en", _snps3("mlm", 0)),
        Arm("mssm_gvtm", "en", _snps3("mssm", 0)),
        Arm("mlm_gvtm_lvwm", "en", _snps3("mlm", 1)),
        Arm("mssm_gvtm_lvwm", "en", _snps3("mssm", 1)),
        Arm("p3e", "en", _snps3("mlm", 0), fusion=True),
        Arm("none", "zh", None),
        Arm("c1", "zh", _cnvid("never", steps)),
        Arm("c2", "zh", _cnvid("every_step", steps)),
        Arm("c3", "zh", _cnvid("curriculum", steps)),
    ]


COMPARED = [  # language, arm, against
    *(("en", name, "none") for name in ("mlm_gvtm", "mssm_gvtm", "mlm_gvtm_lvwm", "mssm_gvtm_lvwm")),
    *(("en", name, "mlm_gvtm") for name in ("mssm_gvtm", "mlm_gvtm_lvwm", "mssm_gvtm_lvwm")),
    ("en", "mlm_gvtm", "p3e"),
    *(("zh", name, "none") for name in ("c1", "c2", "c3")),
    ("zh", "c2", "c1"),
    ("zh", "c3", "c1"),
    ("zh", "c3", "c2"),
]
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # 97.5 % of t, for 2 to 10 seeds
FIGURES = {"retrieval": ("t2v/R1", "t2v/R5", "t2v/R10", "t2v/MdR", "v2t/R1"), "vqa": ("accuracy",)}


@dataclass
class Study:
    """The options, and where results lie."""

    out: Path
    options: argparse.Namespace
    done: list[dict[str, Any]] = field(default_factory=list)

    def configs(self, arm: Arm, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """The runs of an arm: pre-training, where there is one, then both kinds of fine-tuning."""
        first = self.out / arm.language / arm.name / f"seed{seed}" / "pretrain"
        if arm.task is not None:
            task = {**arm.task, "params": {**_SHARED, **arm.task["params"]}}
            yield "pretrain", self._config(arm, seed, "pretrain", task, self.options.steps)
        for kind in FIGURES:
            config = self._config(arm, seed, kind, _TUNED[kind], self.options.tuning_steps)
            if arm.task is not None:
                config["training_parameters"] |= {"resume_file": str(first), "restart": True}
            yield kind, config

    def _config(self, arm: Arm, seed: int, stage: str, task: Mapping[str, Any], steps: int) -> dict[str, Any]:
        options, is_first = self.options, stage == "pretrain"
        shapes = {"language": arm.language, "kind": "questions" if stage == "vqa" else "captions"}
        shapes |= {"num_train": options.clips if is_first else options.tuning_clips, "num_test": options.test_clips}
        train = {**shapes, "split": "train", "seed": 0 if is_first else 1 + seed}
        test = {**shapes, "split": "test"}
        text = {"name": TEXT, "pretrained": False, "vocabulary": str(self._vocabulary(arm.language)), "pool": "mean"}
        text |= {"max_length": 32 if arm.language == "en" else 50, "dropout": 0.0, "attention": is_first}
        encoders: dict[str, Any] = {
            "vision_encoder": {"type": "antmmf-vision:small_video", "params": {"image_size": 64, "max_frames": 8}},
            "text_encoder": {"type": "antmmf-text:bert", "params": text},
        }
        if arm.fusion and stage != "retrieval":
            fusion = {name: text[name] for name in ("name", "pretrained", "vocabulary", "dropout")} | {"layers": 2}
            encoders["fusion_encoder"] = {"type": "antmmf-text:bert_fusion", "params": fusion}
        return {
            "model_attributes": encoders,
            "task_attributes": dict(task),
            "dataset_attributes": {
                "train": [{"type": "antmmf-tasks:shapes", "params": train}],
                "test": [] if is_first else [{"type": "antmmf-tasks:shapes", "params": test}],
            },
            "input_attributes": _INPUT,
            "optimizer_attributes": {
                "type": "antmmf-core:AdamW",
                "params": {"lr": options.lr if is_first else options.tuning_lr, "weight_decay": 0.05},
            },
            "metrics": []
            if is_first
            else [{"retrieval": "antmmf-tasks:recall", "vqa": "antmmf-tasks:accuracy"}[stage]],
            "callbacks": ["antmmf-core:jsonl"],
            "training_parameters": {
                "run_type": "train" if is_first else "train+val",
                "seed": seed,
                "batch_size": options.batch,
                "test_batch_size": 64,
                "max_iterations": steps,
                "enable_amp": True,
                "num_threads": 1,
                "num_workers": options.workers,
                "lr_scheduler": {"type": "antmmf-core:cosine", "params": {"warmup_iterations": max(1, steps // 10)}},
                "max_grad_l2_norm": 1.0,
                "snapshot_interval": 100,
                "max_ckpt_num": 1,
                "resume": "auto",
                "save_dir": str(self.out / arm.language / arm.name / f"seed{seed}" / stage),
            },
        }

    def _vocabulary(self, language: str) -> Path:
        """The word pieces of the pre-training captions, which all arms share."""
        from antmmf_tasks.datasets.shapes import Shapes
        from antmmf_text.tokenizers import train_pieces

        path = self.out / language / "vocab.txt"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            shapes = Shapes(split="train", language="en" if language == "en" else "zh", num_train=self.options.clips)
            shapes.prepare()
            pieces = train_pieces((text for record in shapes.records() for text in record.texts), vocab_size=8000)
            path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
        return path

    def run(self, arm: Arm, seed: int) -> None:
        """Every stage of an arm that is not done; afterwards its figures are in ``done``."""
        for stage, config in self.configs(arm, seed):
            folder = Path(config["training_parameters"]["save_dir"])
            result = folder / "results.json"
            if not result.exists():
                began = time.perf_counter()
                execute(config, folder.with_suffix(".yml"))
                print(f"{arm.language} {arm.name} seed {seed} {stage}: {time.perf_counter() - began:.0f} s", flush=True)
            figures = json.loads(result.read_text())["figures"]
            for name in FIGURES.get(stage, ()):
                self.done.append(
                    {"arm": arm.name, "language": arm.language, "seed": seed, "task": stage, "figure": name}
                    | {key: figures[f"test/{name}"][key] for key in ("value", "low", "high", "n")}
                )


_INPUT = {
    "reader": {"type": "antmmf-vision:cached", "params": {"fps": 8, "short_side": 64}},
    "sampler": {"type": "antmmf-vision:segments", "params": {"n_clips": 8, "num_frm": 1}},
    "train_transform": {"type": "antmmf-vision:resize_crop", "params": {"size": 64}},
    "eval_transform": {"type": "antmmf-vision:resize_crop", "params": {"size": 64}},
}
_METRICS = {"pretrain": [], "retrieval": ["antmmf-tasks:recall"], "vqa": ["antmmf-tasks:accuracy"]}
_CONTRAST = {"type": "antmmf-tasks:infonce", "params": {"temperature": 0.07}}
_SHARED = {"contrast": _CONTRAST, "matching": {"group": 4}}
_TUNED = {
    "retrieval": {"type": "antmmf-tasks:retrieval", "params": {"loss": _CONTRAST, "head": "mlp"}},
    "vqa": {"type": "antmmf-tasks:vqa", "params": {}},
}


def execute(config: Mapping[str, Any], path: Path) -> None:
    """What ``antmmf run PATH`` does, without starting Python anew."""
    from antmmf.plan import plan_run
    from antmmf.registry import Registry
    from antmmf.run import assemble

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
    assemble(plan_run(str(path), registry=Registry())).execute()


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (0 of a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> dict[str, Any]:
    """Differences of the seeds that both have: mean, and its 95 % interval by Student's t, none for a single pair."""
    differences = [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]
    mean, spread = mean_and_spread(differences)
    found: dict[str, Any] = {"n": len(differences), "mean": mean, "low": None, "high": None}
    if len(differences) > 1:
        half = STUDENT[min(len(differences), len(STUDENT) + 1) - 2] * spread / len(differences) ** 0.5
        found |= {"low": mean - half, "high": mean + half}
    return found


def by_seed(rows: Sequence[Mapping[str, Any]], language: str, arm: str, figure: str) -> dict[int, float]:
    """The values of one figure of an arm, by seed."""
    wanted = {"language": language, "arm": arm, "figure": figure}
    return {row["seed"]: row["value"] for row in rows if all(row[key] == value for key, value in wanted.items())}


def compare(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Paired differences of all arms in ``COMPARED`` that are there."""
    found = []
    for language, arm, against in COMPARED:
        for figure in ("t2v/R1", "v2t/R1", "accuracy"):
            one, other = (by_seed(rows, language, name, figure) for name in (arm, against))
            if one.keys() & other.keys():
                found.append(
                    {"language": language, "arm": arm, "against": against, "figure": figure} | paired(one, other)
                )
    return found


def report(rows: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Any]]) -> None:
    """The tables."""
    figures = [name for names in FIGURES.values() for name in names]
    print(f"{'':<22}" + "".join(f"{name:>16}" for name in figures) + "   paper")
    for language, arm in dict.fromkeys((row["language"], row["arm"]) for row in rows):
        cells = []
        for name in figures:
            values = list(by_seed(rows, language, arm, name).values())
            cells.append("{:.1f} ± {:.1f}".format(*mean_and_spread(values)) if values else "")
        paper = PAPER[language].get(arm, "")
        print(f"{language + ' ' + arm:<22}" + "".join(f"{cell:>16}" for cell in cells) + f"   {paper}")
    print("\npaired differences, mean and 95 % interval")
    for row in differences:
        interval = f"[{row['low']:+.1f}, {row['high']:+.1f}]" if row["low"] is not None else "one seed"
        name = f"{row['language']} {row['arm']} - {row['against']}"
        print(f"{name:<36}{row['figure']:<10}{row['mean']:>+7.1f}  {interval}")


def wins(differences: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every arm that is pre-trained beats the one that is not, retrieval and questions alike."""
    over = [row for row in differences if row["against"] == "none" and row["figure"] in ("t2v/R1", "accuracy")]
    return bool(over) and all(row["low"] is not None and row["low"] > 0 for row in over)


def commit() -> str:
    """The commit that ran, with a + where files differ from it."""
    words = ["git", "-C", str(HERE), "describe", "--always", "--abbrev=12", "--dirty=+", "--match", ""]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run what is not done, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("save/ablation_snps3"), help="runs; they are not run again")
    parser.add_argument("--results", type=Path, help="write results here, as JSON")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", help="names such as mlm_gvtm or zh/c3; all by default")
    parser.add_argument("--steps", type=int, default=400, help="of pre-training")
    parser.add_argument("--tuning-steps", type=int, default=150, help="of each fine-tuning")
    parser.add_argument("--clips", type=int, default=3000, help="of pre-training")
    parser.add_argument("--tuning-clips", type=int, default=300)
    parser.add_argument("--test-clips", type=int, default=600)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--tuning-lr", type=float, default=5e-4)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args(arguments)
    study = Study(options.out, options)
    for seed in options.seeds:
        for arm in arms(options.steps):
            if not options.arms or {arm.name, f"{arm.language}/{arm.name}"} & set(options.arms):
                study.run(arm, seed)
    differences = compare(study.done)
    report(study.done, differences)
    kept = {name: value for name, value in vars(options).items() if name not in ("out", "results", "arms", "workers")}
    result: dict[str, Any] = {"benchmark": "ablation_snps3", "commit": commit(), **kept}
    result["pass"] = wins(differences)
    whole = {**result, "figures": study.done, "differences": differences, "paper": PAPER}
    if options.results:
        options.results.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return whole


if __name__ == "__main__":
    main()
