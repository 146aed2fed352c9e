"""ModelService: which LLMs there are, what they can do, which models are cached."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from abstractllm.errors import InvalidRequestError
from abstractllm.factory import create_llm
from abstractllm.interface import AbstractLLMInterface
from abstractllm.registry import LLMRegistry
from abstractllm_api.v1 import models_pb2 as pb
from abstractllm_api.v1 import models_pb2_grpc
from abstractllm_server.convert import responses

__all__ = ["ModelServicer"]

_DEFAULT_PAGE, _LARGEST_PAGE = 100, 1000


class ModelServicer(models_pb2_grpc.ModelServiceServicer):
    """Shows the registry's LLMs and manages the caches behind them."""

    def __init__(self, registry: LLMRegistry) -> None:
        self._registry = registry

    async def ListLlms(self, request: pb.ListLlmsRequest, context: Any) -> pb.ListLlmsResponse:
        """Lists the LLMs by name."""
        found = sorted(self._registry.list(), key=lambda info: info.name)
        return pb.ListLlmsResponse(llms=[responses.llm_info(info) for info in found])

    async def GetCapabilities(self, request: pb.GetCapabilitiesRequest, context: Any) -> pb.GetCapabilitiesResponse:
        """Tells what an LLM can do."""
        model = request.model if request.HasField("model") else None
        found = await self._registry[request.llm].describe(model)
        return pb.GetCapabilitiesResponse(capabilities=responses.capabilities(found))

    async def ListCachedModels(self, request: pb.ListCachedModelsRequest, context: Any) -> pb.ListCachedModelsResponse:
        """Lists the models of a cache by name, a page at a time."""
        size = request.page_size or _DEFAULT_PAGE
        if not 0 < size <= _LARGEST_PAGE:
            raise InvalidRequestError(
                f"page_size: must be 0 (the default) to {_LARGEST_PAGE}, got {size}",
                field="page_size",
                limit=_LARGEST_PAGE,
                requested=size,
            )
        after = _last_name(request.page_token)
        found = sorted(await self._cache(request.llm).cached_models(), key=lambda model: model.name)
        rest = [model for model in found if model.name > after]
        page = rest[:size]
        token = _token(page[-1].name) if len(rest) > size else ""
        return pb.ListCachedModelsResponse(
            models=[responses.cached_model(model) for model in page], next_page_token=token
        )

    async def ClearCache(self, request: pb.ClearCacheRequest, context: Any) -> pb.ClearCacheResponse:
        """Deletes one model or, if asked for in so many words, all of them."""
        target = request.WhichOneof("target")
        if target is None or (target == "model" and not request.model):
            raise InvalidRequestError(
                "target: name a model, or all", field="target", limit="model or all", requested="nothing"
            )
        model = request.model if target == "model" else None
        removed, freed = await self._cache(request.llm).clear_cache(model, dry_run=request.dry_run)
        return pb.ClearCacheResponse(removed=removed, freed_bytes=freed)

    async def PullModel(self, request: pb.PullModelRequest, context: Any) -> AsyncGenerator[pb.PullModelResponse, None]:
        """Downloads a model, or joins those who do."""
        model = request.model if request.HasField("model") else None
        async with aclosing(self._registry[request.llm].pull(model)) as reports:
            async for report in reports:
                yield responses.pull_progress(report)

    async def LoadModel(self, request: pb.LoadModelRequest, context: Any) -> AsyncGenerator[pb.LoadModelResponse, None]:
        """Loads a local model, or joins those who do; a hosted LLM is READY at once."""
        async with aclosing(self._registry[request.llm].load_progress()) as steps:
            async for step in steps:
                yield responses.load_progress(step)

    async def UnloadModel(
        self, request: pb.UnloadModelRequest, context: Any
    ) -> AsyncGenerator[pb.UnloadModelResponse, None]:
        """Unloads a local LLM's models."""
        async with aclosing(self._registry[request.llm].unload(force=request.force)) as steps:
            async for step in steps:
                yield responses.unload_progress(step)

    def _cache(self, name: str) -> AbstractLLMInterface:
        """The LLM whose cache is meant; the empty name means the local engine's, whether or not it is configured."""
        if name:
            return self._registry[name]
        local = (llm for llm in self._registry if llm.provider == "huggingface")
        return next(local, None) or create_llm("huggingface")


def _token(name: str) -> str:
    """Says after which name the next page begins, so that it stays good whatever comes and goes."""
    return base64.urlsafe_b64encode(name.encode(errors="surrogatepass")).decode()


def _last_name(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode(errors="surrogatepass")
    except (binascii.Error, UnicodeError):
        raise InvalidRequestError(
            "page_token: must be the next_page_token of an earlier answer", field="page_token", requested=token[:80]
        ) from None
