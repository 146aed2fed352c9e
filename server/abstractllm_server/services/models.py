"""ModelService: the LLMs, their capabilities, and their models in the cache and in memory."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from abstractllm.errors import InvalidRequestError
from abstractllm.factory import provider_class
from abstractllm.interface import AbstractLLMInterface
from abstractllm.registry import LLMRegistry
from abstractllm_api.v1 import models_pb2 as pb
from abstractllm_api.v1 import models_pb2_grpc
from abstractllm_server.convert.fields import to_message
from abstractllm_server.security.roles import open_to_inference
from abstractllm_server.telemetry.current import current_record, note_administration

__all__ = ["ModelServicer"]

_DEFAULT_PAGE, _LARGEST_PAGE = 100, 1000


class ModelServicer(models_pb2_grpc.ModelServiceServicer):
    """Shows the registry's LLMs and manages the caches behind them."""

    def __init__(self, registry: LLMRegistry) -> None:
        self._registry = registry

    @open_to_inference
    async def ListLlms(self, request: pb.ListLlmsRequest, context: Any) -> pb.ListLlmsResponse:
        """Lists the LLMs by name."""
        infos = sorted(self._registry.list(), key=lambda info: info.name)
        return pb.ListLlmsResponse(llms=[to_message(pb.Llm, info) for info in infos])

    @open_to_inference
    async def GetCapabilities(self, request: pb.GetCapabilitiesRequest, context: Any) -> pb.GetCapabilitiesResponse:
        """Returns the capabilities of an LLM."""
        model = request.model if request.HasField("model") else None
        llm = self._registry[request.llm]
        current_record().llm = llm.name
        capabilities = await llm.get_capabilities_async(model)
        return pb.GetCapabilitiesResponse(capabilities=to_message(pb.Capabilities, capabilities))

    async def ListCachedModels(self, request: pb.ListCachedModelsRequest, context: Any) -> pb.ListCachedModelsResponse:
        """Lists the models of a cache by name, a page at a time."""
        note_administration(request.llm)
        size = request.page_size or _DEFAULT_PAGE
        if not 0 < size <= _LARGEST_PAGE:
            raise InvalidRequestError(
                f"page_size: must be 0 (the default) to {_LARGEST_PAGE}, got {size}",
                field="page_size",
                limit=_LARGEST_PAGE,
                requested=size,
            )
        after = _last_name(request.page_token)
        models = sorted(await self._cache_owner(request.llm).cached_models(), key=lambda model: model.name)
        rest = [model for model in models if model.name > after]
        page = rest[:size]
        return pb.ListCachedModelsResponse(
            models=[to_message(pb.CachedModel, model) for model in page],
            next_page_token=_page_token(page[-1].name) if len(rest) > size else "",
        )

    async def ClearCache(self, request: pb.ClearCacheRequest, context: Any) -> pb.ClearCacheResponse:
        """Deletes one model or, if the request names no model but `all`, all of them."""
        target = request.WhichOneof("target")
        note_administration(request.llm, target=target or "", cached_model=request.model, dry_run=request.dry_run)
        if target is None or (target == "model" and not request.model):
            raise InvalidRequestError(
                "target: name a model, or all", field="target", limit="model or all", requested="nothing"
            )
        model = request.model if target == "model" else None
        removed, freed = await self._cache_owner(request.llm).clear_cache(model, dry_run=request.dry_run)
        return pb.ClearCacheResponse(removed=removed, freed_bytes=freed)

    async def PullModel(self, request: pb.PullModelRequest, context: Any) -> AsyncGenerator[pb.PullModelResponse, None]:
        """Downloads a model, or joins the calls that do."""
        model = request.model if request.HasField("model") else None
        note_administration(request.llm or self._registry.default, pulled_model=request.model)
        async with aclosing(self._registry[request.llm].pull(model)) as reports:
            async for report in reports:
                yield to_message(pb.PullModelResponse, report)

    async def LoadModel(self, request: pb.LoadModelRequest, context: Any) -> AsyncGenerator[pb.LoadModelResponse, None]:
        """Loads a local model, or joins the calls that do; a hosted LLM is READY at once."""
        note_administration(request.llm or self._registry.default)
        async with aclosing(self._registry[request.llm].load_progress()) as steps:
            async for step in steps:
                yield to_message(pb.LoadModelResponse, step)

    async def UnloadModel(
        self, request: pb.UnloadModelRequest, context: Any
    ) -> AsyncGenerator[pb.UnloadModelResponse, None]:
        """Unloads a local LLM's models."""
        note_administration(request.llm or self._registry.default, force=request.force)
        async with aclosing(self._registry[request.llm].unload(force=request.force)) as steps:
            async for step in steps:
                yield to_message(pb.UnloadModelResponse, step)

    def _cache_owner(self, name: str) -> AbstractLLMInterface:
        """Returns the LLM whose cache is meant; the empty name means the local engine's, configured or not."""
        if name:
            return self._registry[name]
        local = (llm for llm in self._registry if llm.provider == "huggingface")
        return next(local, None) or provider_class("huggingface")()


def _page_token(name: str) -> str:
    """Encodes the last name of a page: the next page begins after it, whatever models come and go meanwhile."""
    return base64.urlsafe_b64encode(name.encode(errors="surrogatepass")).decode()


def _last_name(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode(errors="surrogatepass")
    except (binascii.Error, UnicodeError):
        raise InvalidRequestError(
            "page_token: must be the next_page_token of an earlier answer", field="page_token", requested=token[:80]
        ) from None
