"""Transformers' text models and their tokenizers: from a folder, ``weights_dir`` or the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from antmmf import torchvision_shim
from antmmf.contracts import Assets, Json
from antmmf.errors import CheckpointError, ComponentError, DataError
from antmmf.pretrained import given, missing, only_shapes, shaped, stored

from antmmf_text.tokenizers import MASK, PAD, Subwords, train_pieces, word_piece
from antmmf_text.vocabulary import read_vocabulary

_SENTENCE_PIECES = ("sentencepiece.bpe.model", "spiece.model")
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", *_SENTENCE_PIECES)


@dataclass(frozen=True)
class Source:
    """Where the files of a model called ``name`` are: in the ``folder``, or on the Hub under that name."""

    name: str
    folder: Path | None
    weights_dir: Path | None

    @property
    def place(self) -> str:
        """What transformers' ``from_pretrained`` takes."""
        return str(self.folder) if self.folder is not None else self.name

    @property
    def is_local(self) -> bool:
        """Whether the network is not needed, nor asked."""
        return self.folder is not None

    def fault(self, error: Exception, files: str) -> CheckpointError:
        """What to say of ``files`` that could not be read or downloaded."""
        if self.folder is not None:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            return CheckpointError(f"{self.name}: {self.folder} cannot be read: {first}")
        wanted = f"{files} of https://huggingface.co/{self.name}"
        return missing(self.name, source=wanted, place=self.name, weights_dir=self.weights_dir, reason=error)


def find(name: str, weights_dir: Path | None) -> Source:
    """The folder called ``name``, or that of ``weights_dir``, else the Hub's. Raises ``CheckpointError``."""
    own = Path(name).expanduser()
    folder = own if own.is_dir() else stored([name], weights_dir)
    if folder is None and (name.startswith((".", "~", "/")) or name.count("/") > 1):
        raise CheckpointError(f"{name}: there is no such folder")
    return Source(name, folder, weights_dir)


def shipped(name: str) -> dict[str, Any] | None:
    """The config of a model whose name this package knows."""
    known: dict[str, dict[str, Any]] = {}
    for file in ("bert.json", "towers.json"):
        known |= json.loads((resources.files("antmmf_text") / "configs" / file).read_text(encoding="utf-8"))
    return known.get(name)


def config_of(source: Source, assets: Assets, *, asset: str, kinds: tuple[str, ...]) -> tuple[Any, bool]:
    """The config of a model, kept as an ``asset``, and whether a checkpoint brought it: then it brings the weights too,
    and no file is needed. Raises ``CheckpointError`` or ``ComponentError``.
    """
    name = f"{asset} {source.name}"
    known = assets.get(name, lambda _: read_config(source, kinds=kinds).to_diff_dict())
    return library().AutoConfig.for_model(**known), assets.restored(name)


def read_config(source: Source, *, kinds: tuple[str, ...]) -> Any:
    """The transformers config of a model, whose ``model_type`` must be one of ``kinds``.

    Raises ``CheckpointError`` or ``ComponentError``.
    """
    transformers = library()
    known = shipped(source.name)
    try:
        if source.folder is not None and not (source.folder / "config.json").is_file():
            raise CheckpointError(f"{source.name}: {source.folder} must be a folder with config.json; it has none")
        if source.folder is None and known is not None:
            config = transformers.AutoConfig.for_model(**known)
        else:
            config = transformers.AutoConfig.from_pretrained(source.place, local_files_only=source.is_local)
    except (OSError, ValueError) as error:
        raise source.fault(error, "config.json") from error
    if config.model_type not in kinds:
        raise ComponentError(
            f"{source.name}: its model_type must be {' or '.join(kinds)} here, is {config.model_type!r}"
        )
    return config


