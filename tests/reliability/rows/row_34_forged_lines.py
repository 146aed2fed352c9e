"""Row 34: newlines, control characters and ANSI sequences in all that a caller, a model or an upstream may write.

Pass mark: no line of the log, text or JSON, at debug, with the content of requests and without, is forged: every line
begins as the log's own lines do, or with the bar of a line that goes on, and no control character but the newline at
its end comes through.
Load: some thirty calls for each form of the log.
"""

from __future__ import annotations

import json
import re

from google.protobuf import struct_pb2

from abstractllm_api.v1 import config_pb2, config_pb2_grpc, generation_pb2, models_pb2, models_pb2_grpc
from tests.providers.fake_http import Exchange
from tests.reliability.calls import Stub, bearer, request, unary
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.server_process import ServerProcess, echo, serving
from tests.reliability.tokens import ADMIN, token_file
from tests.reliability.upstream import hosted, upstream

_FORGED = "FORGED"
_PAYLOADS = [
    f"x\n2026-01-01 00:00:00,000 ERROR abstractllm.server {_FORGED}",
    f"x\r{_FORGED}\r\n{_FORGED}",
    f"\x1b[2J\x1b[1;31m{_FORGED}\x1b[0m",
    f"\u2028{_FORGED}\u2029{_FORGED}\x85{_FORGED}",
    f"\x0b{_FORGED}\x0c{_FORGED}\x00\x07\x08{_FORGED}",
    f'"}}\n{{"level": "ERROR", "message": "{_FORGED}"}}',
]
_TEXT_LINE = re.compile(r"  \| |\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[^ ]* [A-Z]+ ")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u2028\u2029]")


async def measure(setting: Setting) -> Figures:
    """Writes the payloads into every place, with each form of the log."""
    figures = setting.figures()

    async def refusing(exchange: Exchange) -> None:
        await exchange.respond(
            {"error": {"message": _PAYLOADS[int(exchange.request.json["messages"][-1]["content"])]}}, 500
        )

    async with upstream(refusing) as api:
        for form in ("text", "json"):
            folder = setting.folder / form
            llms = echo(log_content=True) | {"hosted": hosted(api)}
            tokens = str(token_file(folder))
            async with serving(folder, llms, tokens=tokens, log_level="debug", log_format=form) as server:
                for number, payload in enumerate(_PAYLOADS):
                    await _write_everywhere(server, number, payload)
                await server.ends()
            _judge(figures, form, server)
    return figures


async def _write_everywhere(server: ServerProcess, number: int, payload: str) -> None:
    admin = bearer(ADMIN)
    async with server.channel() as channel:
        stub, config, models = (
            Stub(channel),
            config_pb2_grpc.ConfigServiceStub(channel),
            models_pb2_grpc.ModelServiceStub(channel),
        )
        message = generation_pb2.GenerateRequest(
            prompt=payload, request_id=payload[:256], labels={payload[:200]: payload[:200]}
        )
        await unary(stub.Generate(message, metadata=admin))
        message.provider_options.update({"script": [{"text": payload}, {"error": "INTERNAL", "message": payload}]})
        await unary(stub.Generate(message, metadata=admin))
        await unary(stub.Generate(request(str(number), llm="hosted"), metadata=admin))
        await unary(stub.Generate(generation_pb2.GenerateRequest(llm=payload, prompt="x"), metadata=admin))
        tool = generation_pb2.Tool(name=payload[:60], description=payload)
        await unary(stub.Generate(generation_pb2.GenerateRequest(prompt="x", tools=[tool]), metadata=admin))
        update = config_pb2.LlmConfig(system_prompt=payload)
        await unary(config.SetConfig(config_pb2.SetConfigRequest(llm="echo", config=update), metadata=admin))
        await unary(models.ClearCache(models_pb2.ClearCacheRequest(llm="echo", model=payload), metadata=admin))
        options = struct_pb2.Struct()
        options.update({payload[:60]: payload})
        await unary(stub.Generate(generation_pb2.GenerateRequest(prompt="x", provider_options=options), metadata=admin))
        printable = re.sub(r"[^ -~]", "", payload)
        await unary(stub.Generate(request(), metadata=[("authorization", printable), ("traceparent", printable)]))
        await unary(stub.Generate(request(), metadata=[("user-agent", printable), *admin]))
    path = "/abstractllm_api.v1.ConfigService/SetConfig"
    async with server.channel() as channel:
        await unary(channel.unary_unary(path + printable.replace(" ", ""))(b"", metadata=admin))


def _judge(figures: Figures, form: str, server: ServerProcess) -> None:
    written = server.log + (server.folder / "stdout.log").read_text("utf-8", errors="replace")
    lines = [line for line in written.split("\n") if line]
    figures.at_least(f"{form}: lines", len(lines), 20)
    figures.equal(f"{form}: lines with control characters", [line[:80] for line in lines if _CONTROL.search(line)], [])
    if form == "json":
        forged = [line[:80] for line in lines if not _is_object(line)]
        forged += [line[:80] for line in lines if _is_object(line) and json.loads(line).get("message") == _FORGED]
    else:
        forged = [
            line[:80] for line in lines if not _TEXT_LINE.match(line) or f"abstractllm.server {_FORGED}" in line[:80]
        ]
    figures.equal(f"{form}: forged lines", forged, [])


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


ROW = Row(
    numbers=(34,),
    title="newlines, control characters and ANSI in ids, labels, names, paths, errors of an upstream, answers",
    pass_mark="no forged line in any log form",
    measure=measure,
    quick=True,
)
