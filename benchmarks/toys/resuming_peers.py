"""The run of ``resuming.py`` in the loops of others: what their documentation says about going on after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from toys.resuming import (
    BATCH,
    EPOCHS,
    KILLED_AT,
    NUM_CLASSES,
    NUM_IN,
    NUM_SAMPLES,
    NUM_STEPS,
    SEED,
    STEPS_AN_EPOCH,
    Diary,
    Net,
    die,
    write_weights,
)

LR = 1e-2
Row = dict[str, Tensor]


class Rows(Dataset[Row]):
    """Rows in memory; each time that one is read, noise from torch's generator is added."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(SEED)
        self.inputs = torch.rand(NUM_SAMPLES, NUM_IN, generator=draw)

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, row: int) -> Row:
        inputs = self.inputs[row] + 0.2 * torch.rand(NUM_IN)
        return {"inputs": inputs, "labels": torch.tensor(row % NUM_CLASSES), "ids": torch.tensor(row)}


def _diary(folder: Path, resume: bool) -> Diary:
    return Diary(folder / f"{'resumed' if resume else 'started'}.0.jsonl")


def _optimizer(net: nn.Module) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, NUM_STEPS)


def hf_trainer(folder: Path, *, kill: bool, resume: bool, workers: int) -> None:
    """``save_steps`` and ``resume_from_checkpoint``."""
    from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

    diary = _diary(folder, resume)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def forward(self, inputs: Tensor, labels: Tensor, ids: Tensor) -> Row:
            diary.note(ids)
            scores = self.net(inputs)
            return {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}

    class Killer(TrainerCallback):  # type: ignore[misc]
        def on_save(self, *_: Any, **__: Any) -> None:
            if kill:
                die()

    set_seed(SEED)
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        learning_rate=LR,
        lr_scheduler_type="cosine",
        save_steps=KILLED_AT,
        seed=SEED,
        dataloader_num_workers=workers,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    model = Model()
    Trainer(model, arguments, train_dataset=Rows(), callbacks=[Killer()]).train(resume_from_checkpoint=resume)
    write_weights(model.net, folder / "weights.safetensors")


def accelerate(folder: Path, *, kill: bool, resume: bool, workers: int) -> None:
    """``use_stateful_dataloader``, ``save_state`` and ``load_state``, as its example by_feature/checkpointing.py."""
    _accelerate(folder, kill=kill, resume=resume, workers=workers, seedable=False)


def accelerate_seedable(folder: Path, *, kill: bool, resume: bool, workers: int) -> None:
    """The same with its reproducible sampler and a call of ``set_epoch`` in each epoch, which the example has not."""
    _accelerate(folder, kill=kill, resume=resume, workers=workers, seedable=True)


def _accelerate(folder: Path, *, kill: bool, resume: bool, workers: int, seedable: bool) -> None:
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration, set_seed

    set_seed(SEED)
    diary = _diary(folder, resume)
    settings = DataLoaderConfiguration(use_stateful_dataloader=True, use_seedable_sampler=seedable)
    accelerator = Accelerator(cpu=True, dataloader_config=settings)
    net = Net()
    rows = DataLoader(Rows(), batch_size=BATCH, shuffle=True, num_workers=workers)
    model, optimizer, schedule, loader = accelerator.prepare(net, *_optimizer(net), rows)
    step = 0
    if resume:
        accelerator.load_state(str(folder / "checkpoint"))
        step = KILLED_AT
    for epoch in range(step // STEPS_AN_EPOCH, EPOCHS):
        if seedable:
            loader.set_epoch(epoch)
        for batch in loader:
            diary.note(batch["ids"])
            loss = nn.functional.cross_entropy(model(batch["inputs"]), batch["labels"])
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if step == KILLED_AT and not resume:
                accelerator.save_state(str(folder / "checkpoint"))
                if kill:
                    die()
    write_weights(net, folder / "weights.safetensors")


def lightning(folder: Path, *, kill: bool, resume: bool, workers: int) -> None:
    """``ModelCheckpoint(every_n_train_steps)`` and ``fit(ckpt_path=...)``."""
    _lightning(folder, kill=kill, resume=resume, workers=workers, loader=DataLoader)


def lightning_stateful(folder: Path, *, kill: bool, resume: bool, workers: int) -> None:
    """The same with torchdata's loader, whose position Lightning saves."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    _lightning(folder, kill=kill, resume=resume, workers=workers, loader=StatefulDataLoader)


def _lightning(folder: Path, *, kill: bool, resume: bool, workers: int, loader: Any) -> None:
    from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
    from lightning.pytorch.callbacks import ModelCheckpoint

    diary = _diary(folder, resume)

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def training_step(self, batch: Row, _: int) -> Tensor:
            diary.note(batch["ids"])
            return nn.functional.cross_entropy(self.net(batch["inputs"]), batch["labels"])

        def configure_optimizers(self) -> Any:
            optimizer, schedule = _optimizer(self)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    class Killer(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if kill and trainer.global_step == KILLED_AT:
                die()

    seed_everything(SEED)
    keep = ModelCheckpoint(folder / "checkpoints", every_n_train_steps=KILLED_AT, save_top_k=-1)
    module = Module()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=EPOCHS,
        callbacks=[Killer(), keep],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    rows = loader(Rows(), batch_size=BATCH, shuffle=True, num_workers=workers)
    (path,) = sorted((folder / "checkpoints").glob("*.ckpt")) if resume else [None]
    trainer.fit(module, rows, ckpt_path=path)
    write_weights(module.net, folder / "weights.safetensors")
