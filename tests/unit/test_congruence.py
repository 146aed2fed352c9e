"""The Python client mirrors the library: names, fields, signatures and exceptions are the same on both sides."""

from __future__ import annotations

import dataclasses
import inspect
from enum import Enum
from typing import Any

import pytest

import abstractllm
import abstractllm.errors
import abstractllm.types
import abstractllm_client
import abstractllm_client.errors
from abstractllm import LLM, AbstractLLMInterface, GenerationOptions
from abstractllm.parameters import GENERATION_PARAMETERS
from abstractllm.validation import OTHER_NAMES
from abstractllm_client import AsyncRemoteLLM, RemoteLLM, _parameters, _requests

# The face of an LLM that callers use.
METHODS = (
    "generate",
    "complete",
    "stream",
    "count_tokens",
    "get_capabilities",
    "get_config",
    "set_config",
    "close",
)
TWINS = tuple(f"{name}_async" for name in METHODS)
CONTEXTS = ("__enter__", "__exit__", "__aenter__", "__aexit__")
# What only a server has, and the client therefore beside the library's methods.
SERVER_METHODS = {
    "list_llms",
    "list_cached_models",
    "clear_model_cache",
    "get_config_and_etag",
    "pull_model",
    "load_model",
    "unload_model",
}
# Only an LLM in this process has these; a server's are loaded and unloaded by the methods above.
LOCAL = {"load", "load_progress", "provider", "state", "unload"}
# The client's connection.
CONNECTION = {"address", "channel", "llm"}
# Keywords that only the client's method takes.
EXTRA = {"set_config": {"etag", "validate_only"}}


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def values(module: Any, kind: type) -> dict[str, Any]:
    """The exported classes of a module that are of a kind, by name."""
    exported = {name: getattr(module, name) for name in module.__all__}
    return {name: value for name, value in exported.items() if isinstance(value, type) and issubclass(value, kind)}


TYPES = {
    name: value
    for module in (abstractllm.types, abstractllm.types)
    for name, value in values(module, object).items()
    if dataclasses.is_dataclass(value)
}
ENUMS = values(abstractllm.types, Enum) | {"ErrorReason": abstractllm.errors.ErrorReason}
# No program meets it over the network: the server checks its configuration when it starts.
ERRORS = {name: kind for name, kind in values(abstractllm.errors, Exception).items() if name != "UnknownProviderError"}


def test_the_same_types_and_errors_are_exported() -> None:
    exported = {*abstractllm.types.__all__, *abstractllm.types.__all__, *abstractllm.errors.__all__}
    library = exported - {"UnknownProviderError"}
    options = {"ClientDefaults", "ConfigValues", "GenerationOptions"}
    assert set(abstractllm_client.__all__) == library | options | {"AsyncRemoteLLM", "RemoteLLM", "__version__"}
    assert abstractllm_client.__version__ == abstractllm.__version__


@pytest.mark.parametrize("name", sorted(TYPES))
def test_a_type_has_the_same_fields(name: str) -> None:
    def described(kind: Any) -> list[tuple[str, str, object]]:
        # Enum values that only a newer server knows come through as numbers.
        return [
            (field.name, str(field.type).replace(" | int", "").replace("int | ", ""), field.default)
            for field in dataclasses.fields(kind)
        ]

    ours, theirs = getattr(abstractllm_client, name), TYPES[name]
    assert list(map(plain, described(ours))) == list(map(plain, described(theirs)))
    assert ours.__dataclass_params__.frozen
    assert public(ours) == public(theirs)


def plain(description: tuple[str, str, object]) -> tuple[str, str, str]:
    """Compares defaults by what they say, as `Usage()` here is not equal to `Usage()` there."""
    name, kind, default = description
    return name, kind, repr(default)


@pytest.mark.parametrize("name", sorted(ENUMS))
def test_an_enum_has_the_same_members(name: str) -> None:
    ours, theirs = getattr(abstractllm_client, name), ENUMS[name]
    assert [(member.name, member.value) for member in ours] == [(member.name, member.value) for member in theirs]
    assert ours.__mro__[1].__name__ == theirs.__mro__[1].__name__


@pytest.mark.parametrize("name", ["Part", "Event", "ResponseFormat"])
def test_a_union_has_the_same_members(name: str) -> None:
    ours, theirs = getattr(abstractllm_client, name), getattr(abstractllm, name)
    assert [kind.__name__ for kind in ours.__args__] == [kind.__name__ for kind in theirs.__args__]


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_an_error_has_the_same_bases_reason_and_attributes(name: str) -> None:
    ours, theirs = getattr(abstractllm_client, name), ERRORS[name]
    assert [base.__name__ for base in ours.__mro__] == [base.__name__ for base in theirs.__mro__]
    assert ours.default_reason == theirs.default_reason
    assert ours.retryable == theirs.retryable
    assert parameters(ours.__init__) == parameters(theirs.__init__)
    assert vars(ours("x")) == vars(theirs("x"))


