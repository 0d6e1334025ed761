"""HowTo100M: narrated videos of how things are done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from antmmf_tasks.datasets.release import Missing
from antmmf_tasks.datasets.transcripts import Transcripts


class Howto100m(Transcripts):
    """HowTo100M (Miech et al., ICCV 2019): 1.2 M videos whose speech is their text.

    Expects ``caption.json`` (or ``raw_caption.json`` renamed, or ``asr_files``) of the release. Media are
    ``<YouTube id>.mp4`` or ``.webm``. There is no published split; ``val`` is held out of training. Terms: research
    only; the videos are their uploaders'.
    """

    home = "https://www.di.ens.fr/willow/research/howto100m/"
    terms = "for research; the videos belong to those who uploaded them to YouTube"
    language = "en"

    def __init__(
        self,
        *,
        data_root_dir: Path,
        split: Literal["train", "val"],
        min_words: Annotated[int, Field(ge=1)] = 5,
        min_seconds: Annotated[float, Field(ge=0)] = 5.0,
        val_share: Annotated[float, Field(ge=0, lt=1)] = 0.001,
        media_dir: Path | None = None,
        missing: Missing = "drop",
    ) -> None:
        super().__init__(
            data_root_dir=data_root_dir,
            split=split,
            min_words=min_words,
            min_seconds=min_seconds,
            val_share=val_share,
            media_dir=media_dir,
            missing=missing,
        )
