"""The line of each call, and the audit: told by what the record holds, never by content."""

import json
import logging

import pytest

from abstractllm.call_record import CallRecord
from abstractllm.errors import (
    AbstractLLMError,
    AuthenticationError,
    EngineCrashedError,
    GenerationTimeoutError,
    InternalError,
    InvalidRequestError,
    OverloadedError,
    PermissionDeniedError,
)
from abstractllm.types import Attempt
from abstractllm.utils.log_lines import JsonFormatter, TextFormatter
from abstractllm_server.telemetry.audit import Audit
from abstractllm_server.telemetry.call_log import CallLog
from abstractllm_server.telemetry.observer import CallObservers

GENERATE = "/abstractllm_api.v1.GenerationService/Generate"
SET_CONFIG = "/abstractllm_api.v1.ConfigService/SetConfig"
FORGED = "r\n2026-01-01T00:00:00.000Z INFO abstractllm.audit forged\x1b[2K"


def record(method: str = GENERATE, error: AbstractLLMError | None = None, **facts: object) -> CallRecord:
    made = CallRecord(method=method, peer="ipv4:127.0.0.1:5000", caller="inference:ci", role="inference", error=error)
    for name, value in facts.items():
        setattr(made, name, value)
    made.ended_at = made.arrived_at + 1.5
    return made


def log_of(caplog: pytest.LogCaptureFixture, *records: CallRecord) -> list[logging.LogRecord]:
    caplog.set_level(logging.DEBUG, logger="abstractllm")
    observers = [CallLog(), Audit([SET_CONFIG])]
    for call in records:
        for observer in observers:
            observer.started(call, [])
        for observer in observers:
            observer.ended(call)
    return caplog.records


def test_line_tells_who_called_what_and_how_it_went(caplog: pytest.LogCaptureFixture) -> None:
    call = record(
        status="OK",
        request_id="r 1",
        labels={"team": "blue"},
        llm="local",
        provider="huggingface",
        model="demo",
        finish_reason="stop",
        input_tokens=5,
        output_tokens=7,
        queued=0.25,
        prefill=0.125,
        decode=0.5,
        attempts=(Attempt("a", "p", "m", "", "", 0.1),) * 2,
    )
    call.first_token_at = call.arrived_at + 0.375
    (line,) = log_of(caplog, call)
    assert (line.levelno, line.name) == (logging.INFO, "abstractllm.call")
    assert TextFormatter().format(line).split(" abstractllm.call ")[1] == (
        f"call method={GENERATE} status=OK caller=inference:ci peer=ipv4:127.0.0.1:5000 "
        'request_id="r 1" llm=local provider=huggingface model=demo finish_reason=stop input_tokens=5 output_tokens=7 '
        "attempts=2 queued=0.25 prefill=0.125 decode=0.5 first_token=0.375 seconds=1.5 labels.team=blue"
    )
    values = json.loads(JsonFormatter().format(line))
    assert (values["message"], values["output_tokens"], values["seconds"]) == ("call", 7, 1.5)
    assert values["labels"] == {"team": "blue"}


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (None, logging.INFO),
        (InvalidRequestError("secret words", field="prompt"), logging.INFO),
        (GenerationTimeoutError("secret words"), logging.INFO),
        (OverloadedError("secret words"), logging.WARNING),
        (EngineCrashedError("secret words"), logging.ERROR),
        (InternalError("secret words"), logging.ERROR),
    ],
)
def test_level_says_whose_fault_it_was_and_messages_stay_out(
    caplog: pytest.LogCaptureFixture, error: AbstractLLMError | None, level: int
) -> None:
    (line,) = log_of(caplog, record(error=error, status="X"))
    assert line.levelno == level
    assert "secret" not in line.getMessage()
    assert (f"error={error.reason}" in line.getMessage()) if error else ("error" not in line.getMessage())


def test_probes_are_told_at_debug_level_unless_the_server_is_at_fault(caplog: pytest.LogCaptureFixture) -> None:
    lines = log_of(
        caplog,
        record("/grpc.health.v1.Health/Check", status="OK"),
        record("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", status="OK"),
        record("/grpc.health.v1.Health/Check", error=InvalidRequestError("no"), status="INVALID_ARGUMENT"),
        record("/grpc.health.v1.Health/Check", error=InternalError("no"), status="INTERNAL"),
    )
    assert [line.levelno for line in lines] == [logging.DEBUG, logging.DEBUG, logging.DEBUG, logging.ERROR]


