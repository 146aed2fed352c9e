"""Calls for mypy to judge, never run: it must report each line marked `error:`, for the reason there, and no other."""

from collections.abc import AsyncGenerator, Generator, Mapping
from typing import Any, Unpack, assert_type

from abstractllm import (
    LLM,
    AbstractLLMInterface,
    Capabilities,
    ChatMessage,
    Completion,
    ConfigValues,
    Event,
    Finished,
    FinishReason,
    GenerationOptions,
    GenerationRequest,
    JsonSchemaFormat,
    LLMRegistry,
    LlmState,
    LoadProgress,
    ParametersPolicy,
    PullProgress,
    ReasoningEffort,
    Role,
    Text,
    TextDelta,
    Tool,
    ToolChoice,
    ToolChoiceMode,
    UnloadProgress,
    create_llm,
)
from abstractllm.config import LLMConfig
from abstractllm.providers.anthropic import AnthropicConfig
from abstractllm.providers.openai import OpenAIConfig, OpenAIProvider
from abstractllm.testing import ScriptedProvider

llm = create_llm("openai", model="m", temperature=0)
every: GenerationOptions = {
    "model": "m",
    "temperature": 0,
    "top_p": 0.5,
    "top_k": 5,
    "min_p": 0.1,
    "max_tokens": 9,
    "max_new_tokens": 9,
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
    assert_type(llm.count_tokens("Hi", "Be brief.", tools=[Tool("f")], model="m"), int)
    llm.complete("Hi", temperature=None, stop=None, tools=None, timeout=None)
    llm.generate("Hi", **anything)
    llm.generate("Hi", stream=True).close()
    llm.stream("Hi").close()
    with llm as opened:
        opened.close()


async def right_asynchronous_calls(stream: bool) -> None:
    assert_type(await llm.generate_async("Hi", **every), str)
    assert_type(await llm.generate_async("Hi", stream=True), AsyncGenerator[str, None])
    assert_type(await llm.generate_async("Hi", stream=stream), str | AsyncGenerator[str, None])
    assert_type(await llm.complete_async("Hi", seed=1), Completion)
    assert_type(llm.stream_async("Hi", **every), AsyncGenerator[Event, None])
    assert_type(await llm.count_tokens_async("Hi"), int)
    assert_type(await llm.get_capabilities_async(), Capabilities)
    await (await llm.generate_async("Hi", stream=True)).aclose()
    await llm.stream_async("Hi").aclose()
    await llm.load()
    assert_type(llm.load_progress(), AsyncGenerator[LoadProgress, None])
    assert_type(llm.unload(force=True), AsyncGenerator[UnloadProgress, None])
    assert_type(llm.pull(), AsyncGenerator[PullProgress, None])
    await llm.close_async()


def right_wrappers(question: str, answerer: LLM, **options: Unpack[GenerationOptions]) -> str:
    return answerer.generate(question, "Answer in one sentence.", **options)


def right_names() -> None:
    registry = LLMRegistry({"a": OpenAIProvider(), "b": ScriptedProvider()})
    right_wrappers("Hi", registry["a"], temperature=0)
    assert_type(registry["a"].config.timeout, float | None)
    assert_type(llm.state, tuple[LlmState, str])


def misspelt_names() -> None:
    llm.generate("Hi", temprature=0)  # error: call-overload
    llm.generate("Hi", max_token=3)  # error: call-overload
    llm.generate("Hi", stream=True, max_token=3)  # error: call-overload
    llm.complete("Hi", temprature=0)  # error: call-arg
    llm.stream("Hi", max_token=3)  # error: call-arg
    llm.stream_async("Hi", labels={}, label={})  # error: call-arg
    llm.stream("Hi", system="Be brief.")  # error: call-arg
    llm.count_tokens("Hi", tool=[])  # error: call-arg
    right_wrappers("Hi", llm, temprature=0)  # error: call-arg


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
    llm.complete("Hi", 5)  # error: arg-type
    llm.complete(5)  # error: arg-type


async def wrong_asynchronous_calls() -> None:
    await llm.generate_async("Hi", temprature=0)  # error: call-overload
    await llm.generate_async("Hi", timeout="soon")  # error: call-overload
    await llm.complete_async("Hi", max_token=3)  # error: call-arg
    await llm.complete_async("Hi", tools=3)  # error: arg-type
    async for _ in llm.generate_async("Hi", stream=True):  # error: attr-defined
        pass


def configuration() -> None:
    values = llm.get_config()
    assert_type(values, ConfigValues)
    assert_type(values["temperature"], float)
    assert_type(values["base_url"], str)
    assert_type(values["provider_options"], dict[str, Any])
    assert_type(values.get("timeout"), float | None)
    values["max_tokens"] = 5
    llm.set_config(values, temperature=0.5)
    assert_type(llm.set_config({"timeout": None, "parameters": {"seed": 5}}), ConfigValues)
    mapping: Mapping[str, Any] = values
    mapping["temperature"]
    values["temprature"]  # error: typeddict-item
    values["max_tokens"] = "many"  # error: typeddict-item


def capabilities(known: Capabilities) -> dict[str, Any]:
    assert_type(llm.get_capabilities("m"), Capabilities)
    assert_type(known.tools, bool)
    assert_type(known.context_window, int | None)
    assert_type(known.max_tokens, int | None)
    assert_type(known.parameters, tuple[str, ...])
    known["supports_system_prompt"]
    known.get("context_window")
    _ = known.tool  # error: attr-defined
    known.tools = True  # error: misc
    return known


class EchoConfig(LLMConfig):
    prefix: str = ""


class EchoProvider(AbstractLLMInterface[EchoConfig]):
    provider = "echo"
    config_type = EchoConfig

    async def capabilities(self, config: EchoConfig, model: str) -> Capabilities:
        return Capabilities(parameters=("max_tokens",))

    async def events(self, request: GenerationRequest, config: EchoConfig) -> AsyncGenerator[Event, None]:
        assert_type(self.config.prefix, str)
        yield TextDelta(config.prefix + request.conversation()[-1].text)
        yield Finished(FinishReason.STOP)


class PlainProvider(AbstractLLMInterface):
    provider = "plain"

    async def capabilities(self, config: LLMConfig, model: str) -> Capabilities:
        assert_type(self.config, LLMConfig)
        return Capabilities()

    async def events(self, request: GenerationRequest, config: LLMConfig) -> AsyncGenerator[Event, None]:
        yield Finished(FinishReason.STOP)


class WrongProvider(AbstractLLMInterface[EchoConfig]):
    config_type = AnthropicConfig  # error: assignment

    async def capabilities(self, config: OpenAIConfig, model: str) -> Capabilities:  # error: override
        return Capabilities(tool=True)  # error: call-arg


EchoProvider({"prefix": "> "}).generate("Hi")
PlainProvider().generate("Hi")
WrongProvider()  # error: abstract
