"""The formats that were compiled of late, and those that were refused."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass

import torch
from llguidance import LLMatcher

from abstractllm.errors import AbstractLLMError
from abstractllm.providers.huggingface.protocol.errors import copy_error

__all__ = ["CompiledFormat", "FormatCache", "FormatKey", "format_key"]

_COMPILED = 32
_REFUSED = 512

FormatKey = bytes
"""A digest of a format: formats hold up to 64 Ki characters."""


@dataclass(frozen=True)
class CompiledFormat:
    """A format, ready for answers."""

    matcher: LLMatcher
    """llguidance's matcher, at the beginning of the format; to be copied for each answer."""
    field: str
    """The field of the request that the format comes from."""
    allowed: torch.Tensor
    """`[bytes]`: the mask of the tokens that the format may allow at all."""


class FormatCache:
    """The last compiled formats, and the errors of the last refused ones; to be used from any thread."""

    def __init__(self) -> None:
        self._compiled: OrderedDict[FormatKey, CompiledFormat] = OrderedDict()
        self._refused: OrderedDict[FormatKey, AbstractLLMError] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: FormatKey) -> CompiledFormat | None:
        """Returns a compiled format, if it is among the last ones.

        Raises:
            AbstractLLMError: If it was refused.
        """
        with self._lock:
            if (error := self._refused.get(key)) is not None:
                self._refused.move_to_end(key)
                raise copy_error(error)
            if (compiled := self._compiled.get(key)) is not None:
                self._compiled.move_to_end(key)
            return compiled

    def keep(self, key: FormatKey, compiled: CompiledFormat) -> None:
        """Keeps a compiled format."""
        with self._lock:
            self._compiled[key] = compiled
            if len(self._compiled) > _COMPILED:
                self._compiled.popitem(last=False)

    def refuse(self, key: FormatKey, error: AbstractLLMError) -> None:
        """Keeps the error of a format that would be refused again."""
        with self._lock:
            self._refused[key] = copy_error(error)
            if len(self._refused) > _REFUSED:
                self._refused.popitem(last=False)


def format_key(*parts: str) -> FormatKey:
    """Returns the key of a format, made of all that it depends on."""
    digest = hashlib.sha256()
    for part in parts:
        text = part.encode(errors="surrogatepass")
        digest.update(len(text).to_bytes(8) + text)
    return digest.digest()