def network(source: Source, config: Any, *, pretrained: bool, optional: tuple[str, ...], **options: Any) -> Any:
    """The model of ``config``, in float32; ``optional`` are beginnings of names that the weights may lack.

    Raises ``CheckpointError``.
    """
    transformers = library()
    if not pretrained or only_shapes():
        return shaped(lambda: transformers.AutoModel.from_config(config, dtype=torch.get_default_dtype(), **options))
    try:
        model, report = transformers.AutoModel.from_pretrained(
            source.place, config=config, local_files_only=source.is_local, output_loading_info=True, **options
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise source.fault(error, "config.json, model.safetensors and tokenizer.json") from error
    lacking = sorted(key for key in report["missing_keys"] if not key.startswith(optional))
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise CheckpointError(
            f"{source.place}: weights must fill the model; {', '.join(lacking[:3])}{more} are missing"
        )
    return model.float()


def tokenizer_of(
    source: Source,
    assets: Assets,
    *,
    vocabulary: Path | None,
    pretrained: bool,
    vocab_size: int,
    lowercase: bool,
    max_length: int,
    random_window: bool = False,
) -> Subwords:
    """The tokenizer that the checkpoint has; else that of ``vocabulary`` (a file or folder), of the model's files, or,
    for a model without pretrained weights, word pieces trained on the training texts. It is kept as an asset.

    Raises ``CheckpointError`` or ``DataError``.
    """

    def make(texts: Iterator[str]) -> Json:
        place = given(str(vocabulary), source.weights_dir) if vocabulary is not None else source.folder
        if place is not None and (place.is_file() or any((place / name).is_file() for name in _TOKENIZERS)):
            return read_tokenizer(place, lowercase=lowercase)
        if vocabulary is not None:
            raise DataError(f"vocabulary: {place} must be vocab.txt, tokenizer.json or a folder with one; it is none")
        if pretrained and not only_shapes():
            return _described(source)
        pieces = train_pieces(texts, vocab_size=vocab_size, lowercase=lowercase)
        return {"described": word_piece(pieces, lowercase=lowercase), "pad": PAD, "mask": MASK}

    found = assets.get(f"tokenizer {source.name}", make)
    return Subwords(**found, max_length=max_length, random_window=random_window)


def read_tokenizer(place: Path, *, lowercase: bool) -> dict[str, str]:
    """What ``Subwords`` is made from: a ``vocab.txt``, a ``tokenizer.json``, or a folder of a model."""
    if place.is_dir() and not (place / "tokenizer.json").is_file() and (place / "vocab.txt").is_file():
        settings = place / "tokenizer_config.json"
        said = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
        return read_tokenizer(place / "vocab.txt", lowercase=bool(said.get("do_lower_case", lowercase)))
    if place.is_dir():
        return _described(Source(place.name, place, None))
    if place.suffix == ".json":
        try:
            described = place.read_text(encoding="utf-8")
            added = {token["content"] for token in json.loads(described)["added_tokens"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{place}: must be a tokenizer.json, cannot be read as one: {error}") from error
        pad, mask = ("<pad>", "<mask>") if "<pad>" in added else (PAD, MASK)
        return {"described": described, "pad": pad, "mask": mask}
    try:
        described = word_piece(read_vocabulary(place), lowercase=lowercase, strip_accents=lowercase)
    except ValueError as error:
        raise DataError(f"{place}: {error}") from error
    return {"described": described, "pad": PAD, "mask": MASK}


def library() -> Any:
    """The module ``transformers``."""
    torchvision_shim.apply()
    import transformers

    return transformers


def _described(source: Source) -> dict[str, str]:
    """What ``Subwords`` is made from, of a folder or the Hub. Raises ``CheckpointError``."""
    transformers = library()
    where = {"local_files_only": source.is_local}
    try:
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(source.place, **where)
        except ImportError:  # SigLIP's own class wants sentencepiece even where tokenizer.json is there
            tokenizer = None
        if not hasattr(tokenizer, "backend_tokenizer"):
            transformers.utils.cached_file(source.place, "tokenizer.json", **where)
            tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(source.place, **where)
    except Exception as error:  # of a broken file the tokenizers' library says nothing more specific
        pieces = [name for name in _SENTENCE_PIECES if source.folder is not None and (source.folder / name).is_file()]
        if pieces:
            raise CheckpointError(
                f"{source.folder}: must have tokenizer.json, has {pieces[0]} alone, which needs other packages; take "
                "tokenizer.json from the publisher, or have transformers write it: pip install sentencepiece protobuf"
            ) from error
        raise source.fault(error, "tokenizer.json (or vocab.txt)") from error
    pad = tokenizer.pad_token
    return {"described": tokenizer.backend_tokenizer.to_str(), "pad": pad, "mask": tokenizer.mask_token or pad}
