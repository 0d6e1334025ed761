"""BERT: the library's own numbers, fusing as in SNP, and where its files come from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from antmmf import torchvision_shim
from antmmf.assets import RunAssets
from antmmf.contracts import Encoded
from antmmf.errors import CheckpointError, ComponentError, DataError
from antmmf.testing import check_text_encoder
from antmmf_text.encoders.bert import Bert, BertFusion
from antmmf_text.models import find, read_config
from antmmf_text.tokenizers import train_pieces
from text_tools import without_network

torchvision_shim.apply()
import transformers  # noqa: E402

TINY = "google/bert_uncased_L-2_H-128_A-2"
SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXTS = (
    "a red circle moves left and a blue square spins",
    "the green star jumps, then the red moon shakes",
    "红色圆形",
) * 3
WORDS = ("a red circle moves left", "the green star jumps, then the red moon shakes")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny BERT with random weights and a vocabulary, as its publisher would have it."""
    place = tmp_path / "models" / "tiny-bert"
    pieces = train_pieces(TEXTS, vocab_size=200)
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(vocab_size=len(pieces), **SIZES))
    model.save_pretrained(place)
    (place / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return place


def ids_of(encoder: Bert, *texts: str) -> tuple[torch.Tensor, torch.Tensor]:
    ids = encoder.tokenizer(texts)
    longest = max(map(len, ids))
    tokens = torch.tensor([row + [encoder.tokenizer.pad_id] * (longest - len(row)) for row in ids])
    return tokens, torch.tensor([[place < len(row) for place in range(longest)] for row in ids])


def video(rows: int, *, tokens: int = 3, dim: int = 32, real: bool = True) -> Encoded:
    made = torch.randn(rows, tokens, dim, generator=torch.Generator().manual_seed(1))
    return Encoded(made, torch.full((rows, tokens), real), made.mean(1))


@pytest.mark.parametrize("pool", ["pooler", "cls", "mean"])
def test_it_keeps_the_contract(pool: Any, assets: RunAssets) -> None:
    check_text_encoder(Bert(name=TINY, pretrained=False, pool=pool, attention=True, assets=assets))


def test_it_gives_the_librarys_own_numbers(folder: Path, assets: RunAssets) -> None:
    encoder = Bert(name=str(folder), assets=assets).eval()
    own = transformers.BertModel.from_pretrained(folder).eval()
    tokens, mask = ids_of(encoder, *WORDS)
    with torch.no_grad():
        found, expected = encoder(tokens, mask), own(tokens, mask.long())
    torch.testing.assert_close(found.tokens[mask], expected.last_hidden_state[mask], rtol=0, atol=1e-6)
    torch.testing.assert_close(found.pooled, expected.pooler_output, rtol=0, atol=1e-6)


def test_its_tokenizer_gives_the_librarys_own_ids(folder: Path, assets: RunAssets) -> None:
    encoder = Bert(name=str(folder), assets=assets)
    own = transformers.BertTokenizer(str(folder / "vocab.txt"))
    texts = [*WORDS, "Déjà vu! 红色圆形", ""]
    assert encoder.tokenizer(texts) == own(texts)["input_ids"]


def test_attention_is_what_each_token_received_from_real_queries(assets: RunAssets) -> None:
    encoder = Bert(name=TINY, pretrained=False, attention=True, assets=assets).eval()
    tokens, mask = ids_of(encoder, *WORDS)
    found = encoder(tokens, mask).attention
    assert found is not None
    # every query spends 1 in each layer, all of it on real tokens
    torch.testing.assert_close(found.sum(1), 2.0 * mask.sum(1))
    assert (found[~mask] == 0).all()
    layers = encoder.bert(input_ids=tokens[:1], attention_mask=mask[:1].long(), output_attentions=True).attentions
    expected = torch.zeros(tokens.shape[1])
    for layer in layers:
        for head in range(2):
            for query in range(int(mask[0].sum())):
                expected += layer[0, head, query] / 2
    torch.testing.assert_close(found[0], expected)


@pytest.mark.parametrize(("attention", "kind"), [(False, "sdpa"), (True, "eager")])
def test_attention_is_fused_where_nobody_asks_for_its_weights(attention: bool, kind: str, assets: RunAssets) -> None:
    made = [Bert(name=TINY, pretrained=False, attention=attention, assets=assets)]
    fusion = BertFusion(name=TINY, pretrained=False, assets=assets)
    assert [encoder.bert.config._attn_implementation for encoder in made] == [kind]
    assert fusion.bert.config._attn_implementation == "sdpa"


def test_fused_attention_and_the_one_with_weights_agree(folder: Path, assets: RunAssets) -> None:
    fast, slow = (Bert(name=str(folder), attention=asked, assets=assets).eval() for asked in (False, True))
    tokens, mask = ids_of(fast, *WORDS)
    with torch.no_grad():
        torch.testing.assert_close(fast(tokens, mask).pooled, slow(tokens, mask).pooled, rtol=0, atol=1e-5)
        one, two = fast.fuse(tokens, mask, video(2)), slow.fuse(tokens, mask, video(2))
    torch.testing.assert_close(one.tokens, two.tokens, rtol=0, atol=1e-5)


def test_fusing_is_the_sequence_of_snp(folder: Path, assets: RunAssets) -> None:
    """Section 1.5 of the method: both parts through the embeddings on their own, then one sequence."""
    encoder = Bert(name=str(folder), assets=assets).eval()
    tokens, mask = ids_of(encoder, *WORDS)
    seen = video(2)
    embeddings, sep = encoder.bert.embeddings, encoder.tokenizer([""])[0][-1]
    end = embeddings.word_embeddings(torch.full((2, 1), sep))
    second = embeddings(
        inputs_embeds=torch.cat([seen.tokens, end], 1), token_type_ids=torch.ones(2, 4, dtype=torch.long)
    )
    states = torch.cat([embeddings(input_ids=tokens), second], dim=1)
    real = torch.cat([mask, torch.ones(2, 4, dtype=torch.bool)], dim=1)
    expected = encoder.bert.encoder(states, attention_mask=torch.where(real, 0.0, -1e9)[:, None, None])
    found = encoder.fuse(tokens, mask, seen)
    assert found.tokens.shape == (2, tokens.shape[1] + 3, 32)
    torch.testing.assert_close(found.tokens, expected.last_hidden_state[:, :-1], rtol=0, atol=1e-5)
    torch.testing.assert_close(found.pooled, found.tokens[:, 0])


def test_fusing_a_video_that_is_all_padding_is_the_text_alone(folder: Path, assets: RunAssets) -> None:
    encoder = Bert(name=str(folder), assets=assets).eval()
    tokens, mask = ids_of(encoder, *WORDS)
    fused, alone = encoder.fuse(tokens, mask, video(2, real=False)), encoder(tokens, mask)
    length = tokens.shape[1]
    torch.testing.assert_close(fused.tokens[:, :length][mask], alone.tokens[mask], rtol=0, atol=1e-6)
    assert not torch.allclose(encoder.fuse(tokens, mask, video(2)).pooled, alone.tokens[:, 0])


def test_a_folder_is_read_without_the_network(folder: Path, assets: RunAssets, monkeypatch: pytest.MonkeyPatch) -> None:
    without_network(monkeypatch)
    by_path = Bert(name=str(folder), assets=assets)
    in_dir = Bert(name="tiny-bert", weights_dir=folder.parent, assets=RunAssets(texts=lambda: iter(TEXTS)))
    torch.testing.assert_close(by_path.state_dict(), in_dir.state_dict())
    Bert(name="bert-base-chinese", pretrained=False, layers=1, assets=assets)


def test_without_a_network_the_error_says_what_to_get(assets: RunAssets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"huggingface\.co/someone/bert; set weights_dir"):
        Bert(name="someone/bert", assets=assets)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json .* of https://huggingface\.co/bert-base-uncased"):
        Bert(assets=assets)


def test_a_checkpoint_brings_all_that_the_model_is_made_of(folder: Path, assets: RunAssets) -> None:
    first = Bert(name=str(folder), assets=assets)
    saved = json.loads(json.dumps(dict(assets.values())))
    shutil.rmtree(folder)
    again = RunAssets(saved, texts=lambda: iter(()))
    folder.mkdir()  # somebody emptied it
    second = Bert(name=str(folder), assets=again)
    second.load_state_dict(first.state_dict())
    assert second.tokenizer(list(WORDS)) == first.tokenizer(list(WORDS))


@pytest.mark.parametrize(
    ("name", "num_words"),
    [("bert-base-uncased", 30522), ("bert-base-chinese", 21128), ("hfl/chinese-roberta-wwm-ext", 21128)],
)
def test_the_sizes_of_named_models_are_shipped(name: str, num_words: int, monkeypatch: pytest.MonkeyPatch) -> None:
    without_network(monkeypatch)
    known = read_config(find(name, None), kinds=("bert",))
    assert (known.hidden_size, known.num_hidden_layers, known.vocab_size) == (768, 12, num_words)
    assert known.max_position_embeddings == 512


def test_pieces_of_the_training_texts_stay_with_the_checkpoint_and_read_chinese(assets: RunAssets) -> None:
    first = Bert(name="bert-base-chinese", pretrained=False, layers=1, max_length=50, assets=assets)
    saved = json.loads(json.dumps(dict(assets.values())))
    nobody = RunAssets(saved, texts=lambda: pytest.fail("a restored run reads no training text"))
    again = Bert(name="bert-base-chinese", pretrained=False, layers=1, max_length=50, assets=nobody)
    (ids,) = again.tokenizer(["红色圆形"])
    assert first.tokenizer(["红色圆形"]) == [ids]
    assert again.tokenizer.decode(ids).replace(" ", "") == "红色圆形"
    assert again.tokenizer.special_ids.isdisjoint(ids[1:-1])
    assert len(again.tokenizer(["红" * 80])[0]) == 50


def test_weights_to_be_filled_are_float32_whatever_type_the_config_names(folder: Path, assets: RunAssets) -> None:
    named = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**named, "dtype": "bfloat16"}), encoding="utf-8")
    encoder = Bert(name=str(folder), pretrained=False, assets=assets)
    assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}


