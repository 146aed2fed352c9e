"""Health tells the truth: alive at once, ready when the default LLM is, each LLM by its name."""

import asyncio
from typing import Any

import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from abstractllm import create_llm
from abstractllm.testing import ScriptedProvider
from abstractllm_api.v1 import models_pb2
from tests.server.support import HANG, Serving, failure, request, serving
from tests.waiting import until

Status = HealthCheckResponse.ServingStatus.Name


async def health(served: Serving, service: str) -> str:
    return Status((await served.health.Check(HealthCheckRequest(service=service), timeout=HANG)).status)


async def healths(served: Serving) -> dict[str, str]:
    answer = await served.health.List(health_pb2.HealthListRequest(), timeout=HANG)
    return {name: Status(health.status) for name, health in answer.statuses.items()}


class Gated(ScriptedProvider):
    """Loads when the test says so."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__({"load_delay": 0.001, "load_error": "no such weights" if fails else None})
        self.gate = asyncio.Event()

    async def load(self) -> None:
        if self.state[0] != "ready":
            self._become(type(self.state[0]).LOADING, "waits for its gate")
        await self.gate.wait()
        await super().load()


async def test_alive_at_once_and_ready_when_the_default_llm_is() -> None:
    slow = Gated()
    async with serving({"slow": slow, "quick": ScriptedProvider()}) as served:
        assert await healths(served) == {
            "liveness": "SERVING",
            "": "NOT_SERVING",
            "llm/slow": "NOT_SERVING",
            "llm/quick": "SERVING",
        }
        for service, status in (await healths(served)).items():
            assert await health(served, service) == status
        slow.gate.set()
        await until(lambda: slow.state[0] == "ready")
        assert set((await healths(served)).values()) == {"SERVING"}


async def test_watch_sees_each_change() -> None:
    slow = Gated()
    async with serving({"slow": slow}) as served:
        watches = [served.health.Watch(HealthCheckRequest(service=name)) for name in ("", "llm/slow", "nobody")]
        assert [Status((await watch.read()).status) for watch in watches] == [
            "NOT_SERVING",
            "NOT_SERVING",
            "SERVICE_UNKNOWN",
        ]
        slow.gate.set()
        assert [Status((await watch.read()).status) for watch in watches[:2]] == ["SERVING", "SERVING"]
        stopping = asyncio.create_task(served.server.stop(HANG))
        assert [Status((await watch.read()).status) for watch in watches[:2]] == ["NOT_SERVING", "NOT_SERVING"]
        await asyncio.wait_for(stopping, HANG)


async def test_llm_that_cannot_be_loaded_is_not_serving_and_says_why() -> None:
    broken = ScriptedProvider({"load_error": "no such weights"})
    async with serving({"broken": broken, "other": ScriptedProvider()}) as served:
        await until(lambda: broken.state[0] == "failed")
        assert await healths(served) == {
            "liveness": "SERVING",
            "": "NOT_SERVING",
            "llm/broken": "NOT_SERVING",
            "llm/other": "SERVING",
        }
        error = await failure(served.generation.Generate(request()))
        assert (error.code.name, error.reason) == ("FAILED_PRECONDITION", "MODEL_LOAD_FAILED")
        assert "no such weights" in error.message


async def test_load_that_fails_in_a_way_of_its_own_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(ScriptedProvider):
        async def load(self) -> None:
            raise OSError("the disk is gone")

    async with serving({"odd": Odd(), "echo": ScriptedProvider()}):
        await until(lambda: "the disk is gone" in caplog.text)


async def test_idle_llm_that_a_request_would_load_is_serving() -> None:
    idle = ScriptedProvider({"load_delay": 0.01})
    async with serving({"echo": ScriptedProvider(), "idle": idle}) as served:
        assert idle.state[0] == "unloaded"
        assert await health(served, "llm/idle") == "SERVING"


async def test_unknown_service_is_not_found(served: Serving) -> None:
    for name in ("echo", "llm/", "llm/nobody", "liveness "):
        assert (await failure(served.health.Check(HealthCheckRequest(service=name)))).code.name == "NOT_FOUND"


async def test_draining_server_says_so_and_still_answers_health() -> None:
    async with serving() as served:
        stream = served.generation.StreamGenerate(request(script=[{"text": "x"}, {"delay": 3000}]))
        await stream.read()
        stopping = asyncio.create_task(served.server.stop(HANG))
        await asyncio.sleep(0)
        assert await healths(served) == {"liveness": "SERVING", "": "NOT_SERVING", "llm/echo": "NOT_SERVING"}
        stream.cancel()
        await asyncio.wait_for(stopping, HANG)


async def test_states_of_an_llm_after_the_server_has_stopped_disturb_nobody() -> None:
    llm = Gated()
    async with serving({"echo": llm}):
        pass
    llm.gate.set()
    await llm.load()
    assert llm.state[0] == "ready"


async def test_every_watcher_is_told_of_the_stop_before_its_call_ends() -> None:
    async with serving({"ready": ScriptedProvider()}) as served:
        watches = [served.health.Watch(HealthCheckRequest()) for _ in range(100)]
        assert {Status((await watch.read()).status) for watch in watches} == {"SERVING"}
        stopping = asyncio.create_task(served.server.stop(HANG))
        assert {Status((await watch.read()).status) for watch in watches} == {"NOT_SERVING"}
        await asyncio.wait_for(stopping, HANG)


async def test_watcher_that_takes_nothing_holds_up_neither_changes_nor_the_stop(deaf_watcher: Any) -> None:
    slow = Gated()
    async with serving({"slow": slow}) as served:
        await deaf_watcher(served.server.address)
        slow.gate.set()
        await until(lambda: slow.state[0] == "ready")
        assert await health(served, "") == "SERVING"
        await asyncio.wait_for(served.server.stop(0), HANG)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_log_state_and_health_agree_on_a_hosted_llm_without_a_key(
    provider: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    caplog.set_level("INFO", "abstractllm")
    llms = {"hosted": create_llm(provider), "other": create_llm(provider), "fine": create_llm(provider, api_key="sk-1")}
    async with serving(llms) as served:
        await until(lambda: "LLM hosted" in caplog.text)
        assert not [record.message for record in caplog.records if "ready" in record.message]
        lines = [record for record in caplog.records if "api_key is missing" in record.message]
        assert sorted((record.levelname, record.message.split()[1]) for record in lines) == [
            ("ERROR", "hosted"),
            ("ERROR", "other"),
        ]
        loading = served.models.LoadModel(models_pb2.LoadModelRequest(llm="other"))
        assert (await failure(loading.read())).reason == "PROVIDER_CREDENTIALS"
        assert await healths(served) == {
            "liveness": "SERVING",
            "": "NOT_SERVING",
            "llm/hosted": "NOT_SERVING",
            "llm/other": "NOT_SERVING",
            "llm/fine": "SERVING",
        }


async def test_log_tells_of_a_key_that_is_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "abstractllm")
    async with serving({"hosted": create_llm("openai", api_key="sk-1")}):
        await until(lambda: "LLM hosted (openai, gpt-5.4-mini) is ready" in caplog.text)
