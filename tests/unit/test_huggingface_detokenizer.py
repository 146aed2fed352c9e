"""Detokenizing token by token: the pieces, joined, are the decoded text, whatever the tokens are."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tiny_models import CORPUS, byte_level_tokenizer, sentencepiece_tokenizer


class SlowTokenizer:
    """A tokenizer without a fast backend, whose decoding depends on all tokens before."""

    is_fast = False
    all_special_ids = (0,)
    added_tokens_decoder: dict[int, Any] = {}  # noqa: RUF012

    def get_vocab(self) -> dict[str, int]:
        return {"<s>": 0} | {chr(0x60 + id): id for id in range(1, 28)}

    def decode(self, ids: list[int], **options: Any) -> str:
        return "".join(chr(0x60 + id) for id in ids if id in range(1, 27)) + ("\ud83d" if 27 in ids else "")


@functools.cache
def token_decoder(kind: str) -> Any:
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from abstractllm.providers.huggingface.worker.token_decoder import TokenDecoder

    if kind == "slow":
        return TokenDecoder(SlowTokenizer())
    if kind == "word_piece":
        backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[SEP]"], show_progress=False)
        backend.train_from_iterator(CORPUS, trainer)
    elif kind == "metaspace":
        backend = Tokenizer(models.Unigram())
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
        backend.train_from_iterator(
            CORPUS,
            trainers.UnigramTrainer(
                vocab_size=200, special_tokens=["<s>", "<unk>"], unk_token="<unk>", show_progress=False
            ),
        )
    else:
        backend = byte_level_tokenizer() if kind == "byte_level" else sentencepiece_tokenizer()
    special = {"bos_token": "<s>"} if kind != "word_piece" else {"sep_token": "[SEP]"}
    return TokenDecoder(transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **special))


KINDS = ["byte_level", "byte_fallback", "metaspace", "word_piece", "slow"]


def pieces(kind: str, ids: list[int]) -> list[str]:
    from abstractllm.providers.huggingface.worker.detokenizer import Detokenizer

    detokenizer = Detokenizer(token_decoder(kind))
    return [*(detokenizer.push(id) for id in ids), detokenizer.flush()]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_pieces_joined_are_the_decoded_text(kind: str, data: st.DataObject) -> None:
    size = {"slow": 30}.get(kind, 720)  # beyond the vocabulary too: models may have more rows than tokens
    ids = data.draw(st.lists(st.integers(0, size), max_size=40))
    texts = pieces(kind, ids)
    assert "".join(texts) == token_decoder(kind).decode(ids)
    for piece in texts:
        piece.encode()


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
@settings(deadline=None, max_examples=100)
@given(text=st.text(max_size=30))
def test_text_comes_back_without_a_broken_character(kind: str, text: str) -> None:
    backend = byte_level_tokenizer if kind == "byte_level" else sentencepiece_tokenizer
    ids = functools.cache(backend)().encode(text, add_special_tokens=False).ids
    texts = pieces(kind, ids)
    assert "".join(texts) == token_decoder(kind).decode(ids)
    if "\ufffd" not in text and "\ufffd" not in token_decoder(kind).decode(ids):
        assert all("\ufffd" not in piece for piece in texts)


def test_text_streams_token_by_token() -> None:
    ids = byte_level_tokenizer().encode("hello world, this is a test").ids
    assert sum(bool(piece) for piece in pieces("byte_level", ids)) == len(ids)


def test_lone_surrogate_becomes_a_replacement_character() -> None:
    assert "".join(pieces("slow", [1, 27, 2])) == "ab\ufffd"


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_bytes_of_tokens_joined_are_the_texts_bytes(kind: str) -> None:
    backend = byte_level_tokenizer() if kind == "byte_level" else sentencepiece_tokenizer()
    text = "schöne 你好 🙂 words"
    joined = b"".join(token_decoder(kind).token_bytes(id) for id in backend.encode(text).ids)
    assert joined.decode().lstrip() == text
    assert token_decoder(kind).token_bytes(1_000_000) == b""
