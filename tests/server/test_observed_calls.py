"""The log and the audit of real calls: one line each, however the call ends."""

import asyncio
import hashlib
import logging
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import empty_pb2

from abstractllm.testing import ScriptedProvider
from abstractllm.utils.log_lines import JsonFormatter, TextFormatter
from abstractllm_api.v1 import config_pb2, models_pb2
from tests.server.support import HANG, collect, failure, request, serving
from tests.waiting import until

FORGED = "r1\n2026-01-01T00:00:00.000Z WARNING abstractllm.audit refused\x1b[1A\u202e"


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="abstractllm")


def lines(caplog: pytest.LogCaptureFixture, name: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == name]


async def ended(caplog: pytest.LogCaptureFixture, calls: int) -> list[dict[str, Any]]:
    """Waits until so many calls have ended, and returns the values of their lines."""
    await until(lambda: len(lines(caplog, "abstractllm.call")) >= calls)
    await asyncio.sleep(0.05)
    told = lines(caplog, "abstractllm.call")
    assert len(told) == calls
    return [record.msg.fields for record in told]


async def test_each_call_has_one_line_however_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server:
        generate, stream = server.generation.Generate, server.generation.StreamGenerate
        await generate(request("hello big world", request_id="whole", labels={"team": "blue"}))
        await collect(stream(request("hello big world", request_id="streamed")))
        await failure(generate(request("", request_id="empty")))
        await failure(generate(request("Hi", llm="nobody", request_id="unknown")))
        await failure(generate(request("Hi", script=[{"error": "OVERLOADED"}], request_id="refused")))
        await failure(generate(request("Hi", script=[{"delay": 3000}], request_id="late"), timeout=0.2))
        leaving = stream(request("Hi", script=[{"text": "a"}, {"delay": 3000}], request_id="left"))
        await leaving.read()
        leaving.cancel()
        await server.models.GetCapabilities(models_pb2.GetCapabilitiesRequest(llm="echo"))
        calls = await ended(caplog, 8)
    by_id = {fields.get("request_id", ""): fields for fields in calls}
    whole = by_id["whole"]
    assert (whole["status"], whole["llm"], whole["provider"], whole["model"]) == ("OK", "echo", "scripted", "script")
    assert (whole["input_tokens"], whole["output_tokens"], whole["finish_reason"]) == (3, 3, "stop")
    assert whole["labels"] == {"team": "blue"}
    assert 0 < whole["first_token"] <= whole["seconds"]
    assert whole["caller"].startswith("ipv4:127.0.0.1:")
    ends = {name: (fields["status"], fields.get("error")) for name, fields in by_id.items()}
    assert ends["streamed"] == ("OK", None)
    assert ends["empty"] == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert ends["unknown"] == ("NOT_FOUND", "UNKNOWN_LLM")
    assert (by_id["unknown"]["llm"], by_id[""]["llm"]) == ("nobody", "echo")
    assert ends["refused"] == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert ends["late"][0] == "DEADLINE_EXCEEDED"
    assert ends["left"][0] == "CANCELLED"


async def test_default_llm_is_told_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server:
        models, config = server.models, server.config
        await config.GetConfig(config_pb2.GetConfigRequest())
        await config.SetConfig(config_pb2.SetConfigRequest(validate_only=True))
        await collect(models.LoadModel(models_pb2.LoadModelRequest()))
        await failure(collect(models.UnloadModel(models_pb2.UnloadModelRequest())))
        await failure(collect(models.PullModel(models_pb2.PullModelRequest())))
        await models.GetCapabilities(models_pb2.GetCapabilitiesRequest())
        await failure(server.generation.Generate(request("")))
        calls = await ended(caplog, 7)
    assert [fields.get("llm") for fields in calls] == ["echo"] * 7
    audit = [record.getMessage() for record in lines(caplog, "abstractllm.audit")]
    assert len(audit) == 5
    assert all(" llm=echo" in line for line in audit)


async def test_fault_of_the_server_is_told_under_the_id_that_the_caller_gets(caplog: pytest.LogCaptureFixture) -> None:
    async with serving({"broken": ScriptedProvider({"script": [ValueError("no good")]})}) as server:
        error = await failure(server.generation.Generate(request()))
        (call,) = await ended(caplog, 1)
    (fault,) = (record for record in caplog.records if record.exc_info)
    (info,) = error.infos
    assert call["error"] == error.reason == "INTERNAL"
    assert call["request_id"] == info.metadata["request_id"]
    assert info.metadata["request_id"] in fault.getMessage()
    assert lines(caplog, "abstractllm.call")[0].levelno == logging.ERROR


