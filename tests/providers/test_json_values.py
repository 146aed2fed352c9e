"""Values of a provider's JSON in the shapes that servers give them."""

import pytest

from abstractllm import TokenLogprob, TopLogprob
from abstractllm.providers.hosted.json_values import read_count, read_logprobs, text_in


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("hm", "hm"),
        ("h\ud800", "h\ud800"),  # the next piece may hold the other half
        (["h", {"text": "m"}, {"type": "text", "content": [{"text": "!"}]}, 7, None], "hm!"),
        ({"type": "summary", "summary": [{"text": "hm"}]}, "hm"),
        ({"text": "", "thinking": "hm"}, "hm"),
        ({"effort": 3}, ""),
        (None, ""),
        (True, ""),
    ],
)
def test_the_text_in_a_value_is_found(value, text):
    assert text_in(value) == text


@pytest.mark.parametrize(
    ("value", "count"),
    [(3, 3), (3.0, 3), (0, 0), (-1, None), (True, None), (3.5, None), ("3", None), (float("inf"), None), (None, None)],
)
def test_a_count_is_a_whole_number(value, count):
    assert read_count(value) == count


HI = TokenLogprob(-1, "Hi", b"Hi", -0.5)


@pytest.mark.parametrize(
    ("logprobs", "tokens"),
    [
        ({"content": [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}]}, (HI,)),
        ({"content": [{"token": "Hi", "logprob": -0.5, "bytes": None, "top_logprobs": None}]}, (HI,)),
        ({"content": [{"token": "Hi", "logprob": -0.5, "bytes": [700]}]}, (HI,)),
        ({"content": None, "refusal": [{"token": "Hi", "logprob": -0.5}]}, (HI,)),
        ([{"token": "Hi", "logprob": -0.5}], (HI,)),
        ({"content": [{"token": "Hi", "logprob": -0.5, "id": 7}]}, (TokenLogprob(7, "Hi", b"Hi", -0.5),)),
        (
            {"content": [{"token": "Hi", "logprob": -0.5, "top_logprobs": {"Ho": -1.5}}]},
            (TokenLogprob(-1, "Hi", b"Hi", -0.5, (TopLogprob(-1, "Ho", b"Ho", -1.5),)),),
        ),
        (
            {"tokens": ["A", "Hi"], "token_logprobs": [None, -0.5], "top_logprobs": [None, {"Ho": -1.5}]},
            (TokenLogprob(-1, "Hi", b"Hi", -0.5, (TopLogprob(-1, "Ho", b"Ho", -1.5),)),),
        ),
        ({"tokens": ["Hi"], "token_logprobs": [-0.5], "top_logprobs": None}, (HI,)),
        ({"content": [{"token": 5, "logprob": 1}, {"logprob": 1}, "x", None, {"token": "Hi", "logprob": -0.5}]}, (HI,)),
        ({"content": "x"}, ()),
        ({}, ()),
        ("x", ()),
        (None, ()),
    ],
)
def test_log_probabilities_are_read_in_each_form_and_cost_no_answer(logprobs, tokens):
    assert read_logprobs(logprobs) == tokens
