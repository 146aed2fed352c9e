"""Detokenizing token by token: the pieces, joined, are the text that the tokens add to the prompt."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.tiny_models import CORPUS, byte_level_tokenizer, decoded, sentencepiece_tokenizer

SPECIAL = ("<s>", "</s>", "<unk>", "[UNK]", "[SEP]", "<|im_start|>", "<|im_end|>")


class SlowTokenizer:
    """A tokenizer without a fast backend: letters, and a character that two of its tokens write together."""

    is_fast = False
    all_special_ids = (0,)
    added_tokens_decoder: dict[int, Any] = {}  # noqa: RUF012

    def get_vocab(self) -> dict[str, int]:
        return {"<s>": 0} | {chr(0x60 + id): id for id in range(1, 30)}

    def decode(self, ids: list[int], **options: Any) -> str:
        runs = [bytes(_BYTES.get(id, 0x60 + id) for id in run) for run in _runs(id for id in ids if id)]
        return "\ud83d".join(run.decode("utf-8", "replace") for run in runs)


_BYTES = {28: 0xC3, 29: 0xA9}


def _runs(ids: Iterable[int]) -> list[list[int]]:
    """Returns the tokens between those that write half of a surrogate pair."""
    runs: list[list[int]] = [[]]
    for id in ids:
        if id == 27:
            runs.append([])
        else:
            runs[-1].append(id)
    return runs


@functools.cache
def backend(kind: str) -> Any:
    """Tokenizers of the kinds that models have."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    if kind == "byte_level":
        tokenizer = byte_level_tokenizer()
        tokenizer.add_tokens([AddedToken("两 words"), AddedToken("  ")])
        return tokenizer
    if kind == "byte_level_sequence":
        tokenizer = byte_level_tokenizer()
        tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Fuse()])
        return tokenizer
    if kind == "byte_fallback":
        return sentencepiece_tokenizer()
    special: dict[str, Any] = {"special_tokens": ["<s>", "<unk>"], "show_progress": False}
    if kind == "word_piece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[SEP]"], show_progress=False)
    elif kind == "end_of_word":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Whitespace(), decoders.BPEDecoder(suffix="</w>")
        trainer = trainers.BpeTrainer(vocab_size=300, end_of_word_suffix="</w>", **special)
    elif kind == "words":
        tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(**special)
    else:
        tokenizer = Tokenizer(models.Unigram())
        scheme = kind.removeprefix("metaspace_")
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
        trainer = trainers.UnigramTrainer(vocab_size=200, unk_token="<unk>", **special)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


@functools.cache
def token_decoder(kind: str) -> Any:
    import transformers

    from abstractllm.providers.huggingface.worker.token_decoder import TokenDecoder

    if kind == "slow":
        return TokenDecoder(SlowTokenizer())
    names = [name for name in SPECIAL if backend(kind).token_to_id(name) is not None]
    return TokenDecoder(
        transformers.PreTrainedTokenizerFast(tokenizer_object=backend(kind), additional_special_tokens=names)
    )


KINDS = [
    "byte_level",
    "byte_level_sequence",
    "byte_fallback",
    "metaspace_always",
    "metaspace_first",
    "metaspace_never",
    "word_piece",
    "end_of_word",
    "words",
]


def pieces(kind: str, ids: list[int], context: list[int] | None = None) -> list[str]:
    from abstractllm.providers.huggingface.worker.detokenizer import Detokenizer

    detokenizer = Detokenizer(token_decoder(kind), context or ())
    return [*(detokenizer.push(id) for id in ids), detokenizer.flush()]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_pieces_joined_are_what_the_tokenizer_adds_to_the_prompt(kind: str, data: st.DataObject) -> None:
    size = backend(kind).get_vocab_size() + 8  # beyond the vocabulary too: models may have more rows than tokens
    words = backend(kind).encode(data.draw(st.sampled_from(["", "The quick", "a 🙂", "Paris"]))).ids
    ids = data.draw(st.lists(st.integers(0, size), max_size=40))
    texts = pieces(kind, ids, words)
    assert "".join(texts) == decoded(backend(kind), ids, words)
    for piece in texts:
        piece.encode()


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=12), word=st.sampled_from(["", "Paris", " "]))
@example(data=b"\xe4\xbd\xff\n", word="")
@example(data=b"\xf0\x9f\x99\x82\xf0\x9f", word="Paris")
def test_byte_tokens_are_whole_characters_or_replaced_one_by_one(data: bytes, word: str) -> None:
    tokens = [backend("byte_fallback").token_to_id(f"<0x{byte:02X}>") for byte in data]
    ids = [*tokens, *backend("byte_fallback").encode(word).ids, *tokens]
    assert "".join(pieces("byte_fallback", ids)) == decoded(backend("byte_fallback"), ids)
    unbroken = backend("byte_fallback").decode(ids)
    assert "\ufffd" in unbroken or unbroken == decoded(backend("byte_fallback"), ids)


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
@settings(deadline=None, max_examples=100)
@given(text=st.text(max_size=30))
@example(text="\ufeffBOM\0 a\r\nb \u202e\u05e9\u05dc")
@example(text="e\u0301 \U0001f468\u200d\U0001f469\u200d\U0001f466 \U000f0000\U000f0001")
def test_any_text_comes_back_whole(kind: str, text: str) -> None:
    ids = backend(kind).encode(text, add_special_tokens=False).ids
    assert "".join(pieces(kind, ids)) == text


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_whole_characters_are_text_at_once_and_only_the_beginning_of_one_is_held_back(kind: str) -> None:
    if kind == "byte_fallback":
        tokens = [backend(kind).token_to_id(f"<0x{byte:02X}>") for byte in "\n\né你🙂".encode()]
    else:
        tokens = [backend(kind).token_to_id(character) for character in "ĊĊÃ©ä½łðŁĻĤ"]
    assert pieces(kind, tokens) == ["\n", "\n", "", "é", "", "", "你", "", "", "", "🙂", ""]


