"""The numbers of a pre-training task, in groups: what a config may say under ``params``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Weight = Annotated[float, Field(ge=0)]


class Settings(BaseModel):
    """Base of the groups: unknown keys are errors, values do not change, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Weights(Settings):
    """Factor of each loss; 0 leaves it out."""

    contrast: Weight = 1.0
    match: Weight = 1.0
    gvtm: Weight = 1.0
    mlm_text: Weight = 1.0
    mlm: Weight = 1.0
    lvwm: Weight = 1.0
    clip_order: Weight = 0.0


class Masking(Settings):
    """``policy``: hide significant words (``mssm``), or any (``mlm``); a ``share`` of them. In a share ``attentive`` of
    the texts the cross encoder sees the most attended words hidden instead. ``words`` is a table of significant words,
    of which the first ``words_top_k`` count, ``mates`` AntMMF's file of words that share a lemma."""

    policy: Literal["mssm", "mlm"] = "mssm"
    share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    attentive: Annotated[float, Field(ge=0, le=1)] = 0.5
    words: Path | None = None
    words_top_k: Annotated[int, Field(gt=0)] = 3000
    mates: Path | None = None


class Pairs(Settings):
    """Pairs for the cross encoder are of ``group`` consecutive videos of the global batch, ``at_once`` of them are kept
    in memory."""

    group: Annotated[int, Field(gt=1)] = 16
    at_once: Annotated[int, Field(gt=0)] = 256


class Matching(Pairs):
    """Pairs; ``gvtm`` compares with ``any`` video of the group, or with a ``hard`` one, drawn by similarity."""

    gvtm: Literal["any", "hard"] = "any"


class WordMatching(Settings):
    """``num_words`` significant words of a text stand for it; ``temperature`` null compares words of any length with
    clips of unit length, as AntMMF does."""

    num_words: Annotated[int, Field(gt=0)] = 3
    temperature: Annotated[float, Field(gt=0)] | None = 0.05


class HardSamples(Settings):
    """When the cross encoder gets hard videos, and which.

    ``when``: in a share of steps that grows by ``change_rate`` every ``change_iter`` steps (``curriculum``), in
    ``every_step`` or ``never``. ``how``: videos whose similarity is ``nearest`` to that of the own one, or the
    ``top_k`` most similar. ``reweight`` lets easy pairs count less. ``draw``: each step by itself, or ``averaged`` over
    eight draws as in AntMMF, which makes the share of steps jump from none to all around one half.
    """

    when: Literal["curriculum", "every_step", "never"] = "curriculum"
    change_iter: Annotated[int, Field(gt=0)] = 5000
    change_rate: Annotated[float, Field(gt=0, le=1)] = 0.15
    how: Literal["nearest", "top_k"] = "nearest"
    reweight: bool = True
    draw: Literal["single", "averaged"] = "single"