async def test_deadlines_and_callers_who_leave_cause_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving() as server:
        stall = [{"text": "a"}, {"delay": 3000}]
        for call in (server.generation.Generate, server.generation.StreamGenerate):
            for timeout in (0.001, 0.01, 0.05, 0.1, 0.2):
                answer = call(request(script=stall), timeout=timeout)
                await failure(collect(answer) if call is server.generation.StreamGenerate else answer)
        left = [server.generation.StreamGenerate(request(script=stall)) for _ in range(5)]
        for stream in left:
            await stream.read()
            stream.cancel()
        await until(lambda: server.server.running == 0)
        await asyncio.sleep(0.1)
        await server.works()
    # Nor does a deadline that passes while the server tells of it cost the caller their connection.
    assert not [record for record in caplog.records if "closed the connection" in record.getMessage()]
    assert [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR] == []


async def test_nothing_that_a_caller_or_model_says_leaves_its_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    llm = ScriptedProvider({"log_content": True, "reply": FORGED})
    broken = ScriptedProvider({"script": [ValueError(FORGED)]})
    async with serving({"echo": llm, "broken": broken}) as server:
        message = request(FORGED, request_id=FORGED, labels={FORGED: FORGED}, system_prompt=FORGED)
        await server.generation.Generate(message)
        await failure(server.generation.Generate(request(FORGED, llm=FORGED, request_id=FORGED)))
        await failure(server.generation.Generate(request(FORGED, llm="broken", request_id=FORGED)))
        await failure(server.config.SetConfig(config_pb2.SetConfigRequest(llm=FORGED, etag=FORGED)))
        unknown = server.channel.unary_unary(f"/a.B/{'x' * 5000}", empty_pb2.Empty.SerializeToString)
        await failure(unknown(empty_pb2.Empty()))
        await until(lambda: len(lines(caplog, "abstractllm.call")) >= 5)
    assert any("refused" in record.getMessage() for record in caplog.records)
    for record in caplog.records:
        first, *others = TextFormatter().format(record).split("\n")
        assert first.isprintable() and len(first) < 20_000
        assert all(line.startswith("  | ") and line.isprintable() for line in others)
        assert bool(others) is bool(record.exc_info)
        assert "\n" not in JsonFormatter().format(record)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    entries = {"admin": ("root", "ops"), "inference": ("user", "ci")}
    file.write_text(
        "".join(
            f"{hashlib.sha256(token.encode()).hexdigest()} {role} {name}\n" for role, (token, name) in entries.items()
        )
    )
    file.chmod(0o600)
    return file


async def test_audit_tells_of_administrators_and_of_the_refused(caplog: pytest.LogCaptureFixture, tokens: Path) -> None:
    secret = "canary-system-prompt"
    async with serving(tokens=tokens) as server:

        def known(token: str) -> list[tuple[str, str]]:
            return [("authorization", f"Bearer {token}")]

        change = config_pb2.SetConfigRequest(llm="echo")
        change.config.system_prompt = secret
        await server.config.SetConfig(change, metadata=known("root"))
        clear = models_pb2.ClearCacheRequest(llm="echo", model="a/b", dry_run=True)
        await failure(server.models.ClearCache(clear, metadata=known("root"), timeout=HANG))
        await server.generation.Generate(request(), metadata=known("user"))
        await failure(server.config.SetConfig(change, metadata=known("user")))
        await failure(server.generation.Generate(request(), metadata=known("canary-token")))
        await failure(server.generation.Generate(request()))
        await until(lambda: len(lines(caplog, "abstractllm.audit")) >= 5)
    told = [record.getMessage() for record in lines(caplog, "abstractllm.audit")]
    assert len(told) == 5
    by = "caller=admin:ops role=admin peer="
    assert told[0].startswith(f"admin method=/abstractllm_api.v1.ConfigService/SetConfig status=OK {by}")
    assert told[0].endswith("llm=echo keys=system_prompt")
    assert told[1].endswith("llm=echo target=model cached_model=a/b dry_run=true")
    assert "refused method=/abstractllm_api.v1.ConfigService/SetConfig status=PERMISSION_DENIED" in told[2]
    assert "caller=inference:ci role=inference" in told[2]
    assert all("refused" in line and "status=UNAUTHENTICATED" in line for line in told[3:])
    assert not [record for record in caplog.records if "canary" in record.getMessage()]
