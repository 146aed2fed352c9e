"""Secrets and content that are planted everywhere turn up nowhere: in no error, log, trace, metric or reflection."""

import asyncio
import hashlib
import json
import re
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from grpc import aio
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from abstractllm_api.v1 import (
    config_pb2,
    config_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
)
from tests.providers import fake_http
from tests.providers.fake_http import Exchange
from tests.server.otlp_collector import collecting
from tests.server.support import HANG
from tests.server.test_traces import sending_to, started
from tests.waiting import until

KEYS = {
    "openai": "sk-canarykey-openai-0123456789",
    "anthropic": "sk-canarykey-anthropic-0123456789",
    "ollama": "canarykey-ollama-0123456789",
    "header": "canarykey-header-0123456789",
    "token": "canarykey-token-0123456789",
    "wrong": "canarykey-wrong-0123456789",
}
CONTENT = "canarytext"
STATUSES = (200, 307, 400, 401, 403, 404, 413, 429, 500, 503, 529)
WAYS = ("echo", "stream", "breakoff", "nonsense")


def chat_answer(path: str) -> list[str]:
    """The beginning of an answer, in the dialect of the path."""
    if path == "/v1/chat/completions":
        choice = {"index": 0, "delta": {"content": CONTENT}, "finish_reason": None}
        return [f"data: {json.dumps({'id': '1', 'model': 'm', 'choices': [choice]})}\n\n"]
    if path == "/v1/messages":
        message = {"id": "1", "role": "assistant", "content": [], "usage": {"input_tokens": 1, "output_tokens": 1}}
        return [
            f"event: message_start\ndata: {json.dumps({'type': 'message_start', 'message': message})}\n\n",
            "event: content_block_delta\ndata: "
            + json.dumps({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": CONTENT}})
            + "\n\n",
        ]
    return [json.dumps({"model": "m", "message": {"role": "assistant", "content": CONTENT}, "done": False}) + "\n"]


async def hostile(exchange: Exchange) -> None:
    """Plays an API that repeats the key and the prompt in whatever it answers; the prompt says how."""
    request = exchange.request
    told = f"{request.headers} {request.path} {request.body.decode()}"
    path = request.path.partition("?")[0]
    match = re.search(r"way:(\w+):(\d+)", told)
    way, code = (match[1], int(match[2])) if match else ("echo", 200)
    error = {"error": {"message": told, "type": told[:2000], "code": told[:2000], "param": told[:2000]}}
    if code != 200:
        headers = {"Location": "http://127.0.0.1:1/" + request.headers.get("authorization", "").split(" ")[-1]}
        await exchange.respond(error if way == "echo" else told, code, headers)
    elif way == "echo":
        await exchange.respond(error)
    else:
        await exchange.start()
        for piece in chat_answer(path):
            await exchange.send(piece)
        if way == "stream":
            await exchange.send(
                f"data: {json.dumps(error)}\n\n" if path.startswith("/v1") else json.dumps(error) + "\n"
            )
            await exchange.end()
        elif way == "nonsense":
            await exchange.send(f"data: {told}\n\n" if path.startswith("/v1") else told + "\n")
            await exchange.end()
        else:
            exchange.reset()


async def outcome(call: Any) -> bytes:
    """Returns all that a caller sees of a call, answers and errors."""
    try:
        if hasattr(call, "__aiter__"):
            return b"".join([message.SerializeToString() async for message in call])
        return (await call).SerializeToString()
    except aio.AioRpcError as error:
        trailers = b"".join(
            value if isinstance(value, bytes) else value.encode() for _, value in error.trailing_metadata() or ()
        )
        return f"{error.details()} {error.debug_error_string()}".encode() + trailers


async def reflected(channel: aio.Channel) -> bytes:
    """Returns all that reflection tells."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    async def ask(**question: str) -> Any:
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**question)]), metadata=KNOWN)
        return await anext(aiter(call))

    services = await ask(list_services="")
    names = [service.name for service in services.list_services_response.service]
    answers = [services, *[await ask(file_containing_symbol=name) for name in names]]
    return b"".join(answer.SerializeToString() for answer in answers)


def page(address: str, path: str) -> bytes:
    """Returns a page of the server's monitoring, whatever its status."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=HANG) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        return error.read()


PAGES = ("/metrics", "/livez", "/readyz", "/")
KNOWN = [("authorization", f"Bearer {KEYS['token']}")]


async def test_neither_keys_nor_content_turn_up(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{hashlib.sha256(KEYS['token'].encode()).hexdigest()} admin ops\n")
    tokens.chmod(0o600)
    with collecting() as collector:
        async with fake_http.serving(hostile) as apis:
            common = {"model": "m", "max_retries": 0, "extra_headers": {"x-secret": KEYS["header"]}}
            llms = {
                "openai": common | {"provider": "openai", "base_url": f"{apis.url}/v1", "api_key": KEYS["openai"]},
                "anthropic": common | {"provider": "anthropic", "base_url": apis.url, "api_key": KEYS["anthropic"]},
                "ollama": common | {"provider": "ollama", "base_url": apis.url, "api_key": KEYS["ollama"]},
                "best": {"provider": "fallback", "llms": ["openai", "anthropic", "ollama"]},
            }
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                monitoring = f"127.0.0.1:{free.getsockname()[1]}"
            options = {"tokens": str(tokens), "log_format": "text", "monitoring": monitoring}
            variables = sending_to(
                collector, GRPC_VERBOSITY="debug", GRPC_TRACE="http", OPENAI_LOG="debug", ANTHROPIC_LOG="debug"
            )
            async with (
                started(tmp_path, llms, options, **variables) as server,
                aio.insecure_channel(server.address, [("grpc.enable_retries", 0)]) as channel,
            ):
                generation = generation_pb2_grpc.GenerationServiceStub(channel)
                models = models_pb2_grpc.ModelServiceStub(channel)
                config = config_pb2_grpc.ConfigServiceStub(channel)
                seen = b""
                calls = []
                for llm in llms:
                    for way in WAYS:
                        for status in STATUSES if way in ("echo", "nonsense") else (200,):
                            question = generation_pb2.GenerateRequest(
                                llm=llm, prompt=f"way:{way}:{status} {CONTENT}", system_prompt=CONTENT
                            )
                            calls.append(generation.Generate(question, metadata=KNOWN, timeout=HANG))
                            calls.append(generation.StreamGenerate(question, metadata=KNOWN, timeout=HANG))
                    count = generation_pb2.CountTokensRequest(llm=llm, prompt=f"way:echo:401 {CONTENT}")
                    calls.append(generation.CountTokens(count, metadata=KNOWN, timeout=HANG))
                    calls.append(models.GetCapabilities(models_pb2.GetCapabilitiesRequest(llm=llm), metadata=KNOWN))
                    calls.append(config.GetConfig(config_pb2.GetConfigRequest(llm=llm), metadata=KNOWN))
                    calls.append(models.PullModel(models_pb2.PullModelRequest(llm=llm), metadata=KNOWN))
                    calls.append(models.LoadModel(models_pb2.LoadModelRequest(llm=llm), metadata=KNOWN))
                    calls.append(models.ClearCache(models_pb2.ClearCacheRequest(llm=llm), metadata=KNOWN))
                change = config_pb2.SetConfigRequest(llm="openai")
                change.config.system_prompt = CONTENT
                change.config.provider_options.update({CONTENT: CONTENT})
                calls.append(config.SetConfig(change, metadata=KNOWN))
                calls.append(models.ListLlms(models_pb2.ListLlmsRequest(), metadata=KNOWN))
                hello = generation_pb2.GenerateRequest(prompt=CONTENT)
                wrong = (f"Bearer {KEYS['wrong']}", KEYS["wrong"], f"Basic {KEYS['wrong']}", "Bearer")
                calls += [generation.Generate(hello, metadata=[("authorization", value)]) for value in wrong]
                calls.append(
                    generation.Generate(hello, metadata=[*KNOWN, ("authorization", f"Bearer {KEYS['wrong']}")])
                )
                count = len(calls)
                seen += b"".join(await asyncio.gather(*map(outcome, calls)))
                seen += await reflected(channel)
                pages = b"".join([await asyncio.to_thread(page, monitoring, path) for path in PAGES])
                await until(lambda: len(collector.named("abstractllm_api.v1.GenerationService/Generate")) > 50)
        log = (tmp_path / "log").read_bytes()
    assert count > 150 and len(apis.requests) > 100
    assert log.count(b"/abstractllm_api.v1.GenerationService/Generate") > 50
    assert b"authorization" in log, "gRPC traces headers"
    assert b"gen_ai_client_operation_duration" in pages
    for name, key in KEYS.items():
        places = {"log": log, "traces": collector.raw, "metrics": pages, "what callers see": seen}
        assert [place for place, text in places.items() if key.encode() in text] == [], name
    for text in (log, collector.raw, pages):
        assert CONTENT.encode() not in text
