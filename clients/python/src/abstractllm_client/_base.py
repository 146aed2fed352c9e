"""The base of both clients: the connection, the caller's defaults, and the requests that calls become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from google.protobuf.message import Message

from abstractllm_api.v1 import config_pb2, generation_pb2, models_pb2
from abstractllm_client import _answers, _check, _config, _parameters, _requests
from abstractllm_client._channel import Connection, Metadata
from abstractllm_client.answers import Event, Finished, TextDelta
from abstractllm_client.errors import (
    AbstractLLMError,
    ErrorReason,
    GenerationCancelledError,
    IncompleteStreamError,
    InvalidRequestError,
)
from abstractllm_client.options import ClientDefaults

PAGE_SIZE = 1000
"""Cached models asked for at a time; the server's largest page."""


class Client:
    """One LLM of a server; see `RemoteLLM`."""

    def __init__(
        self,
        address: str,
        llm: str = "",
        *,
        token: str | None = None,
        tls: bool = False,
        root_certificates: bytes | None = None,
        private_key: bytes | None = None,
        certificate_chain: bytes | None = None,
        channel_options: Sequence[tuple[str, Any]] = (),
        metadata: Metadata | None = None,
        load_balancing: str = "round_robin",
        **parameters: Unpack[ClientDefaults],
    ) -> None:
        self._connection = Connection(
            address,
            token,
            tls,
            root_certificates,
            private_key,
            certificate_chain,
            channel_options,
            metadata,
            load_balancing,
        )
        self._llm = llm
        defaults: dict[str, Any] = {str(name): value for name, value in parameters.items() if value is not None}
        self._system_prompt: str | None = defaults.pop("system_prompt", None)
        timeout = defaults.pop("timeout", None)
        self._timeout = None if timeout is None else _check.seconds(timeout, "timeout")
        self._defaults = _parameters.rename_keys(defaults)
        self._generate_request("checks the defaults", None, {})
        self._prepare()

    def _prepare(self) -> None:
        """Makes the channels of a kind of client; nothing connects yet."""
        raise NotImplementedError

    @property
    def address(self) -> str:
        """The server's address."""
        return self._connection.address

    @property
    def llm(self) -> str:
        """The LLM's name; empty for the server's default."""
        return self._llm

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r}, {self._llm!r})"

    def _generate_request(
        self, prompt: object, system_prompt: str | None, options: Mapping[str, Any]
    ) -> tuple[generation_pb2.GenerateRequest, float | None]:
        """Builds a request, and returns it with its timeout in seconds."""
        chosen = {str(name): value for name, value in options.items() if value is not None}
        timeout = chosen.pop("timeout", None)
        request = _requests.generate_request(
            self._llm,
            prompt,
            self._choose_system_prompt(system_prompt),
            self._defaults | _parameters.rename_keys(chosen),
        )
        self._check_size(request)
        return request, self._timeout if timeout is None else _check.seconds(timeout, "timeout")

    def _count_request(
        self, prompt: object, system_prompt: str | None, tools: Sequence[object], model: str | None
    ) -> generation_pb2.CountTokensRequest:
        request = _requests.count_tokens_request(
            self._llm,
            prompt,
            self._choose_system_prompt(system_prompt),
            tools or self._defaults.get("tools", ()),
            self._defaults.get("model") if model is None else model,
        )
        self._check_size(request)
        return request

    def _check_size(self, request: Message) -> None:
        """Refuses a request beyond gRPC's limit, which gRPC would refuse only after retrying it for seconds."""
        size, limit = request.ByteSize(), self._connection.send_limit
        if size > limit:
            raise InvalidRequestError(
                f"request: must have at most {limit} bytes, got {size}",
                reason=ErrorReason.MESSAGE_TOO_LARGE,
                field="request",
                limit=limit,
                requested=size,
            )

    def _choose_system_prompt(self, system_prompt: str | None) -> str | None:
        return self._system_prompt if system_prompt is None else system_prompt

    def _set_request(
        self, config: Mapping[Any, Any] | None, changes: Mapping[str, Any], etag: str, validate_only: bool
    ) -> config_pb2.SetConfigRequest:
        merged = {str(key): value for key, value in {**(config or {}), **changes}.items()}
        return _config.set_config_request(self._llm, merged, etag, validate_only)

    def _clear_request(self, model_name: str | None, all_models: bool, dry_run: bool) -> models_pb2.ClearCacheRequest:
        if (model_name is None) is not all_models:
            raise InvalidRequestError(
                "target: give a model_name, or all_models=True, not both", field="target", limit="model or all"
            )
        request = models_pb2.ClearCacheRequest(llm=self._llm, dry_run=dry_run)
        if model_name is None:
            request.all.SetInParent()
        else:
            request.model = _check.text(model_name, "model_name")
        return request

    def _pull_request(self, model: str | None) -> models_pb2.PullModelRequest:
        model = None if model is None else _check.text(model, "model")
        return models_pb2.PullModelRequest(llm=self._llm, model=model)

    def _capabilities_request(self, model: str | None) -> models_pb2.GetCapabilitiesRequest:
        model = self._defaults.get("model") if model is None else model
        model = None if model is None else _check.text(model, "model")
        return models_pb2.GetCapabilitiesRequest(llm=self._llm, model=model)


def closed_error() -> GenerationCancelledError:
    """The error of calls on, or cut off by, a client that was closed."""
    return GenerationCancelledError("the client is closed")


class EventReader:
    """The reader of one stream of events: it decodes them, and keeps the text that came before a failure."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._finished = False

    def read(self, message: generation_pb2.StreamGenerateResponse) -> Event | None:
        """Decodes the next event; `None` for one to skip."""
        event = _answers.event(message)
        if isinstance(event, TextDelta):
            self._text.append(event.text)
        self._finished = self._finished or isinstance(event, Finished)
        return event

    def note(self, error: AbstractLLMError) -> None:
        """Adds the text so far to an error."""
        error.partial_text = "".join(self._text)

    def end(self) -> None:
        """Checks that the stream was whole.

        Raises:
            IncompleteStreamError: If it ended without `Finished`.
        """
        if not self._finished:
            raise IncompleteStreamError("the answer ended without a finish reason", partial_text="".join(self._text))
