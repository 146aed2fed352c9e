"""An LLM whose replicas, or whose application, are gone, late, or replaced; Ray is not started."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from abstractllm.errors import ModelNotFoundError, ProviderUnavailableError, ServerShuttingDownError
from abstractllm.providers.ray import RayProvider, link
from abstractllm.providers.ray.cluster import Cluster, import_serve
from abstractllm.providers.ray.deployment import ApplicationState, Definition, find
from abstractllm.providers.ray.load_failures import load_failure
from abstractllm.providers.ray.plain import encode, plain_error
from abstractllm.providers.ray.replicas import Replicas
from abstractllm.types import LlmState
from tests.waiting import until, wait_until

SOON = 20.0
RUNNING = ApplicationState("RUNNING", "", 2)
HOPELESS = ApplicationState(
    "UNHEALTHY", "It failed: " + load_failure(plain_error(ModelNotFoundError("there is no model /gone")))
)


class StandIn:
    """Ray Serve, as the link of an LLM in two replicas sees it: in the state that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, state: ApplicationState, running: int = 2) -> None:
        self.state, self.deployed = state, 0
        self.after_deploying: list[ApplicationState] = []
        self.llm = RayProvider({"ray_address": "127.0.0.1:1", "serves": "scripted", "replicas": 2})
        self.llm.name = "lost"
        facts = {"version": [1, 0], "digest": self.llm._link._define().digest, "values": None}
        facts |= {"state": LlmState.READY, "reason": ""}
        answers = [{"result": encode({"replica": f"r{number}", **facts})} for number in range(running)]
        handle = SimpleNamespace(broadcast=lambda *_: SimpleNamespace(results=lambda **_: answers))
        monkeypatch.setattr(link, "find", lambda application: self.find())
        monkeypatch.setattr(link, "deploy", self.deploy)
        monkeypatch.setattr(link, "handle_of", lambda application: handle)
        cluster = SimpleNamespace(join=lambda keys: 7, leave=lambda number: None, connection=7, is_local=False)
        monkeypatch.setattr(link, "cluster", cluster)
        monkeypatch.setattr(link, "_LOOK_INTERVAL", 0.01)
        monkeypatch.setattr(link, "_DEPLOYING_INTERVAL", 0.01)
        monkeypatch.setattr(link, "_AGAIN_SECONDS", 0.01)

    def find(self) -> ApplicationState:
        """Tells the state that comes next."""
        if self.after_deploying and self.deployed:
            self.state = self.after_deploying.pop(0)
        return self.state

    def deploy(self, definition: Definition, version: tuple[int, int]) -> None:
        """Counts the deployments."""
        self.deployed += 1


def test_a_controller_that_was_ended_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, serve = import_serve()

    def fail() -> None:
        raise ray.exceptions.ActorDiedError

    known: list[Any] = [SimpleNamespace(get_serve_details=fail)]
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(serve.context, "_get_global_client", lambda **_: known[0] if known else None)
    monkeypatch.setattr(serve.context, "_set_global_client", lambda client: known.clear())
    # As `serve shutdown` leaves it.
    assert find("some") == ApplicationState("")


def test_an_application_that_was_deleted_is_deployed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = StandIn(monkeypatch, RUNNING)
    serve.llm._link.ensure().result(SOON)
    assert serve.deployed == 0
    serve.state, serve.after_deploying = ApplicationState(""), [RUNNING]
    # No request asks for it: a server that is not ready gets none.
    wait_until(lambda: serve.deployed, SOON)
    wait_until(lambda: serve.llm.state[0] is LlmState.READY, SOON)
    serve.llm._link.close()


async def test_what_waits_for_replicas_that_cannot_load_again_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = StandIn(monkeypatch, RUNNING)
    await asyncio.to_thread(serve.llm._link.ensure().result, SOON)
    waiting = asyncio.create_task(Replicas(serve.llm._link)._answer(asyncio.Event().wait()))
    await asyncio.sleep(0)
    serve.state = HOPELESS
    with pytest.raises(ProviderUnavailableError, match="there is no model /gone") as caught:
        await asyncio.wait_for(waiting, SOON)
    assert caught.value.retry_after
    assert serve.llm.state[0] is LlmState.FAILED
    # Ray Serve goes on trying, and may succeed.
    serve.state = RUNNING
    await until(lambda: serve.llm.state == (LlmState.READY, ""), SOON)
    serve.llm._link.close()


def test_the_reason_of_the_deployment_before_is_not_that_of_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = StandIn(monkeypatch, HOPELESS, running=0)
    # The controller clears it up to a tenth of a second after it has taken a deployment over.
    serve.after_deploying = [HOPELESS, HOPELESS, ApplicationState("DEPLOYING", "", 0, 2), RUNNING]
    serve.llm._link.ensure().result(SOON)
    assert serve.deployed == 1
    serve.llm._link.close()


async def test_the_first_replica_is_enough_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = StandIn(monkeypatch, ApplicationState("DEPLOYING", "", 1, 1), running=1)
    await asyncio.to_thread(serve.llm._link.ensure().result, SOON)
    assert serve.llm.state == (LlmState.READY, "replicas that run: 1 of 2")
    loading = asyncio.create_task(serve.llm.load())
    await asyncio.sleep(0.5)
    assert not loading.done()  # it is to be loaded in all of them
    serve.state = RUNNING
    await asyncio.wait_for(loading, SOON)
    serve.llm._link.close()


def test_replicas_that_cannot_be_replaced_go_on_answering(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "The update is stopped. " + HOPELESS.message
    serve = StandIn(monkeypatch, ApplicationState("DEPLOY_FAILED", words, 2))
    serve.llm._link.ensure().result(SOON)
    state, reason = serve.llm.state
    assert state is LlmState.READY
    assert "there is no model /gone" in reason
    serve.llm._link.close()


async def test_what_waits_for_an_llm_that_is_closed_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = StandIn(monkeypatch, RUNNING)
    await asyncio.to_thread(serve.llm._link.ensure().result, SOON)
    waiting = asyncio.create_task(Replicas(serve.llm._link)._answer(asyncio.Event().wait()))
    await asyncio.sleep(0)
    await serve.llm.close_async()
    with pytest.raises(ServerShuttingDownError):
        await asyncio.wait_for(waiting, SOON)


def test_handles_in_a_ray_of_the_program_end_with_the_last_llm(monkeypatch: pytest.MonkeyPatch) -> None:
    _, serve = import_serve()
    ended: list[str] = []
    ours, program_s = (SimpleNamespace(shutdown=lambda name=name: ended.append(name)) for name in ("ours", "other"))
    cache = {("llm", "one", True): ours, ("mine", "two", True): program_s}
    monkeypatch.setattr(serve.context, "_global_client", SimpleNamespace(handle_cache=cache))
    one = Cluster()
    one._users, one.handles["one"] = 2, ours
    one.leave(one.connection)
    assert ended == []
    one.leave(one.connection)
    assert ended == ["ours"]
    assert list(cache.values()) == [program_s]
