"""Generation parameters: what is accepted, and how a refusal names the field, the limit and the value."""

import math
import sys

import pytest

from abstractllm import GenerationParameters, InvalidRequestError, UnsupportedParameterError
from abstractllm.enums import ModelParameter, ReasoningEffort
from abstractllm.parameters import GENERATION_PARAMETERS, parse_parameters

RANGES = [
    ("temperature", 0.0, 2.0, -0.01, 2.01),
    ("top_p", 1e-9, 1.0, 0.0, 1.01),
    ("top_k", 0, 1_000_000, -1, 1_000_001),
    ("min_p", 0.0, 1.0, -0.01, 1.01),
    ("max_tokens", 1, 10_000_000, 0, 10_000_001),
    ("seed", -(2**63), 2**63 - 1, -(2**63) - 1, 2**63),
    ("presence_penalty", -2.0, 2.0, -2.1, 2.1),
    ("frequency_penalty", -2.0, 2.0, -2.1, 2.1),
    ("repetition_penalty", 1e-9, 10.0, 0.0, 10.1),
    ("top_logprobs", 0, 20, -1, 21),
]


@pytest.mark.parametrize(("name", "least", "most", "below", "above"), RANGES)
def test_each_number_is_taken_at_its_ends_and_refused_beyond(name, least, most, below, above):
    for value in (least, most):
        assert getattr(parse_parameters({name: value}), name) == value
    for value in (below, above):
        with pytest.raises(InvalidRequestError) as caught:
            parse_parameters({name: value})
        assert caught.value.field == f"parameters.{name}"
        assert caught.value.requested == repr(value)
        assert caught.value.limit
        assert str(value) in str(caught.value)


@pytest.mark.parametrize("name", ["temperature", "top_p", "min_p", "presence_penalty", "repetition_penalty"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(name, value):
    with pytest.raises(InvalidRequestError) as caught:
        parse_parameters({name: value})
    assert caught.value.field == f"parameters.{name}"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"temperature": "hot"}, "parameters.temperature"),
        ({"max_tokens": 1.5}, "parameters.max_tokens"),
        ({"max_tokens": True}, "parameters.max_tokens"),
        ({"stop": [""]}, "parameters.stop[0]"),
        ({"stop": ["a", "x" * 257]}, "parameters.stop[1]"),
        ({"stop": ["a"] * 17}, "parameters.stop"),
        ({"stop": [1]}, "parameters.stop[0]"),
        ({"logit_bias": {-1: 0.0}}, "parameters.logit_bias[-1]"),
        ({"logit_bias": {5: 101.0}}, "parameters.logit_bias[5]"),
        ({"logit_bias": dict.fromkeys(range(1025), 0.0)}, "parameters.logit_bias"),
        ({"reasoning_effort": "enormous"}, "parameters.reasoning_effort"),
        ({"model": ""}, "parameters.model"),
    ],
)
def test_a_malformed_value_is_refused_by_name(values, field):
    with pytest.raises(InvalidRequestError) as caught:
        parse_parameters(values)
    assert caught.value.field == field


def test_an_unknown_name_is_unsupported():
    with pytest.raises(UnsupportedParameterError, match="max_new_tokens") as caught:
        parse_parameters({"max_new_tokens": 5})
    assert caught.value.field == "parameters.max_new_tokens"


def test_zero_is_a_value_and_none_is_not():
    parameters = parse_parameters({"temperature": 0, "seed": 0, "top_logprobs": 0, "top_p": None})
    assert parameters.set_fields() == {"temperature": 0, "seed": 0, "top_logprobs": 0}


def test_listing_what_is_set_looks_at_values_that_are_set_alone():
    parameters, looks = GenerationParameters(temperature=0.5), 0

    def count(frame, event, argument):
        nonlocal looks
        looks += event == "call"

    sys.setprofile(count)
    try:
        parameters.set_fields()
    finally:
        sys.setprofile(None)
    assert looks < len(GENERATION_PARAMETERS)


def test_keys_may_be_members_of_the_enumeration_and_a_stop_may_be_one_string():
    parameters = parse_parameters({ModelParameter.TEMPERATURE: 0.5, "stop": "END", "reasoning_effort": "low"})
    assert parameters == GenerationParameters(temperature=0.5, stop=("END",), reasoning_effort=ReasoningEffort.LOW)


def test_set_parameters_win_over_defaults():
    defaults = GenerationParameters(temperature=1.0, max_tokens=5)
    assert GenerationParameters(temperature=0.0).over(defaults) == GenerationParameters(temperature=0.0, max_tokens=5)


def test_every_generation_parameter_is_a_member_of_the_key_enumeration():
    assert set(GENERATION_PARAMETERS) <= {str(key) for key in ModelParameter}
