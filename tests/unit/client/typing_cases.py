"""Calls for mypy to judge, never run: it must report each line marked `error:`, for the reason there, and no other."""

from collections.abc import AsyncGenerator, Generator, Mapping
from typing import Any, Unpack, assert_type

from abstractllm_client import (
    AsyncRemoteLLM,
    Capabilities,
    ChatMessage,
    ClientDefaults,
    Completion,
    ConfigValues,
    Event,
    GenerationOptions,
    JsonSchemaFormat,
    LlmState,
    LoadProgress,
    ParametersPolicy,
    PullProgress,
    ReasoningEffort,
    RemoteLLM,
    Role,
    Text,
    Tool,
    ToolChoice,
    ToolChoiceMode,
    UnloadProgress,
)

llm = RemoteLLM("localhost:1")
every: GenerationOptions = {
    "model": "m",
    "temperature": 0,
    "top_p": 0.5,
    "top_k": 5,
    "min_p": 0.1,
    "max_tokens": 9,
    "seed": 3,
    "presence_penalty": -1,
    "frequency_penalty": 1.5,
    "repetition_penalty": 1.1,
    "stop": ["a", "b"],
    "logit_bias": {7: -100},
    "top_logprobs": 0,
    "reasoning_effort": ReasoningEffort.HIGH,
    "response_format": JsonSchemaFormat("{}"),
    "tools": [Tool("f")],
    "tool_choice": ToolChoice(mode=ToolChoiceMode.REQUIRED),
    "provider_options": {"n": 1, "deep": {"list": [1.5, None]}},
    "request_id": "r1",
    "labels": {"team": "blue"},
    "parameters_policy": ParametersPolicy.REJECT,
    "timeout": 30,
}


def right_calls(stream: bool, anything: dict[str, Any]) -> None:
    assert_type(llm.generate("Hi"), str)
    assert_type(llm.generate("Hi", temperature=0, max_tokens=3, tools=(Tool("f"),), timeout=0.5), str)
    assert_type(llm.generate("Hi", "Be brief.", False, stop="."), str)
    assert_type(llm.generate([{"role": "user", "content": "Hi"}], stream=True), Generator[str, None, None])
    assert_type(llm.generate([ChatMessage(Role.USER, (Text("Hi"),))], stream=stream), str | Generator[str, None, None])
    assert_type(llm.generate("Hi", **every), str)
    assert_type(llm.complete("Hi", reasoning_effort="low", parameters_policy="drop_unsupported"), Completion)
    assert_type(llm.stream("Hi", **every), Generator[Event, None, None])
    llm.complete("Hi", temperature=None, stop=None, tools=None, timeout=None)
    llm.generate("Hi", **anything)
    RemoteLLM("localhost:1", "gpt", token=None, temperature=0, timeout=30, system_prompt="Be brief.", tools=[Tool("f")])
    RemoteLLM("localhost:1", "gpt", tls=True, **every)
    llm.generate("Hi", stream=True).close()
    llm.stream("Hi").close()
    llm.pull_model("m").close()
    assert_type(llm.pull_model(), Generator[PullProgress, None, None])
    assert_type(llm.load_model(), Generator[LoadProgress, None, None])
    assert_type(llm.unload_model(force=True), Generator[UnloadProgress, None, None])


async def right_asynchronous_calls(other: AsyncRemoteLLM) -> None:
    assert_type(await other.generate("Hi", temperature=0), str)
    assert_type(await llm.generate_async("Hi", **every), str)
    assert_type(await other.generate("Hi", stream=True), AsyncGenerator[str, None])
    assert_type(await llm.generate_async("Hi", stream=True), AsyncGenerator[str, None])
    assert_type(other.stream("Hi", **every), AsyncGenerator[Event, None])
    assert_type(await llm.complete_async("Hi", seed=1), Completion)
    await (await other.generate("Hi", stream=True)).aclose()
    await llm.stream_async("Hi").aclose()
    await other.pull_model().aclose()
    await llm.load_model_async().aclose()
    await llm.unload_model_async().aclose()


def right_wrappers(question: str, defaults: ClientDefaults, **options: Unpack[GenerationOptions]) -> str:
    return RemoteLLM("localhost:1", **defaults).generate(question, "Answer in one sentence.", **options)


def misspelt_names() -> None:
    llm.generate("Hi", temprature=0)  # error: call-overload
    llm.generate("Hi", stream=True, max_token=3)  # error: call-overload
    llm.complete("Hi", temprature=0)  # error: call-arg
    llm.stream("Hi", max_token=3)  # error: call-arg
    llm.stream_async("Hi", labels={}, label={})  # error: call-arg
    llm.stream("Hi", system="Be brief.")  # error: call-arg
    RemoteLLM("localhost:1", temprature=0)  # error: call-arg
    AsyncRemoteLLM("localhost:1", max_token=3)  # error: call-arg


def wrong_values() -> None:
    llm.generate("Hi", tools=3)  # error: call-overload
    llm.generate("Hi", timeout="soon")  # error: call-overload
    llm.generate("Hi", temperature="0")  # error: call-overload
    llm.complete("Hi", max_tokens=1.5)  # error: arg-type
    llm.complete("Hi", tools="f")  # error: arg-type
    llm.complete("Hi", logit_bias={"a": 1})  # error: dict-item
    llm.complete("Hi", stop=5)  # error: arg-type
    llm.complete("Hi", response_format="json")  # error: arg-type
    llm.complete("Hi", tool_choice="auto")  # error: arg-type
    llm.complete("Hi", labels={"a": 5})  # error: dict-item
    llm.complete("Hi", reasoning_effort=5)  # error: arg-type
    llm.stream("Hi", timeout="soon")  # error: arg-type
    RemoteLLM("localhost:1", temperature="hot")  # error: arg-type
    RemoteLLM("localhost:1", timeout="soon")  # error: arg-type
    llm.complete("Hi", 5)  # error: arg-type
    llm.complete(5)  # error: arg-type


async def wrong_asynchronous_calls(other: AsyncRemoteLLM) -> None:
    await other.generate("Hi", temprature=0)  # error: call-overload
    await other.complete("Hi", max_token=3)  # error: call-arg
    await other.complete("Hi", tools=3)  # error: arg-type
    await llm.generate_async("Hi", timeout="soon")  # error: call-overload
    await llm.complete_async("Hi", temprature=0)  # error: call-arg
    async for _ in other.generate("Hi", stream=True):  # error: attr-defined
        pass


def configuration() -> None:
    values, etag = llm.get_config_and_etag()
    assert_type(llm.get_config(), ConfigValues)
    assert_type(values["temperature"], float)
    assert_type(values["provider_options"], dict[str, Any])
    assert_type(values.get("timeout"), float | None)
    values["max_tokens"] = 5
    llm.set_config(values, etag=etag, temperature=0.5)
    assert_type(llm.set_config({"timeout": None, "parameters": {"seed": 5}}), ConfigValues)
    mapping: Mapping[str, Any] = values
    mapping["temperature"]
    values["temprature"]  # error: typeddict-item
    values["max_tokens"] = "many"  # error: typeddict-item


def capabilities(known: Capabilities) -> dict[str, Any]:
    assert_type(llm.get_capabilities("m"), Capabilities)
    assert_type(known.tools, bool)
    assert_type(known.context_window, int | None)
    assert_type(known.parameters, tuple[str, ...])
    known["tools"]
    known.get("context_window")
    _ = known.tool  # error: attr-defined
    known.tools = True  # error: misc
    return known


def states() -> None:
    assert_type(llm.list_llms()[0].state, LlmState | int)
