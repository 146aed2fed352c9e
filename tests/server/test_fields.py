"""The conversion by descriptor: each parameter and each key of a configuration has its value in the library."""

import math

import pytest

from abstractllm.config import LLMConfig
from abstractllm.errors import InvalidRequestError
from abstractllm.parameters import GENERATION_PARAMETERS, MOST_ITEMS, parse_parameters
from abstractllm.providers.huggingface.config import HuggingFaceConfig
from abstractllm_api.v1 import config_pb2, models_pb2
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_server.convert.fields import duration, read_fields, to_message
from tests.unit.cli.parameter_values import SAMPLED, value_of


@pytest.mark.parametrize("name", ["model", *SAMPLED])
def test_every_parameter_is_the_same_after_the_way_there_and_back(name: str) -> None:
    values = parse_parameters({name: value_of(name)}).set_fields()
    message = pb.GenerationParameters.FromString(to_message(pb.GenerationParameters, values).SerializeToString())
    assert [field.name for field, _ in message.ListFields()] == [name]
    assert read_fields(message, "parameters") == values == {name: value_of(name)}


def test_the_parameters_of_the_contract_are_those_of_the_library() -> None:
    assert tuple(field.name for field in pb.GenerationParameters.DESCRIPTOR.fields) == GENERATION_PARAMETERS


def test_every_field_of_a_configuration_is_a_key_of_the_library() -> None:
    keys = LLMConfig.model_fields.keys() | HuggingFaceConfig.model_fields.keys()
    assert {field.name for field in config_pb2.LlmConfig.DESCRIPTOR.fields} <= keys


@pytest.mark.parametrize(("name", "most"), MOST_ITEMS.items())
def test_too_many_items_are_refused_before_they_are_decoded(name: str, most: int) -> None:
    message = pb.GenerationParameters()
    field = getattr(message, name)
    for index in range(most + 1):
        if isinstance(value_of(name), dict):
            field[index] = 0.0
        else:
            field.append(str(index))
    with pytest.raises(InvalidRequestError, match=rf"^parameters\.{name}: must have at most {most} items") as caught:
        read_fields(message, "parameters")
    assert caught.value.field == f"parameters.{name}"


@pytest.mark.parametrize("seconds", [0.0, 0.1, 1.9, 2.3, 5.3, 0.000_000_001, 604_799.999_999_999, -0.5])
def test_spans_keep_each_of_their_nanoseconds(seconds: float) -> None:
    message = to_message(config_pb2.LlmConfig, {"timeout": seconds})
    assert message.timeout.ToNanoseconds() == round(seconds * 1e9)
    assert read_fields(message, "config")["timeout"] == seconds
    assert duration(seconds) == message.timeout


@pytest.mark.parametrize("time", [1_732_700_000.25, 1_732_700_000.999_999_9, -0.25])
def test_times_are_as_exact_as_a_number_of_seconds_can_be(time: float) -> None:
    message = to_message(models_pb2.CachedModel, {"last_used_time": time})
    assert message.last_used_time.ToNanoseconds() / 1e9 == pytest.approx(time, abs=1e-6)
    assert message.last_used_time.seconds == math.floor(time)
