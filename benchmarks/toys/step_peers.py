"""The same steps as in ``steps.py`` in the loops of others, each as its documentation writes it.

Clipping is off everywhere, nothing is saved on the way, and the batches come ready: what is left is the loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from toys.steps import BATCH, Mlp, Stream, cosine_of, optimizer_of


def fabric(stream: Stream, _: Path, fused: bool) -> None:
    from lightning.fabric import Fabric

    lightning = Fabric(accelerator="cpu", devices=1)
    module = Mlp()
    model, optimizer = lightning.setup(module, optimizer_of(module, fused))
    schedule = cosine_of(optimizer.optimizer, len(stream))
    for inputs, classes in stream:
        loss = nn.functional.cross_entropy(model(inputs), classes)
        lightning.backward(loss)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def accelerate(stream: Stream, _: Path, fused: bool) -> None:
    """Without a prepared loader, which would cost more: the batches are where they should be."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    module = Mlp()
    plain = optimizer_of(module, fused)
    model, optimizer, schedule = accelerator.prepare(module, plain, cosine_of(plain, len(stream)))
    for inputs, classes in stream:
        loss = nn.functional.cross_entropy(model(inputs), classes)
        accelerator.backward(loss)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def lightning_bare(stream: Stream, _: Path, fused: bool) -> None:
    """Lightning's own mode for measuring its overhead: no bar, no logger, no checkpoints."""
    from lightning.pytorch import Trainer

    Trainer(accelerator="cpu", devices=1, max_epochs=1, barebones=True).fit(_lightning_module(fused, False), stream)


def lightning_default(stream: Stream, folder: Path, fused: bool) -> None:
    """A bar, a CSV file and ``self.log``; the bar is tqdm's, which costs less than rich's."""
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import TQDMProgressBar
    from lightning.pytorch.loggers import CSVLogger

    Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        default_root_dir=folder,
        logger=CSVLogger(folder),
        callbacks=[TQDMProgressBar()],
    ).fit(_lightning_module(fused, True), stream)


def _lightning_module(fused: bool, log: bool) -> Any:
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = Mlp()

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            loss = nn.functional.cross_entropy(self.mlp(batch[0]), batch[1])
            if log:
                self.log("loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> Any:
            optimizer = optimizer_of(self, fused)
            schedule = cosine_of(optimizer, int(self.trainer.estimated_stepping_batches))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    return Module()


def hf_trainer(stream: Stream, folder: Path, fused: bool) -> None:
    """Defaults (a bar, a log line every 500 steps), but no checkpoints and no clipping."""
    from transformers import Trainer, TrainingArguments

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = Mlp()

        def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
            scores = self.mlp(inputs)
            return {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}

    class Ready(Trainer):  # type: ignore[misc]
        def get_train_dataloader(self) -> Any:
            return stream

    model = Model()
    optimizer = optimizer_of(model, fused)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=len(stream),
        per_device_train_batch_size=BATCH,
        max_grad_norm=0.0,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
    )
    schedule = cosine_of(optimizer, len(stream))
    Ready(model, arguments, train_dataset=stream.batches, optimizers=(optimizer, schedule)).train()


def mmengine(stream: Stream, folder: Path, fused: bool) -> None:
    """``Runner`` with its default hooks."""
    from mmengine.model import BaseModel
    from mmengine.optim import CosineAnnealingLR, OptimWrapper
    from mmengine.runner import Runner

    class Model(BaseModel):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.mlp = Mlp()

        def forward(self, inputs: Tensor, classes: Tensor, mode: str) -> dict[str, Tensor]:
            assert mode == "loss"
            return {"loss": nn.functional.cross_entropy(self.mlp(inputs), classes)}

    model = Model()
    optimizer = optimizer_of(model, fused)
    Runner(
        model,
        work_dir=str(folder),
        train_dataloader=stream,
        train_cfg={"by_epoch": True, "max_epochs": 1},
        optim_wrapper=OptimWrapper(optimizer),
        param_scheduler=CosineAnnealingLR(optimizer, T_max=len(stream), by_epoch=False),
        experiment_name=folder.name,  # a name of its own: runners are kept by name
    ).train()