def test_forged_values_stay_in_their_line(caplog: pytest.LogCaptureFixture) -> None:
    call = record(
        FORGED, request_id=FORGED, llm=FORGED, model=FORGED, provider=FORGED, caller=FORGED, labels={FORGED: FORGED}
    )
    refused = record(FORGED, AuthenticationError(FORGED), caller=FORGED)
    admin = record(SET_CONFIG, changes={"llm": FORGED, "keys": FORGED})
    for line in log_of(caplog, call, refused, admin):
        assert TextFormatter().format(line).isprintable()
        assert "\n" not in JsonFormatter().format(line)


def test_texts_of_a_caller_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    long = "x" * 1_000_000
    call = record(long, request_id=long, llm=long, labels={f"{number}{long}": long for number in range(100)})
    (line,) = log_of(caplog, call)
    assert len(line.getMessage()) < 20_000


def test_audit_tells_each_call_of_an_administrator(caplog: pytest.LogCaptureFixture) -> None:
    change = {"llm": "local", "keys": "system_prompt,parameters.temperature"}
    lines = log_of(
        caplog,
        record(SET_CONFIG, caller="admin:ops", role="admin", status="OK", changes=change),
        record(SET_CONFIG, InvalidRequestError("no"), caller="admin:ops", role="admin", status="INVALID_ARGUMENT"),
        record(GENERATE, status="OK"),
    )
    audit = [line.getMessage() for line in lines if line.name == "abstractllm.audit"]
    assert audit == [
        f"admin method={SET_CONFIG} status=OK caller=admin:ops role=admin peer=ipv4:127.0.0.1:5000 llm=local "
        "keys=system_prompt,parameters.temperature",
        f"admin method={SET_CONFIG} status=INVALID_ARGUMENT caller=admin:ops role=admin peer=ipv4:127.0.0.1:5000 "
        "error=INVALID_REQUEST",
    ]


def test_audit_tells_who_was_refused_and_why(caplog: pytest.LogCaptureFixture) -> None:
    lines = log_of(
        caplog,
        record(GENERATE, AuthenticationError("authorization: the token is not known"), caller="", role=""),
        record(SET_CONFIG, PermissionDeniedError("SetConfig needs the role admin"), status="PERMISSION_DENIED"),
    )
    audit = [(line.levelno, line.getMessage()) for line in lines if line.name == "abstractllm.audit"]
    assert audit == [
        (
            logging.WARNING,
            f"refused method={GENERATE} peer=ipv4:127.0.0.1:5000 error=UNAUTHENTICATED "
            'because="authorization: the token is not known"',
        ),
        (
            logging.WARNING,
            f"refused method={SET_CONFIG} status=PERMISSION_DENIED caller=inference:ci role=inference "
            'peer=ipv4:127.0.0.1:5000 error=NOT_ALLOWED because="SetConfig needs the role admin"',
        ),
    ]


def test_strangers_cannot_fill_the_log_and_the_rest_is_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("abstractllm_server.telemetry.rate_limit.time.monotonic", lambda: now[0])
    caplog.set_level(logging.INFO, logger="abstractllm")
    audit = Audit([])
    stranger = record(error=AuthenticationError("no"))
    for _ in range(10_000):
        audit.ended(stranger)
    assert len(caplog.records) == 100
    now[0] += 0.1
    audit.ended(stranger)
    assert len(caplog.records) == 101
    assert "unlogged=9900" in caplog.records[-1].getMessage()
    for _ in range(10_000):
        audit.ended(stranger)
    assert len(caplog.records) == 102


class Faulty:
    """An observer that fails at each call."""

    def started(self, record: CallRecord, metadata: object) -> None:
        raise ValueError("cannot begin")

    def ended(self, record: CallRecord) -> None:
        raise ValueError("cannot end")


def test_fault_of_one_observer_costs_neither_the_call_nor_the_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="abstractllm")
    observers = CallObservers([Faulty(), CallLog()])
    for _ in range(3):
        call = record()
        observers.started(call, ())
        observers.ended(call)
    names = [told.name for told in caplog.records if told.levelno >= logging.INFO]
    assert names == ["abstractllm.server", *["abstractllm.call"] * 3]
    assert caplog.records[0].getMessage() == "Faulty failed; further faults of it are not told"
