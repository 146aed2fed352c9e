"""An engine as the memory for models sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from abstractllm.providers.huggingface.engine.admission_queue import AdmissionQueue
from abstractllm.providers.huggingface.engine.memory_estimate import expected_bytes
from abstractllm.providers.huggingface.engine.state import EngineState, Lifecycle, Tenure
from abstractllm.providers.huggingface.protocol.messages import Load

__all__ = ["EngineResident"]


class EngineResident(ABC):
    """The `Resident` of an engine: the facts about it by which models share memory, and its eviction.

    Args:
        name: The model's name in messages.
        load_settings: The model that the engine loads, and how.
        state: The engine's state.
        queue: The engine's requests.
    """

    def __init__(self, name: str, load_settings: Load, state: EngineState, queue: AdmissionQueue) -> None:
        self.name = name
        self.beside: EngineResident | None = None
        """The model that stays loaded while this one is loading, which then replaces it."""
        self._load_settings = load_settings
        self._state = state
        self._queue = queue
        self._known_bytes: int | None = None

    @abstractmethod
    def stop(self) -> None:
        """Begins to end the process, if there is one; the engine's lock is held."""

    @abstractmethod
    def reconcile(self) -> None:
        """Brings the process in line with the engine's tenure and requests; the engine's lock is held."""

    @property
    def is_idle(self) -> bool:
        """True while a model is loaded, has no request, and is to stay."""
        is_ready = self._state.lifecycle is Lifecycle.READY and self._state.tenure is Tenure.OPEN
        return is_ready and self._queue.is_empty

    @property
    def is_leaving(self) -> bool:
        """True once the process is to end as soon as it can."""
        return self._state.is_leaving

    @property
    def is_stopping(self) -> bool:
        """True while the process is being ended, or is not to be started after all."""
        return self._state.lifecycle is Lifecycle.STOPPING

    @property
    def last_used(self) -> float:
        """The time of the last request, on the monotonic clock."""
        return self._state.last_used

    @property
    def loaded_at(self) -> float | None:
        """The time at which the model became ready, on the monotonic clock; None while it is not loaded."""
        model = self._state.model
        return model.loaded_at if model else None

    @property
    def load_seconds(self) -> float:
        """Seconds that loading the model took; 0 while it is not loaded."""
        model = self._state.model
        return model.load_seconds if model else 0.0

    def measure(self) -> int:
        """Returns the bytes that the model takes or, before it was ever loaded, is expected to take."""
        return self._known_bytes if self._known_bytes is not None else expected_bytes(self._load_settings)

    def request_eviction(self, drain: bool) -> None:
        """Ends the process if it is idle.

        Args:
            drain: End it even if it is not idle: after the requests that it works on.
        """
        with self._state.lock:
            if not (drain or self.is_idle):
                return
            if self._state.lifecycle is Lifecycle.LOADING:
                self.stop()
            elif self._state.lifecycle is Lifecycle.READY:
                self._state.drain()
            self.reconcile()
