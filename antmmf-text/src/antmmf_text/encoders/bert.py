"""BERT and its relatives from transformers, for texts alone and for texts together with videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from antmmf.contracts import Assets, Encoded
from antmmf.errors import ComponentError
from pydantic import Field
from torch import Tensor, nn

from antmmf_text.models import config_of, find, network, tokenizer_of

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]

KINDS = ("bert", "roberta", "xlm-roberta")
"""Values of ``model_type`` in config.json."""


class _BertNetwork(nn.Module):
    """What both components have: the network, the word table, and ``fuse``."""

    def __init__(
        self,
        *,
        name: str,
        pretrained: bool,
        weights_dir: Path | None,
        vocabulary: Path | None,
        vocab_size: int,
        lowercase: bool,
        max_length: int,
        random_window: bool,
        layers: int | None,
        dropout: float | None,
        attention: bool,
        video_dim: int | None,
        assets: Assets,
    ) -> None:
        super().__init__()
        source = find(name, weights_dir)
        config, is_restored = config_of(source, assets, asset=type(self).__name__, kinds=KINDS)
        self.tokenizer = tokenizer_of(
            source,
            assets,
            vocabulary=vocabulary,
            pretrained=pretrained,
            vocab_size=vocab_size,
            lowercase=lowercase,
            max_length=max_length,
            random_window=random_window,
        )
        if not pretrained:
            config.vocab_size = len(self.tokenizer)
        config.num_hidden_layers = layers or config.num_hidden_layers
        if dropout is not None:
            config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
        kind = "eager" if attention else "sdpa"  # only eager attention has weights to show
        wants = pretrained and not is_restored
        model = network(source, config, pretrained=wants, optional=("pooler.",), attn_implementation=kind)
        self.dim: int = config.hidden_size
        self.video_dim = video_dim or self.dim
        self._first_position = config.pad_token_id + 1 if config.model_type != "bert" else 0
        self._video_segment = min(1, config.type_vocab_size - 1)
        self._sep_id = self.tokenizer([""])[0][-1]
        self.pooler: nn.Linear | None = model.pooler.dense
        model.pooler = None
        self.bert: Any = model
        self.video = nn.Linear(self.video_dim, self.dim) if self.video_dim != self.dim else nn.Identity()

    @property
    def vocabulary(self) -> Tensor:
        """The word table (V, dim)."""
        table: Tensor = self.bert.get_input_embeddings().weight
        return table

    def fuse(self, tokens: Tensor, mask: Tensor, video: Encoded) -> Encoded:
        """Row i of ``tokens`` (N, L) with row i of ``video`` (N, K, video_dim): L + K tokens, the text's first.

        As SNP-S3 builds it: ``[CLS] text [SEP]`` of segment 0, then the video and a ``[SEP]`` of segment 1, whose
        positions begin anew, through embeddings and layers alike. ``pooled`` is the state of ``[CLS]``.
        """
        words = self.bert.get_input_embeddings()
        end = words(tokens.new_full((len(tokens), 1), self._sep_id))
        text = words(tokens)
        seen = torch.cat([self.video(video.tokens).to(text.dtype), end], dim=1)
        positions = [torch.arange(part.shape[1], device=tokens.device) for part in (text, seen)]
        segments = torch.cat([torch.zeros_like(positions[0]), torch.full_like(positions[1], self._video_segment)])
        real = torch.cat([mask, video.mask, video.mask.any(1, keepdim=True)], dim=1)
        states = self.bert(
            inputs_embeds=torch.cat([text, seen], dim=1),
            attention_mask=real.long(),
            token_type_ids=segments.expand(len(tokens), -1),
            position_ids=(torch.cat(positions) + self._first_position).expand(len(tokens), -1),
        ).last_hidden_state[:, :-1]  # (N, L + K, dim)
        return Encoded(tokens=states, mask=real[:, :-1], pooled=states[:, 0])

    def blocks(self) -> Sequence[nn.Module]:
        """The layers."""
        return list(self.bert.encoder.layer)


class Bert(_BertNetwork):
    """BERT, Chinese BERT, RoBERTa-wwm, RoBERTa: any Hub id or local folder, for texts and, with ``fuse``, for texts
    together with videos: one shared network, as in SNP.

    ``name`` is looked for as a folder, then in ``weights_dir``, then on the Hub; a folder is read without the network.
    With ``pretrained: false`` it is random, and for the names that ``antmmf_text/configs`` has no file is needed: the
    vocabulary is that of ``vocabulary`` (``vocab.txt``, ``tokenizer.json`` or a folder), else at most ``vocab_size``
    word pieces of the training texts. The tokenizer is kept with the checkpoint.

    ``layers`` keeps the first so many. ``pool``: the pooler's tanh of CLS as BERT has it, CLS itself, or the mean of
    the real tokens. ``attention`` also returns how much attention each token received, added up over layers and real
    queries, as a mean over heads; it costs fused attention. ``dropout`` None: the model's own. ``random_window`` reads
    a drawn window of a text that is longer than ``max_length`` tokens, in training. ``video_dim`` is the ``dim`` of the
    video encoder where it differs.
    """

    def __init__(
        self,
        *,
        name: str = "bert-base-uncased",
        pretrained: bool = True,
        weights_dir: Path | None = None,
        vocabulary: Path | None = None,
        vocab_size: Annotated[int, Field(gt=5)] = 8000,
        lowercase: bool = True,
        max_length: Annotated[int, Field(gt=2)] = 30,
        random_window: bool = False,
        layers: Positive | None = None,
        pool: Literal["pooler", "cls", "mean"] = "pooler",
        dropout: Share | None = None,
        attention: bool = False,
        video_dim: Positive | None = None,
        assets: Assets,
    ) -> None:
        super().__init__(
            name=name,
            pretrained=pretrained,
            weights_dir=weights_dir,
            vocabulary=vocabulary,
            vocab_size=vocab_size,
            lowercase=lowercase,
            max_length=max_length,
            random_window=random_window,
            layers=layers,
            dropout=dropout,
            attention=attention,
            video_dim=video_dim,
            assets=assets,
        )
        positions = self.bert.config.max_position_embeddings - self._first_position
        if max_length > positions:
            raise ComponentError(f"max_length must be at most the {positions} positions of {name}, is {max_length}")
        self._pool, self._attention = pool, attention
        if pool != "pooler":
            self.pooler = None

    def forward(self, tokens: Tensor, mask: Tensor) -> Encoded:
        """``tokens`` (N, L) int64, ``mask`` (N, L)."""
        out = self.bert(input_ids=tokens, attention_mask=mask.long(), output_attentions=self._attention)
        states = out.last_hidden_state
        if self._pool == "mean":
            weights = mask[..., None].to(states.dtype)
            pooled = (states * weights).sum(1) / weights.sum(1)
        else:
            pooled = states[:, 0] if self.pooler is None else self.pooler(states[:, 0]).tanh()
        received = None
        if self._attention:
            queries = mask[:, None, :, None]  # those of padding say nothing
            received = sum((layer * queries).sum(2).mean(1) for layer in out.attentions)  # (N, L)
        return Encoded(tokens=states, mask=mask, pooled=pooled, attention=received)


class BertFusion(_BertNetwork):
    """A cross encoder of its own, with its own embeddings: the first ``layers`` layers of a BERT, as the three-fusion
    baseline P3E has it. It reads the ids of the text encoder's tokenizer, so ``name``, ``pretrained`` and what they
    need must be those of the text encoder; ``video_dim`` is the video encoder's ``dim`` where it differs.
    """

    def __init__(
        self,
        *,
        name: str = "bert-base-uncased",
        pretrained: bool = True,
        weights_dir: Path | None = None,
        vocabulary: Path | None = None,
        vocab_size: Annotated[int, Field(gt=5)] = 8000,
        lowercase: bool = True,
        layers: Positive = 3,
        dropout: Share | None = None,
        video_dim: Positive | None = None,
        assets: Assets,
    ) -> None:
        super().__init__(
            name=name,
            pretrained=pretrained,
            weights_dir=weights_dir,
            vocabulary=vocabulary,
            vocab_size=vocab_size,
            lowercase=lowercase,
            max_length=512,
            random_window=False,
            layers=layers,
            dropout=dropout,
            attention=False,
            video_dim=video_dim,
            assets=assets,
        )
        self.pooler = None
