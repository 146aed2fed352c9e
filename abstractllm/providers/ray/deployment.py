"""The deployment of an LLM's replicas in Ray Serve: made, looked at, ended."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from abstractllm.errors import AbstractLLMError, ModelLoadError
from abstractllm.providers.ray.cluster import cluster, import_serve, quiet
from abstractllm.providers.ray.config import ReplicaKeys, most_running, served_class
from abstractllm.providers.ray.errors import RETRY_AFTER, UnansweredError, missing
from abstractllm.providers.ray.load_failures import error_in
from abstractllm.providers.ray.plain import plain_values

__all__ = ["DEPLOYMENT", "ApplicationState", "Definition", "application_of", "delete", "deploy", "find", "handle_of"]

DEPLOYMENT = "llm"
"""The name of the deployment in its application."""
_STARTS = 3
"""Times that a replica's start is tried before the deployment counts as failed."""
_HEALTH_PERIOD, _HEALTH_TIMEOUT = 2.0, 30.0
_DEPLOYING_SECONDS = 120.0
"""Time of Ray Serve for taking a deployment over, before a replica of it starts."""
_LOOK_BACK = 15.0
"""Seconds over which the number of requests is averaged, on which autoscaling acts."""
_REPORT_INTERVAL = 2.0
"""Seconds between two reports of that number; Ray's default is ten."""
_KEYS_OF_SERVERS = ("application", "delete_on_stop", "deploy", "deploy_timeout", "ray_address")
"""Keys that differ from one server to another, and are not the deployment's."""
P = ParamSpec("P")
T = TypeVar("T")


def _in_turn(act: Callable[P, T]) -> Callable[P, T]:
    """Has a function called in turn with all others that are Ray Serve's, and within bounds."""

    @functools.wraps(act)
    def wait_and_act(*args: P.args, **kwargs: P.kwargs) -> T:
        return cluster.take_turn(lambda: act(*args, **kwargs))

    return wait_and_act


@dataclass(frozen=True, slots=True)
class Definition:
    """A deployment as a configuration describes it."""

    llm: str
    """The LLM's name."""
    keys: ReplicaKeys
    values: Mapping[str, Any]
    """The keys of the LLM that each replica is."""

    @property
    def application(self) -> str:
        """The name of its application in Ray Serve."""
        return self.keys.application or f"abstractllm-{self.llm}"

    @property
    def digest(self) -> str:
        """Tells deployments apart that need other replicas; the LLM's own keys can change in those that there are."""
        keys = frozenset(ReplicaKeys.model_fields) - {*_KEYS_OF_SERVERS, "ray_cpus", "ray_object_store"}
        told = {"package": _package_version(), "serves": self.keys.serves} | plain_values(self.keys, keys)
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class ApplicationState:
    """The state of an application, as Ray Serve's controller tells it."""

    status: str
    """`RUNNING`, `DEPLOYING`, `DEPLOY_FAILED`, `UNHEALTHY`, `DELETING`; empty where there is none of its name."""
    message: str = ""
    running: int = 0
    """Replicas that run."""
    starting: int = 0

    @property
    def is_failed(self) -> bool:
        """True if it does not become well by itself."""
        return self.status == "DEPLOY_FAILED"

    @property
    def is_hopeless(self) -> bool:
        """True if no replica runs, and one could not start for a reason that further tries do not mend."""
        error = None if self.running else error_in(self.message)
        return error is not None and not error.retryable

    def error(self, application: str) -> AbstractLLMError:
        """Returns the reason why it does not run."""
        if not self.status:
            return missing(application, "the server that is to deploy it has not done so, or it was deleted")
        if (error := error_in(self.message)) is not None:
            return error
        words = " ".join(self.message.split())[-400:]
        if self.is_failed:
            return ModelLoadError(f"the replicas of application {application!r} cannot start: {words}")
        return missing(application, f"it is {self.status.lower()}: {words}")