def test_a_vocabulary_of_ones_own(folder: Path, tmp_path: Path, assets: RunAssets) -> None:
    encoder = Bert(name=TINY, pretrained=False, vocabulary=folder / "vocab.txt", assets=assets)
    assert encoder.vocabulary.shape == (len(encoder.tokenizer), 128)
    assert encoder.tokenizer.pieces == (folder / "vocab.txt").read_text(encoding="utf-8").split()
    broken = tmp_path / "vocab.txt"
    broken.write_text("[PAD]\na b\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"vocab\.txt:2: must be one piece a line"):
        Bert(name=TINY, pretrained=False, vocabulary=broken, assets=RunAssets(texts=lambda: iter(TEXTS)))
    broken.write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"lacks \[PAD\]"):
        Bert(name=TINY, pretrained=False, vocabulary=broken, assets=RunAssets(texts=lambda: iter(TEXTS)))
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        Bert(name=TINY, pretrained=False, vocabulary=Path("nowhere"), assets=RunAssets(texts=lambda: iter(TEXTS)))


def test_a_roberta_counts_positions_as_it_learnt_them(tmp_path: Path, assets: RunAssets) -> None:
    pieces = train_pieces(TEXTS, vocab_size=200)
    config = transformers.RobertaConfig(vocab_size=len(pieces), type_vocab_size=1, pad_token_id=0, **SIZES)
    model = transformers.RobertaModel(config)
    model.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    encoder = Bert(name=str(tmp_path), vocabulary=tmp_path / "vocab.txt", assets=assets).eval()
    tokens, mask = ids_of(encoder, WORDS[1])
    own = model.eval()(tokens, mask.long()).last_hidden_state
    torch.testing.assert_close(encoder(tokens, mask).tokens, own, rtol=0, atol=1e-6)
    fused = encoder.fuse(tokens, mask, video(1, real=False)).tokens[:, : tokens.shape[1]]
    torch.testing.assert_close(fused, own, rtol=0, atol=1e-6)


