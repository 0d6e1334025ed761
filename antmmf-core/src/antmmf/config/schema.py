"""The run's config as pydantic models: AntMMF's own vocabulary, nothing unknown allowed.

What stands in ``params`` is checked against the component's constructor (``antmmf.bind``), not here.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Block(Section):
    """A component: ``{type: name, params: {...}}``, or just its name."""

    type: str = Field(min_length=1, description="the component's name, or distribution:name")
    params: dict[str, Any] = Field(default_factory=dict, description="the component's constructor parameters")

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value


class ModelAttributes(Section):
    """The encoders; a task takes the ones it uses, and every task calls them the same."""

    vision_encoder: Block | None = Field(default=None, description="turns frames into tokens")
    text_encoder: Block | None = Field(default=None, description="turns texts into tokens")
    fusion_encoder: Block | None = Field(
        default=None, description="a separate cross encoder; without it the text encoder fuses"
    )
    weights_dir: str | None = Field(
        default=None, description="where downloaded weights lie, for every encoder that has a weights_dir"
    )


class TrainBlock(Block):
    """A data set to train on, and what part it has in an epoch."""

    weight: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="of several, its share of the steps; none: by their sizes, each record once an epoch"
    )
    epoch_of: Literal["videos", "captions"] = Field(
        default="videos", description="what is seen once an epoch: each record with drawn texts, or each of its texts"
    )
    texts_per_video: Positive = Field(default=1, description="texts drawn for a record, as far as it has so many")
    sampler: Block | None = Field(
        default=None, description="picks the frames of this one; none: input_attributes.sampler"
    )


class DatasetAttributes(Section):
    """The data sets of each split."""

    train: list[TrainBlock] = Field(
        default_factory=list, description="what is trained on; of several, each step takes its batch from one"
    )
    val: list[Block] = Field(default_factory=list, max_length=1, description="chooses the best checkpoint")
    test: list[Block] = Field(default_factory=list, max_length=1, description="evaluated once, at the end")
    data_root_dir: str | None = Field(
        default=None, description="where the data lie, for every data set that has a data_root_dir and is given none"
    )


class InputAttributes(Section):
    """From a file to frames."""

    reader: Block = Field(default=Block(type="antmmf-vision:auto"), description="decodes the picked frames")
    sampler: Block = Field(default=Block(type="antmmf-vision:segments"), description="picks the frames")
    train_transform: Block | None = Field(default=None, description="augments training clips")
    eval_transform: Block | None = Field(default=None, description="fits evaluation clips to the model")
    features: str | None = Field(
        default=None, description="what antmmf embed --features wrote, in the place of the frozen vision encoder"
    )
    read_timeout: Annotated[float, Field(gt=0)] | None = Field(
        default=60.0, description="seconds a file may take in the reader's own process; none: no process of its own"
    )
    shuffle: Literal["full", "blocks"] = Field(
        default="full", description="order of training; blocks: a few shards at a time, which are fetched beforehand"
    )
    remote_cache_gb: Annotated[float, Field(gt=0)] = Field(
        default=50.0, description="disk for copies of remote files, on each machine"
    )
    on_bad_sample: Literal["fail", "skip", "substitute"] = Field(
        default="skip", description="what a clip that does not decode does"
    )
    max_bad_rate: Share = Field(default=0.05, description="more bad samples than this share stop the run")


class PluginSettings(Section):
    """Which hook plugins a run insists on."""

    required: list[str] = Field(default_factory=list, description="distributions whose hooks must work")


class ParameterGroup(Section):
    """Other settings for the parameters whose names fit a pattern; the first group that fits a name holds."""

    pattern: str = Field(min_length=1, description="shell pattern of parameter names, such as vision.*")
    lr_scale: Annotated[float, Field(ge=0)] = Field(default=1.0, description="factor on the learning rate")
    weight_decay: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="of matrices; biases and norms never decay; none: as elsewhere"
    )


class TrainingParameters(Section):
    """How long, how large, where to, and on what."""

    run_type: Literal["train", "val", "predict", "train+val", "train+predict", "val+predict", "train+val+predict"] = (
        Field(
            default="train+val",
            description="train; val evaluates val and test, with the best weights; predict writes predictions",
        )
    )
    distributed: bool | Literal["auto", "ddp", "fsdp2"] = Field(
        default="auto", description="auto, true: ddp where there are several processes; fsdp2 shards the model"
    )
    batch_size: Positive = Field(default=32, description="samples of one optimizer step, over all accumulation steps")
    test_batch_size: Positive | None = Field(
        default=None,
        description="samples of an evaluation batch; none: those of a training micro-batch, else batch_size",
    )
    gradient_accumulation_steps: Positive = Field(default=1, description="micro-batches of one optimizer step")
    micro_batch_size: Positive | Literal["auto"] | None = Field(
        default=None, description="samples of a micro-batch on one process; auto: the most that fit; none: accumulation"
    )
    max_iterations: Positive | None = Field(default=None, description="optimizer steps; none: max_epochs decides")
    max_epochs: Positive | None = Field(
        default=None, description="passes over the training data; the smaller limit holds"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps, ...")
    enable_amp: bool | Literal["bf16", "fp16"] = Field(
        default=False, description="autocast; true: bf16 where the device has it, else fp16 with loss scaling"
    )
    compile: bool = Field(default=False, description="torch.compile the encoders")
    activation_checkpointing: bool = Field(
        default=False, description="keep no activations inside the encoders' blocks: less memory, more time"
    )
    channels_last: bool = Field(default=False, description="store image tensors channels last, for convolutions")
    freeze: list[str] = Field(
        default_factory=list, description="shell patterns of parameters that are not trained, such as vision.*"
    )
    parameter_groups: list[ParameterGroup] = Field(
        default_factory=list, description="other learning rates and weight decays by name"
    )
    layer_lr_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="factor on the learning rate from each encoder block to the one below it"
    )
    encoder_lr_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="factor on the learning rate of the encoders, beside that of the task's own layers"
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="evaluate and keep an exponential moving average of the weights too"
    )
    seed: NotNegative = Field(default=0, description="every random draw is a function of it")
    num_workers: NotNegative | Literal["auto"] = Field(
        default="auto", description="loader processes; auto: the cores beside an accelerator, none on a CPU"
    )
    num_threads: NotNegative = Field(default=0, description="threads of torch on the CPU; 0: torch decides")
    worker_start_method: Literal["forkserver", "spawn"] = Field(
        default="forkserver", description="how loader processes start"
    )
    log_interval: Positive = Field(default=20, description="steps between two reports")
    evaluation_interval: Positive | None = Field(
        default=None, description="steps between two evaluations of val; none: at the end"
    )
    snapshot_interval: Positive | None = Field(
        default=None, description="steps between two checkpoints; none: before evaluations and at the end"
    )
    max_ckpt_num: Positive | None = Field(default=3, description="newest checkpoints kept beside the best; none: all")
    monitored_metric: str | None = Field(
        default=None, description="chooses the best checkpoint; a figure of val, without val/"
    )
    metric_minimize: bool = Field(default=False, description="whether a smaller monitored_metric is better")
    patience: Positive | None = Field(default=None, description="steps without a better value before training ends")
    max_grad_l2_norm: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="clips the gradient's global norm"
    )
    lr_scheduler: Block = Field(
        default=Block(type="antmmf-core:constant"), description="factor on the learning rate over the steps"
    )
    save_dir: str | None = Field(default=None, description="run folder; none: save/<recipe>/<time>")
    resume: Literal["auto"] | bool = Field(
        default=False, description="auto: go on from the newest whole checkpoint in save_dir"
    )
    resume_file: str | None = Field(default=None, description="a checkpoint or run folder to start from")
    restart: bool = Field(default=False, description="take only the weights of resume_file and count from 0")
    min_coverage: Share = Field(
        default=0.5, description="a checkpoint that fills a smaller share of the model's weights is refused"
    )
    plugin_lock: Literal["warn", "strict", "ignore"] = Field(
        default="warn", description="what to do when a checkpoint was written by other plugins or versions"
    )
    async_save: bool = Field(default=True, description="write checkpoints beside the training")
    preemption_signal: Literal["USR1", "USR2"] | None = Field(
        default=None, description="a further signal after which a run saves and ends, as it does after SIGTERM"
    )


class RunConfig(Section):
    """The whole config of a run."""

    model_attributes: ModelAttributes = Field(default_factory=ModelAttributes)
    task_attributes: Block = Field(description="what is trained: retrieval, vqa, ...")
    dataset_attributes: DatasetAttributes = Field(default_factory=DatasetAttributes)
    input_attributes: InputAttributes = Field(default_factory=InputAttributes)
    optimizer_attributes: Block = Field(default=Block(type="antmmf-core:AdamW"))
    metrics: list[Block] = Field(default_factory=list, description="what is measured on val and test")
    callbacks: list[Block] = Field(
        default_factory=lambda: [Block(type="antmmf-core:console"), Block(type="antmmf-core:jsonl")]
    )
    plugins: PluginSettings = Field(default_factory=PluginSettings)
    training_parameters: TrainingParameters = Field(default_factory=TrainingParameters)


BLOCKS: dict[str, str] = {
    "model_attributes.vision_encoder": "vision_encoders",
    "model_attributes.text_encoder": "text_encoders",
    "model_attributes.fusion_encoder": "text_encoders",
    "task_attributes": "tasks",
    "dataset_attributes.train": "datasets",
    "dataset_attributes.val": "datasets",
    "dataset_attributes.test": "datasets",
    "input_attributes.reader": "readers",
    "input_attributes.sampler": "samplers",
    "input_attributes.train_transform": "transforms",
    "input_attributes.eval_transform": "transforms",
    "optimizer_attributes": "optimizers",
    "metrics": "metrics",
    "callbacks": "callbacks",
    "training_parameters.lr_scheduler": "schedules",
}
"""Dotted key of every block (or list of blocks) and the kind of component it names."""


def section_of(annotation: Any) -> type[Section] | None:
    """The section or block that a field holds: as it is, or none, or in a list."""
    for choice in (annotation, *typing.get_args(annotation)):
        if isinstance(choice, type) and typing.get_origin(choice) is None and issubclass(choice, Section):
            return choice
    return None


def known_keys(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the schema, without what stands in ``params`` or in a list."""
    for name, info in model.model_fields.items():
        yield prefix + name
        inner = section_of(info.annotation)
        if inner is not None and inner is not Block and typing.get_origin(info.annotation) is not list:
            yield from known_keys(inner, f"{prefix}{name}.")
