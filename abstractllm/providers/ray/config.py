"""The configuration of an LLM on Ray Serve: that of the LLM itself, and the keys of its replicas beside it."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import AfterValidator, Field, create_model, model_validator

from abstractllm.config import Bytes, ConfigModel, LLMConfig, Seconds
from abstractllm.errors import ConfigurationError
from abstractllm.factory import provider_class
from abstractllm.interface import AbstractLLMInterface
from abstractllm.providers.ray.plain import plain_values

__all__ = ["DEFAULT_SERVES", "Autoscaling", "ReplicaKeys", "config_type_of", "keys_of", "served_class", "served_values"]

DEFAULT_SERVES = "huggingface"
_MOST_REPLICAS = 10_000
_DEFAULT_RUNNING = 1000
"""Requests that a replica is given at most, where its LLM sets no bound of its own."""


def _check_gpus(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("must be a part of one GPU, at most 1, or a whole number of them")
    return gpus


def _check_address(address: str) -> str:
    if address in ("auto", "local") or re.fullmatch(
        r"[A-Za-z0-9._-]+:[0-9]{1,5}|\[[0-9a-fA-F:]+\]:[0-9]{1,5}", address
    ):
        return address
    hint = "; a Ray Client address cannot be used: run the server on a node of the cluster"
    raise ValueError(
        "must be HOST:PORT, auto (the Ray of this machine) or local (one of its own)"
        + (hint if address.startswith("ray://") else "")
    )


class Autoscaling(ConfigModel):
    """The number of replicas by the number of requests that run and wait."""

    min_replicas: Annotated[int, Field(ge=0, le=_MOST_REPLICAS)] = 1
    max_replicas: Annotated[int, Field(ge=1, le=_MOST_REPLICAS)]
    target_running: Annotated[float, Field(gt=0, le=100_000)] = 16.0
    """Requests, for each replica, that run or wait: above it replicas are added, below it they are ended."""
    upscale_delay: Annotated[Seconds, Field(ge=0)] = 10.0
    """Seconds that more are needed before they are added."""
    downscale_delay: Annotated[Seconds, Field(ge=0)] = 300.0
    """Seconds that fewer are enough before some are ended."""

    @model_validator(mode="after")
    def _check_order(self) -> Autoscaling:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"max_replicas must be at least min_replicas, {self.min_replicas}")
        return self


class ReplicaKeys(ConfigModel):
    """The keys of an LLM on Ray Serve, beside those of the LLM that each replica is.

    `provider: huggingface` becomes `provider: ray`, and all other keys stay; `serves` names the provider where it is
    another one.
    """

    serves: Annotated[str, Field(min_length=1, max_length=256)] = DEFAULT_SERVES
    """The provider of the LLM that each replica is."""
    ray_address: Annotated[str, AfterValidator(_check_address)] | None = None
    """The cluster: HOST:PORT of its head, `auto` for the one of this machine, `local` for a Ray that lives and ends
    with this process; if absent what the environment's RAY_ADDRESS says, else `local`."""
    application: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None
    """The name of its application in Ray Serve; `abstractllm-` and the LLM's name, if absent."""
    deploy: bool = True
    """False where another server, or Ray Serve's own configuration, deploys it: then this one uses what is there."""
    delete_on_stop: bool = False
    """End the replicas with this process, if it has deployed them; a Ray of its own always ends with it."""
    replicas: Annotated[int, Field(ge=1, le=_MOST_REPLICAS)] = 1
    autoscaling: Autoscaling | None = None
    """In place of `replicas`."""
    num_cpus: Annotated[float, Field(ge=0, le=10_000)] = 1.0
    """CPUs that Ray counts for each replica."""
    num_gpus: Annotated[float, Field(ge=0, le=1024), AfterValidator(_check_gpus)] = 0.0
    """GPUs of each replica: none, a part of one that it shares with others, or several."""
    memory: Bytes | None = None
    """Memory that Ray counts for each replica."""
    resources: dict[Annotated[str, Field(min_length=1)], Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Further resources of Ray that each replica takes, by name."""
    accelerator_type: Annotated[str, Field(min_length=1)] | None = None
    """The kind of GPU, as Ray names it, such as `H100`."""
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    """Ray's runtime environment of the replicas, such as `env_vars`."""
    max_running: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Requests that a replica is given at a time, those that wait in it included; all that its LLM takes, if absent."""
    max_waiting: Annotated[int, Field(ge=0, le=1_000_000)] = 256
    """Requests of one server that may wait while every replica has `max_running`; one more is refused."""
    load_at_start: bool = True
    """Load the model when a replica starts, before it gets requests; else its first request does."""
    drain_timeout: Annotated[Seconds, Field(ge=1)] = 600.0
    """Seconds that a replica that is to end may take for the requests that it has."""
    deploy_timeout: Annotated[Seconds, Field(ge=1)] = 1800.0
    """Seconds until the first replica must be there, its model loaded."""
    ray_cpus: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """The CPUs of a Ray of its own; those of the machine, if absent."""
    ray_object_store: Annotated[Bytes, Field(ge=80 << 20)] = 100 << 20
    """The shared memory of a Ray of its own: requests and answers go past it, unless they are large."""

    @model_validator(mode="after")
    def _check_together(self) -> ReplicaKeys:
        if self.autoscaling is not None and "replicas" in self.model_fields_set:
            raise ValueError("replicas and autoscaling exclude each other")
        return self


_KEYS = frozenset(ReplicaKeys.model_fields)


@functools.cache
def served_class(serves: str) -> type[AbstractLLMInterface[Any]]:
    """Returns the class of the provider that replicas are of.

    Raises:
        ConfigurationError: If there is no such provider, or its LLMs are no replicas.
    """
    kind = provider_class(serves)
    if "serves" in kind.config_type.model_fields or kind.provider == "ray":
        raise ConfigurationError("serves: a replica cannot be a deployment itself", field="serves", requested=serves)
    if "llms" in kind.config_type.model_fields:
        raise ConfigurationError(
            f"serves: {serves} answers with other LLMs; give these provider: ray, and put {serves} in front of them",
            field="serves",
            requested=serves,
        )
    return kind


@functools.cache
def config_type_of(serves: str) -> type[LLMConfig]:
    """Returns the class of the configurations of deployments of a provider: its own keys, and those of replicas.

    Raises:
        ConfigurationError: As `served_class` does.
    """
    served = served_class(serves).config_type
    if clash := sorted(_KEYS & set(served.model_fields)):
        raise ConfigurationError(
            f"serves: keys of the provider {serves} are named as those of replicas: {', '.join(clash)}",
            field="serves",
            requested=serves,
        )
    return cast("type[LLMConfig]", create_model(f"Replicated{served.__name__}", __base__=(served, ReplicaKeys)))


def keys_of(config: LLMConfig) -> ReplicaKeys:
    """Returns a configuration as that of replicas, which it is, too."""
    assert isinstance(config, ReplicaKeys)
    return config


def served_values(config: LLMConfig) -> dict[str, Any]:
    """Returns the keys that are set of the LLM that each replica is, as plain data, secrets in the clear."""
    served = served_class(keys_of(config).serves).config_type
    return plain_values(config, frozenset(served.model_fields))


def with_served_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys of an LLM with those that its provider takes from elsewhere, such as a key from the environment.

    Raises:
        ConfigurationError: As `served_class` does.
    """
    serves = values.get("serves", DEFAULT_SERVES)
    if not isinstance(serves, str):
        raise ConfigurationError(f"serves: must be a provider's name, got {serves!r:.80}", field="serves")
    kind = served_class(serves)
    # It reads the mapping and the environment alone: nothing need be made for that.
    return kind.with_defaults(kind.__new__(kind), values)


def most_running(keys: ReplicaKeys, llm: AbstractLLMInterface[Any]) -> int:
    """Returns the requests that a replica is given at a time.

    Args:
        keys: The keys of the deployment.
        llm: The LLM that each replica is.
    """
    return keys.max_running or llm.capacity or _DEFAULT_RUNNING