def application_of(definition: Definition, version: tuple[int, int]) -> Any:
    """Returns the application, as `serve.run` takes it.

    Args:
        definition: The deployment.
        version: The version that its LLM's configuration begins with.
    """
    from abstractllm.providers.ray.replica import Replica

    _, serve = import_serve()
    keys = definition.keys
    llm = served_class(keys.serves)(definition.values)
    limit = most_running(keys, llm)
    options: dict[str, Any] = {
        "name": DEPLOYMENT,
        "max_ongoing_requests": limit,
        "max_queued_requests": keys.max_waiting,
        "graceful_shutdown_timeout_s": keys.drain_timeout,
        "graceful_shutdown_wait_loop_s": 0.5,
        "health_check_period_s": _HEALTH_PERIOD,
        "health_check_timeout_s": _HEALTH_TIMEOUT,
        "max_constructor_retry_count": _STARTS,
        "ray_actor_options": _actor_options(keys),
    }
    if keys.autoscaling is None:
        options["num_replicas"] = keys.replicas
    else:
        scaling = keys.autoscaling
        options["autoscaling_config"] = {
            "min_replicas": scaling.min_replicas,
            "max_replicas": scaling.max_replicas,
            "target_ongoing_requests": scaling.target_running,
            "upscale_delay_s": scaling.upscale_delay,
            "downscale_delay_s": scaling.downscale_delay,
            "look_back_period_s": _LOOK_BACK,
            "metrics_interval_s": _REPORT_INTERVAL,
        }
    setup = {
        "name": definition.llm,
        "serves": keys.serves,
        "values": dict(definition.values),
        "version": version,
        "digest": definition.digest,
        "load": keys.load_at_start,
    }
    with quiet():  # variables are to take the interval's place in a release to come, and do nothing yet (2.60)
        return serve.deployment(Replica).options(**options).bind(setup)


def _package_version() -> str:
    try:
        return importlib.metadata.version("abstractllm-grpc")
    except importlib.metadata.PackageNotFoundError:  # it runs from a folder
        return ""


def _actor_options(keys: ReplicaKeys) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": keys.num_cpus, "num_gpus": keys.num_gpus}
    optional: dict[str, Any] = {"memory": keys.memory, "accelerator_type": keys.accelerator_type}
    optional |= {"resources": dict(keys.resources) or None, "runtime_env": dict(keys.runtime_env) or None}
    return options | {name: value for name, value in optional.items() if value is not None}


def _connected_serve() -> Any:
    """Returns Ray Serve's module, whose functions would connect a process that has left Ray, or start a Ray for it.

    Raises:
        UnansweredError: If this process is not connected.
    """
    ray, serve = import_serve()
    if not ray.is_initialized():
        raise UnansweredError("this process is not connected to Ray any more", retry_after=RETRY_AFTER)
    return serve


def deploy(definition: Definition, version: tuple[int, int]) -> None:
    """Makes, or replaces, an application, and does not wait until it runs."""
    cluster.take_turn(lambda: _deploy(definition, version), _DEPLOYING_SECONDS)


def _deploy(definition: Definition, version: tuple[int, int]) -> None:
    serve = _connected_serve()
    serve.start(proxy_location="Disabled")  # it may have been shut down, and would start with proxies
    target = serve.RunTarget(target=application_of(definition, version), name=definition.application, route_prefix=None)
    serve.run_many([target], wait_for_ingress_deployment_creation=True, wait_for_applications_running=False)


@_in_turn
def find(application: str) -> ApplicationState:
    """Asks the controller for the state of an application.

    `serve.status` asks it the same, and then serializes a class for each deployment there is: that takes ten times as
    long, and more where more modules are loaded, each second and for each LLM.
    """
    details = _applications().get(application)
    if details is None:
        return ApplicationState("")
    deployments = details["deployments"].values()
    words = [details["message"], *[deployment["message"] for deployment in deployments]]
    replicas = Counter(str(replica["state"].value) for deployment in deployments for replica in deployment["replicas"])
    status = str(details["status"].value)
    return ApplicationState(status, " ".join(filter(None, words)), replicas["RUNNING"], replicas["STARTING"])


def _applications() -> Mapping[str, Any]:
    """Returns what the controller tells of all applications; nothing where there is no controller.

    Ray Serve goes on asking the one that it knows, also where that one was ended, as `serve shutdown` does it.
    """
    ray, serve = import_serve()
    for is_known in (True, False):
        _connected_serve()
        try:
            client = serve.context._get_global_client(raise_if_no_controller_running=False)
            return client.get_serve_details()["applications"] if client is not None else {}
        except ray.exceptions.ActorDiedError:
            with contextlib.suppress(Exception):
                serve.context._global_client.shutdown_cached_handles()
            serve.context._set_global_client(None)
            if not is_known:
                raise
    return {}


@_in_turn
def delete(application: str) -> None:
    """Ends an application, its replicas and their models."""
    serve = _connected_serve()
    serve.delete(application, _blocking=False)


@_in_turn
def handle_of(application: str) -> Any:
    """Returns the handle through which replicas are asked."""
    serve = _connected_serve()
    cluster.handles[application] = handle = serve.get_deployment_handle(DEPLOYMENT, application)
    return handle
