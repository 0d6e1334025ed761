"""Tiny text towers with random weights and their tokenizers, as folders like their publishers'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from antmmf import torchvision_shim
from antmmf_text.tokenizers import train_pieces
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

torchvision_shim.apply()
import transformers  # noqa: E402

KINDS = ("clip", "chinese_clip", "siglip")
TEXTS = (
    "a red circle moves left and a blue square spins",
    "the green star jumps, then the red moon shakes",
    "红色圆形向左移动",
) * 3
_SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_TEXT: dict[str, Any] = {**_SIZES, "hidden_size": 32}
_VISION: dict[str, Any] = {**_SIZES, "hidden_size": 48, "image_size": 32, "patch_size": 16}


def saved(kind: str, folder: Path, *, positions: int = 24) -> Any:
    """The library's whole model, with both towers; its weights and tokenizer are also in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    num_words = {"clip": _clip, "chinese_clip": _chinese_clip, "siglip": _siglip}[kind](folder)
    text = {**_TEXT, "vocab_size": num_words, "max_position_embeddings": positions}
    torch.default_generator.manual_seed(3)
    if kind == "clip":
        # the published ones say 2, and mean the last entry
        text |= {"eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1}
        config = transformers.CLIPConfig(text_config=text, vision_config=_VISION, projection_dim=24)
    elif kind == "chinese_clip":
        config = transformers.ChineseCLIPConfig(text_config=text, vision_config=_VISION, projection_dim=24)
    else:
        text |= {"projection_size": 48, "eos_token_id": 1, "bos_token_id": 0}
        config = transformers.SiglipConfig(text_config=text, vision_config=_VISION)
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    return model.eval()


def _clip(folder: Path) -> int:
    """vocab.json and merges.txt: words end in </w>, the two special tokens stand last."""
    inner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    inner.train_from_iterator(TEXTS, trainer)
    tree = json.loads(inner.to_str())["model"]
    vocab = dict(tree["vocab"])
    for token in (*(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"):
        vocab.setdefault(token, len(vocab))
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tree["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    return len(vocab)


def _chinese_clip(folder: Path) -> int:
    pieces = train_pieces(TEXTS, vocab_size=200)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return len(pieces)


def _siglip(folder: Path) -> int:
    """tokenizer.json, whose normaliser drops punctuation, and which has no token to mask with."""
    inner = Tokenizer(models.Unigram())
    inner.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    inner.train_from_iterator(TEXTS, trainer)
    end = ("</s>", inner.token_to_id("</s>"))
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[end])
    inner.save(str(folder / "tokenizer.json"))
    said = {"tokenizer_class": "SiglipTokenizer", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said), encoding="utf-8")
    return int(inner.get_vocab_size())
