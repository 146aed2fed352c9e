"""Log-probabilities go with the text that their tokens are part of, and with nothing else."""

from __future__ import annotations

from abstractllm.providers.huggingface.protocol.messages import Logprob
from abstractllm.providers.huggingface.worker.logprobs import LogprobAligner
from abstractllm.providers.huggingface.worker.parsing.answer_parser import TextPiece


def logprob(token: int) -> Logprob:
    return Logprob(token, b"", -1.0, ())


def tokens(logprobs: tuple[Logprob, ...]) -> list[int]:
    return [logprob.token_id for logprob in logprobs]


def test_each_token_is_sent_with_the_text_that_it_begins_in() -> None:
    aligner = LogprobAligner()
    for token, (begin, end) in enumerate([(0, 2), (2, 5), (5, 6)]):
        aligner.add(begin, end, logprob(token))
    aligner.assign(TextPiece("abcdef", 0, 6))
    assert tokens(aligner.take(3)) == [0, 1]
    assert tokens(aligner.take(2)) == []
    assert tokens(aligner.take(1)) == [2]


def test_tokens_of_reasoning_and_of_calls_are_left_out() -> None:
    aligner = LogprobAligner()
    for token, (begin, end) in enumerate([(0, 8), (8, 10), (10, 12), (12, 20), (20, 22)]):
        aligner.add(begin, end, logprob(token))
    # Reasoning up to 9, so that the second token is a part of both; a call from 12 to 20.
    aligner.assign(TextPiece("bcd", 9, 12))
    aligner.assign(TextPiece("ef", 20, 22))
    assert tokens(aligner.take(3)) == [1, 2]
    assert tokens(aligner.take(2)) == [4]


def test_tokens_that_write_nothing_go_with_the_text_behind_them_or_with_the_end() -> None:
    aligner = LogprobAligner()
    aligner.add(0, 0, logprob(0))  # the first byte of a character
    aligner.add(0, 1, logprob(1))
    aligner.assign(TextPiece("é", 0, 1))
    assert tokens(aligner.take(1)) == [0, 1]
    aligner.add(1, 1, logprob(2))
    aligner.assign_rest(1)
    assert tokens(aligner.take(0)) == []
    assert tokens(aligner.take(0, is_last=True)) == [2]


def test_text_that_is_held_back_holds_its_tokens_back() -> None:
    aligner = LogprobAligner()
    aligner.add(0, 4, logprob(0))
    aligner.assign(TextPiece("abcd", 0, 4))
    assert tokens(aligner.take(0)) == []
    assert tokens(aligner.take(4)) == [0]


def test_tokens_of_what_cannot_become_text_are_dropped_and_no_others() -> None:
    aligner = LogprobAligner()
    for token, (begin, end) in enumerate([(0, 8), (8, 10), (10, 12), (12, 12)]):
        aligner.add(begin, end, logprob(token))
    aligner.drop(9)
    aligner.assign(TextPiece("bc", 9, 11))
    aligner.drop(11)
    aligner.assign(TextPiece("de", 11, 13))
    assert tokens(aligner.take(4)) == [1, 2, 3]
