"""CNVid-3.5M: Chinese videos and what is said in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from antmmf_tasks.datasets.release import Missing
from antmmf_tasks.datasets.transcripts import Transcripts


class Cnvid(Transcripts):
    """CNVid-3.5M (Gan et al., CVPR 2023): 3.5 M Chinese videos whose speech is their text.

    Expects ``caption.json`` of the release, or ``asr_files`` as in AntMMF. Media are videos, or AntMMF's folders of
    frames, by the names that stand there. The publisher's validation split (5,000 videos) was never released: ``val``
    is held out of training. Words are counted in characters. Terms:
    non-commercial research for a limited time, no redistribution; the videos are their uploaders'.
    """

    home = "https://drive.google.com/drive/folders/1ACVN2Zb_XoY5IpMrkfbKqEIJfhleMSDO"
    terms = "non-commercial research for a limited time, no redistribution; the videos belong to their uploaders"
    language = "zh"

    def __init__(
        self,
        *,
        data_root_dir: Path,
        split: Literal["train", "val"],
        min_words: Annotated[int, Field(ge=1)] = 5,
        min_seconds: Annotated[float, Field(ge=0)] = 5.0,
        val_share: Annotated[float, Field(ge=0, lt=1)] = 0.0014,
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
