"""Which of our own distributions offers which component, so that a missing package can be named.

A test compares this table with the entry points of the four distributions.
"""

from __future__ import annotations

KNOWN: dict[str, dict[str, str]] = {
    "antmmf-vision": {
        "commands": "data.check data.convert data.pack data.preview data.quarantine data.stats embed",
        "readers": "auto cached decord frames image lmdb pyav torchcodec",
        "samplers": "dense fps segments uniform",
        "transforms": "longside randaugment_crop resize_crop",
        "vision_encoders": "small_video video_swin",
        "plugins": "encoder_families",
    },
    "antmmf-text": {
        "commands": "text.significant-words",
        "text_encoders": "bert bert_fusion small_text",
        "plugins": "text_families",
    },
    "antmmf-tasks": {
        "commands": "compare data.download data.miniature data.prepare predict report",
        "datasets": (
            "antmmf_jsonl captions cc3m cnvid coco didemo folder howto100m msrvtt msrvtt_mc msrvtt_qa msvd "
            "msvd_qa shapes shards vatex visual_genome webvid"
        ),
        "tasks": "cnvid mcqa retrieval snps3 vqa",
        "losses": "infonce mil_nce moco",
        "metrics": "accuracy choice recall",
        "callbacks": "report",
    },
}
"""Distribution -> kind -> names."""


def offered_by(kind: str, name: str) -> str | None:
    """The distribution of ours that offers component ``name``, whether or not it is installed here."""
    return next((dist for dist, kinds in KNOWN.items() if name in kinds.get(kind, "").split()), None)