def test_text_streams_token_by_token() -> None:
    ids = byte_level_tokenizer().encode("hello world, this is a test").ids
    assert sum(bool(piece) for piece in pieces("byte_level", ids)) == len(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_the_space_before_a_word_stays_behind_a_prompt_and_behind_a_special_token(kind: str) -> None:
    prompt, ids = backend(kind).encode("The quick").ids, backend(kind).encode("The quick fox").ids
    added = ids[len(prompt) :]
    assert ids[: len(prompt)] == prompt
    assert "".join(pieces(kind, added, prompt)) == " fox"
    special = next(id for name in SPECIAL if (id := backend(kind).token_to_id(name)) is not None)
    assert "".join(pieces(kind, added, [*prompt, special])) == " fox"
    assert "".join(pieces(kind, [*prompt, special, *added])).strip() == "The quick fox"


def test_an_added_token_is_its_own_text_where_its_characters_look_like_bytes() -> None:
    import transformers
    from tokenizers import AddedToken

    from abstractllm.providers.huggingface.worker.detokenizer import Detokenizer
    from abstractllm.providers.huggingface.worker.token_decoder import TokenDecoder

    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer())
    tokenizer.add_tokens([AddedToken("café", normalized=False)])
    ids = tokenizer("un café", add_special_tokens=False)["input_ids"]
    detokenizer = Detokenizer(TokenDecoder(tokenizer))
    assert "".join(map(detokenizer.push, ids)) == "un café"


def test_a_tokenizer_without_a_description_is_decoded_in_short_windows() -> None:
    assert "".join(pieces("slow", [1, 28, 29, 2])) == "aéb"
    assert pieces("slow", [1, 28, 29, 2])[:3] == ["a", "", "é"]
    assert "".join(pieces("slow", [1, 27, 2])) == "a\ufffdb"
    assert "".join(pieces("slow", [28] * 20)) == "\ufffd" * 20


@pytest.mark.parametrize("kind", [*KINDS, "slow"])
def test_the_work_for_a_token_does_not_grow_with_the_answer(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts the tokens that are decoded, for tokens that are words and for those that are never whole characters."""
    from abstractllm.providers.huggingface.worker.token_decoder import TokenDecoder

    decoded: list[int] = []
    decode = TokenDecoder.decode
    monkeypatch.setattr(TokenDecoder, "decode", lambda self, ids: decoded.append(len(ids)) or decode(self, ids))
    lone = {"byte_level": "Ģ", "byte_level_sequence": "Ģ", "byte_fallback": "<0x80>"}.get(kind)
    token = 28 if kind == "slow" else backend(kind).token_to_id(lone) if lone else backend(kind).encode("quick").ids[-1]
    lengths = []
    for length in (200, 2000):
        decoded.clear()
        assert len("".join(pieces(kind, [token] * length))) >= length
        lengths.append(sum(decoded))
    assert max(decoded, default=0) <= 16
    assert lengths[1] <= 11 * lengths[0] + 100


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_bytes_of_tokens_joined_are_the_texts_bytes(kind: str, data: st.DataObject) -> None:
    from abstractllm.providers.huggingface.worker.detokenizer import Detokenizer

    words = backend(kind).encode(data.draw(st.sampled_from(["", "The quick"]))).ids
    text = data.draw(st.sampled_from(["schöne 你好 🙂 words", "The quick brown fox.", "  two  spaces, 'tis"]))
    ids = backend(kind).encode(text).ids
    detokenizer = Detokenizer(token_decoder(kind), words)
    joined, written = b"", ""
    for id in ids:
        is_text = token_decoder(kind).is_text(id)
        joined += detokenizer.bytes_of(id) if is_text else b""
        written += detokenizer.push(id)
    assert joined == (written + detokenizer.flush()).encode()
    assert detokenizer.bytes_of(1_000_000) == b""
