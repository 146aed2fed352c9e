"""Providers of another package, as replicas run them: scripted LLMs that write down what happens to them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping
from pathlib import Path
from typing import Any

from abstractllm.requests import GenerationRequest
from abstractllm.testing import ScriptedConfig, ScriptedProvider, Step
from abstractllm.types import Event


class RecordingConfig(ScriptedConfig):
    """The configuration of a scripted LLM that keeps a diary."""

    diary: str = ""
    """The file that it writes a line to for each request, and for each that is over."""


class RecordingProvider(ScriptedProvider):
    """A scripted LLM that writes down the requests that it gets, and those that are over."""

    provider = "scripted"
    config_type = RecordingConfig

    def note(self, **facts: Any) -> None:
        """Writes a line."""
        with Path(self.config.diary).open("a") as diary:  # type: ignore[attr-defined] # it is a RecordingConfig
            diary.write(json.dumps(facts) + "\n")

    async def events(self, request: GenerationRequest, config: Any) -> AsyncGenerator[Event, None]:
        """Plays the script."""
        self.note(prompt=request.prompt, request_id=request.request_id)
        try:
            async for event in super().events(request, config):
                yield event
        finally:
            self.note(released=True)


class MirrorProvider(ScriptedProvider):
    """Answers with what arrived, as JSON."""

    def __init__(self, config: Mapping[Any, Any] | None = None) -> None:
        from tests.interop.servers import mirror

        super().__init__(config, script=mirror)


class FlakyProvider(RecordingProvider):
    """Fails as often as the prompt says, counted by request id, then tells how often it was called."""

    def __init__(self, config: Mapping[Any, Any] | None = None) -> None:
        super().__init__(config, script=self._fail_at_first)
        self._attempts: Counter[str] = Counter()

    def _fail_at_first(self, request: GenerationRequest) -> Iterable[Step]:
        wanted = json.loads(request.conversation()[-1].text)
        self._attempts[request.request_id] += 1
        if self._attempts[request.request_id] <= wanted["failures"]:
            return [wanted["error"]]
        return [{"text": f"attempt {self._attempts[request.request_id]}"}]
