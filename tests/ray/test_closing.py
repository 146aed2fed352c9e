"""An LLM that is closed while Ray Serve is being asked for it; Ray is not started."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from abstractllm.errors import ProviderUnavailableError
from abstractllm.providers.ray import RayProvider, link
from abstractllm.providers.ray.cluster import Cluster, import_serve
from abstractllm.providers.ray.deployment import ApplicationState, Definition, delete, deploy, find, handle_of
from tests.waiting import LONGEST_WAIT, wait_until

KEYS = {"ray_address": "127.0.0.1:1", "serves": "scripted", "delete_on_stop": True}


def test_nothing_is_asked_of_a_ray_that_this_process_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, serve = import_serve()
    questions: list[str] = []

    def note(name: str) -> Any:
        def act(*_: object, **__: object) -> None:
            questions.append(name)
            raise RuntimeError("this process is not connected")

        return act

    # Ray Serve connects whoever asks it, to a Ray that it starts if there is none.
    monkeypatch.setattr(ray, "init", note("init"))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(serve.context, "_get_global_client", note("find"))
    monkeypatch.setattr(serve.api, "_get_global_client", note("serve"))
    llm = RayProvider(KEYS)
    for act in (
        lambda: find("some"),
        lambda: delete("some"),
        lambda: handle_of("some"),
        lambda: deploy(llm._definition_of(llm.config), (1, 0)),
    ):
        with pytest.raises(ProviderUnavailableError, match="is not connected to Ray any more") as caught:
            act()
        assert caught.value.retry_after
    assert questions == []


def test_ray_is_left_behind_what_it_is_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    one, order, begun, go_on = Cluster(), list[str](), threading.Event(), threading.Event()
    monkeypatch.setattr(one, "_disconnect", lambda: order.append("left"))
    one._is_ours, one._users = True, 1

    def ask() -> None:
        begun.set()
        go_on.wait(LONGEST_WAIT)
        order.append("asked")

    asking = threading.Thread(target=one.take_turn, args=(ask,))
    asking.start()
    assert begun.wait(LONGEST_WAIT)
    leaving = threading.Thread(target=one.leave, args=(one.connection,))
    leaving.start()
    leaving.join(0.3)
    assert order == []
    go_on.set()
    for thread in (asking, leaving):
        thread.join(LONGEST_WAIT)
    assert order == ["asked", "left"]


def test_an_llm_that_is_closed_while_it_is_deployed_leaves_no_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    deploying, go_on, deleted = threading.Event(), threading.Event(), list[str]()

    def slow_deploy(definition: Definition, version: tuple[int, int]) -> None:
        deploying.set()
        go_on.wait(LONGEST_WAIT)

    monkeypatch.setattr(link, "find", lambda application: ApplicationState(""))
    monkeypatch.setattr(link, "deploy", slow_deploy)
    monkeypatch.setattr(link, "delete", deleted.append)
    monkeypatch.setattr(
        link, "cluster", SimpleNamespace(join=lambda keys: 7, leave=lambda number: None, connection=7, is_local=False)
    )
    monkeypatch.setattr(link, "_STOPPING_TIMEOUT", 0.1)
    llm = RayProvider(KEYS)
    llm.name = "short"
    attempt = llm._link.ensure()
    assert deploying.wait(LONGEST_WAIT)
    llm._link.close()
    go_on.set()
    wait_until(attempt.done, LONGEST_WAIT)
    assert deleted == ["abstractllm-short"]