def parameters(function: Any) -> list[tuple[str, Any, str]]:
    """The parameters of a function: name, kind and default."""
    declared = inspect.signature(function).parameters.values()
    return [(parameter.name, parameter.kind, repr(parameter.default)) for parameter in declared]


@pytest.mark.parametrize("name", [*METHODS, *TWINS, *CONTEXTS])
def test_a_method_has_the_same_signature(name: str) -> None:
    ours, theirs = getattr(RemoteLLM, name), getattr(LLM, name)
    extra = EXTRA.get(name.removesuffix("_async"), set())
    assert [entry for entry in parameters(ours) if entry[0] not in extra] == parameters(theirs)
    assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs)
    assert inspect.signature(ours).return_annotation == inspect.signature(theirs).return_annotation


@pytest.mark.parametrize("name", METHODS)
def test_the_asynchronous_client_has_the_twin_s_signature_under_the_plain_name(name: str) -> None:
    ours, theirs = getattr(AsyncRemoteLLM, name), getattr(RemoteLLM, f"{name}_async")
    assert parameters(ours) == parameters(theirs)
    assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs)


@pytest.mark.parametrize("name", sorted(SERVER_METHODS))
def test_what_only_a_server_has_comes_in_three_kinds_too(name: str) -> None:
    plain, twin, other = getattr(RemoteLLM, name), getattr(RemoteLLM, f"{name}_async"), getattr(AsyncRemoteLLM, name)
    assert parameters(plain) == parameters(twin) == parameters(other)


def test_no_method_is_missing_or_left_over() -> None:
    library = public(LLM) - LOCAL
    assert library == {*METHODS, *TWINS}
    server = SERVER_METHODS | {f"{name}_async" for name in SERVER_METHODS}
    assert public(RemoteLLM) == library | server | CONNECTION
    assert public(AsyncRemoteLLM) == {*METHODS, *SERVER_METHODS, *CONNECTION}


def test_generate_takes_the_same_parameters_and_options() -> None:
    assert _parameters.NAMES == GENERATION_PARAMETERS
    assert _parameters.OTHER_NAMES == OTHER_NAMES
    assert GenerationOptions.__annotations__.keys() == abstractllm_client.GenerationOptions.__annotations__.keys()
    request = {field.name for field in dataclasses.fields(abstractllm.GenerationRequest)}
    # Not options: `whole` says which of the two methods was called, `caller` who asks, `record` how it goes,
    # `retry` whether another LLM stands by, `deadline` when its `timeout` is over.
    not_options = {"prompt", "messages", "system_prompt", "parameters", "timeout"}
    not_options |= {"whole", "caller", "record", "retry", "deadline"}
    assert set(_requests.OPTIONS) == request - not_options


# Arguments that both sides refuse before anything is sent, each with its error and the field that it names.
REFUSED: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((5,), {}),
    (("Hi", 5), {}),
    (("\ud800",), {}),
    (("Hi", "\ud800"), {}),
    (([{"role": "user", "content": "\ud800"}],), {}),
    (([{"role": "robot", "content": "Hi"}],), {}),
    (([{"role": "user"}],), {}),
    (("Hi",), {"temprature": 1}),
    (("Hi",), {"temperature": "hot"}),
    (("Hi",), {"max_tokens": 5, "max_new_tokens": 6}),
    (("Hi",), {"temperature": float("nan")}),
    (("Hi",), {"max_tokens": 1.5}),
    (("Hi",), {"max_tokens": True}),
    (("Hi",), {"seed": 2**63}),
    (("Hi",), {"reasoning_effort": "huge"}),
    (("Hi",), {"response_format": "json"}),
    (("Hi",), {"tools": ["f"]}),
    (("Hi",), {"tool_choice": "auto"}),
    (("Hi",), {"provider_options": 5}),
    (("Hi",), {"labels": 5}),
    (("Hi",), {"request_id": 5}),
    (("Hi",), {"parameters_policy": "ignore"}),
    (("Hi",), {"timeout": 0}),
]


@pytest.mark.parametrize(("arguments", "options"), REFUSED)
def test_both_sides_refuse_the_same_way(arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    def refusal(llm: Any, root: type[Exception]) -> tuple[str, str, object]:
        with pytest.raises(root) as caught:
            llm.generate(*arguments, **options)
        error: Any = caught.value
        return type(error).__name__, str(error.reason), error.field

    from abstractllm.testing import ScriptedProvider

    # Nobody listens there: the client's refusal cannot be the server's.
    remote = refusal(RemoteLLM("127.0.0.1:1"), abstractllm_client.AbstractLLMError)
    assert remote == refusal(ScriptedProvider(), abstractllm.AbstractLLMError)


def test_a_provider_has_two_methods_to_write_and_the_callers_face_is_narrow() -> None:
    assert AbstractLLMInterface.__abstractmethods__ == {"capabilities", "events"}
    assert public(LLM) < public(AbstractLLMInterface)
    assert {"events", "run", "config", "on_change"}.isdisjoint(public(LLM))