def test_a_long_text_is_read_in_a_drawn_window(assets: RunAssets) -> None:
    encoder = Bert(name=TINY, pretrained=False, max_length=8, random_window=True, assets=assets)
    tokenizer, text = encoder.tokenizer, "the green star jumps, then the red moon shakes"
    whole = Bert(name=TINY, pretrained=False, max_length=100, assets=assets).tokenizer([text])[0]
    inner = whole[1:-1]
    windows = [tokenizer.window(text, seed) for seed in range(60)]
    starts = {next(s for s in range(len(inner)) if inner[s : s + 6] == window[1:-1]) for window in windows}
    assert all((len(window), window[0], window[-1]) == (8, whole[0], whole[-1]) for window in windows)
    assert starts == set(range(len(inner) - 6 + 1))
    assert tokenizer([text])[0] == [*whole[:7], whole[-1]]
    assert tokenizer.window("a star", 3) == tokenizer(["a star"])[0]


def test_a_text_longer_than_the_positions_is_refused_before_there_is_one(assets: RunAssets) -> None:
    small = {"name": "google/bert_uncased_L-2_H-128_A-2", "pretrained": False, "assets": assets}
    Bert(**small, max_length=512)  # type: ignore[arg-type]
    with pytest.raises(ComponentError, match=r"max_length must be at most the 512 positions of google/bert\S+, is 513"):
        Bert(**small, max_length=513)  # type: ignore[arg-type]


def test_a_vision_model_is_refused(tmp_path: Path, assets: RunAssets) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ComponentError, match="must be bert or roberta or xlm-roberta here, is 'vit'"):
        Bert(name=str(tmp_path), assets=assets)


def test_the_cross_encoder_of_p3e_has_45_million_parameters() -> None:
    """Its own embeddings and three layers (Table II: 205.5 - 160.4 = 45.1 M), with the vocabulary of BERT-base."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(30522 - 5))]
    described = {"described": _described(pieces), "pad": "[PAD]", "mask": "[MASK]"}
    assets = RunAssets(texts=lambda: iter(()), made={"tokenizer bert-base-uncased": described})
    with torch.device("meta"):
        fusion = BertFusion(pretrained=False, assets=assets)
    embeddings = (30522 + 512 + 2 + 2) * 768
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    assert sum(p.numel() for p in fusion.parameters()) == embeddings + 3 * layer == 45_100_800


def _described(pieces: list[str]) -> str:
    from antmmf_text.tokenizers import word_piece

    return word_piece(pieces)
