"""The engine process's threads: read, tokenize, generate; the channel writes in a thread of its own."""

from __future__ import annotations

import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from abstractllm.errors import (
    AbstractLLMError,
    ConfigurationError,
    ContextLengthExceededError,
    InvalidRequestError,
    ModelNotFoundError,
)
from abstractllm.providers.huggingface.protocol.channel import Channel, encode
from abstractllm.providers.huggingface.protocol.messages import (
    Cancel,
    Count,
    Counted,
    Done,
    Failed,
    FromEngine,
    Generate,
    Load,
    Loaded,
    LoadFailed,
    Progress,
    ToEngine,
)
from abstractllm.providers.huggingface.worker.request import EngineRequest, failure

if TYPE_CHECKING:
    from abstractllm.providers.huggingface.worker.batching.engine import BatchEngine
    from abstractllm.providers.huggingface.worker.model import LoadedModel
    from abstractllm.providers.huggingface.worker.structured.grammar import Matcher

__all__ = ["Worker"]

_COMPILER_STACK = 256 * 1024 * 1024
"""Bytes of address space: the compiler nests as deep as the rules of a grammar do, which takes up to 32 MiB."""


class Worker:
    """Loads one model and answers requests with it until the channel closes.

    The reader only reads, so a cancellation never waits; tokenizing a long prompt does not hold up the generation of
    another answer. When the channel closes, the process and those that it started end at once, whatever they do.

    Args:
        channel: The connection to the provider.
    """

    def __init__(self, channel: Channel[ToEngine]) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._jobs: dict[int, EngineRequest] = {}
        self._cancelled_early: set[int] = set()
        self._received = 0
        """Requests for an answer."""
        self._settings: queue.SimpleQueue[Load] = queue.SimpleQueue()
        self._to_tokenize: queue.SimpleQueue[EngineRequest | Count] = queue.SimpleQueue()
        self._to_compile: queue.SimpleQueue[EngineRequest] = queue.SimpleQueue()
        self._to_generate: queue.SimpleQueue[EngineRequest] = queue.SimpleQueue()

    def run(self) -> None:
        """Serves until the channel closes; returns only after a model that cannot be loaded."""
        threading.Thread(target=self._guarded, args=(self._read,), name="reader", daemon=True).start()
        settings = self._settings.get()
        try:
            model = _load(settings, self.send)
            batching = self._start_batching(model, settings)
        except AbstractLLMError as error:
            traceback.print_exc()
            self.send(LoadFailed(error.reason, error.message, error.field))
            threading.Event().wait(30)  # the provider closes the channel as soon as it has read this
            return
        self.send(model.description)
        if batching is None:
            threading.Thread(target=self._guarded, args=(self._generate, model), name="generator", daemon=True).start()
        hand_over = self._to_generate.put if batching is None else batching.submit
        usual = threading.stack_size(_COMPILER_STACK)
        threading.Thread(
            target=self._guarded, args=(self._compile, model, hand_over), name="compiler", daemon=True
        ).start()
        threading.stack_size(usual)
        self._guarded(self._tokenize, model, hand_over)

    def send(self, message: FromEngine) -> None:
        """Sends a message to the provider without waiting."""
        self._channel.send(encode(message))

    def _guarded(self, function: object, *arguments: object) -> None:
        """Runs a thread's function, with which the whole process ends: a provider waits for none but the process."""
        try:
            function(*arguments)  # type: ignore[operator]
        except BaseException:
            traceback.print_exc()
            end_process(1)

    def _read(self) -> None:
        for message in self._channel:
            match message:
                case Load():
                    self._settings.put(message)
                case Generate(id=id):
                    job = EngineRequest(message)
                    with self._lock:
                        job.cancelled = id in self._cancelled_early
                        self._cancelled_early.discard(id)
                        self._jobs[id] = job
                        self._received += 1
                    self._to_tokenize.put(job)
                case Count():
                    self._to_tokenize.put(message)
                case Cancel(id=id, order=order):
                    with self._lock:
                        if id in self._jobs:
                            self._jobs[id].cancelled = True
                        elif order > self._received:
                            self._cancelled_early.add(id)
        end_process(0)

    def _start_batching(self, model: LoadedModel, settings: Load) -> BatchEngine | None:
        """Starts the batch loop; None for a model that it cannot run rightly."""
        from abstractllm.providers.huggingface.worker.batching.start import start

        return start(
            model,
            settings,
            send=self.send,
            end=self._forget,
            crash=lambda: end_process(1),
        )

    def _tokenize(self, model: LoadedModel, hand_over: Callable[[EngineRequest], None]) -> None:
        while True:
            item = self._to_tokenize.get()
            try:
                if isinstance(item, Count):
                    self.send(Counted(item.id, len(model.prompt_builder.encode(item.conversation))))
                elif item.cancelled:
                    self._finish(item, Done(item.request.id, "cancelled", "", 0, 0))
                else:
                    item.prompt = model.prompt_builder.encode(item.request.conversation)
                    item.is_reasoning = model.prompt_builder.ends_in_reasoning(item.request.conversation, item.prompt)
                    if not item.is_reasoning:
                        item.preamble = model.prompt_builder.template.reasoning_start(item.prompt)
                    item.max_tokens = _room(item, model.description)
                    _check_bias(item, model.vocabulary_size)
                    if item.request.format is None and not item.request.conversation.forced:
                        hand_over(item)
                    else:
                        self._to_compile.put(item)
            except Exception as error:
                if isinstance(item, Count):
                    self.send(failure(item.id, error))
                else:
                    self._finish(item, failure(item.request.id, error))

    def _compile(self, model: LoadedModel, hand_over: Callable[[EngineRequest], None]) -> None:
        """Compiles formats, so that a slow one holds up nobody but those that want one too."""
        while True:
            job = self._to_compile.get()
            try:
                job.matcher = _matcher(model, job)
                hand_over(job)
            except Exception as error:
                self._finish(job, failure(job.request.id, error))

    def _generate(self, model: LoadedModel) -> None:
        from abstractllm.providers.huggingface.worker.sequential import generate

        while True:
            job = self._to_generate.get()
            if job.cancelled:
                self._finish(job, Done(job.request.id, "cancelled", "", 0, 0))
                continue
            try:
                done = generate(model, job, self.send)
            except Exception as error:
                model.recover(error)
                self._finish(job, failure(job.request.id, error, job.output_tokens))
            else:
                self._finish(job, done)

    def _finish(self, job: EngineRequest, message: Done | Failed) -> None:
        self._forget(job)
        self.send(message)

    def _forget(self, job: EngineRequest) -> None:
        with self._lock:
            del self._jobs[job.request.id]


def _load(settings: Load, send: Callable[[FromEngine], None]) -> LoadedModel:
    if settings.is_directory and not Path(settings.model).is_dir():
        raise ModelNotFoundError(f"model: there is no directory {settings.model}", field="model")
    if settings.local_files_only:
        os.environ["HF_HUB_OFFLINE"] = "1"  # the hub's library asks it for more than files
    try:
        # Importing torch takes seconds, during which the reader already watches the channel.
        from abstractllm.providers.huggingface.worker.model import load_model
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the package {error.name} is not installed; local models need: pip install 'abstractllm-grpc[huggingface]'"
        ) from error
    return load_model(settings, lambda phase, fraction=None: send(Progress(phase, fraction)))


def _room(job: EngineRequest, model: Loaded) -> int:
    """How many new tokens may be generated.

    Raises:
        ContextLengthExceededError: If prompt, or prompt and `max_tokens`, do not fit the window or the cache.
    """
    prompt, asked = len(job.prompt), job.request.sampling.max_tokens
    window = model.longest or model.context_window
    bounds = f"the context window of {model.context_window}"
    if window < model.context_window:
        bounds = f"the {window} tokens that the cache of keys and values holds (less than {bounds})"
    if prompt >= window:
        raise ContextLengthExceededError(
            f"prompt: {prompt} tokens leave no room for an answer in {bounds}",
            field="prompt",
            limit=window,
            requested=prompt,
        )
    if asked is not None and prompt + asked > window:
        raise ContextLengthExceededError(
            f"parameters.max_tokens: {prompt} prompt tokens and {asked} new ones exceed {bounds}",
            field="parameters.max_tokens",
            limit=window - prompt,
            requested=asked,
        )
    return asked or window - prompt


def _matcher(model: LoadedModel, job: EngineRequest) -> Matcher:
    """What holds the answer to its format, or to a call of a tool; it may hold only after a block of reasoning."""
    from abstractllm.providers.huggingface.worker.structured.forced_call import forced_call

    if job.request.format is not None:
        matcher = model.grammars.compile(job.request.format)
    else:
        matcher = model.grammars.compile(forced_call(model.prompt_builder.template, job.request.conversation), "tools")
    matcher.is_on = not job.is_reasoning
    matcher.preamble = job.preamble
    return matcher


def _check_bias(job: EngineRequest, vocabulary_size: int) -> None:
    strange = [token for token in job.request.sampling.logit_bias or () if token >= vocabulary_size]
    if strange:
        raise InvalidRequestError(
            f"parameters.logit_bias: token ids must be below {vocabulary_size}, got {strange[0]}",
            field="parameters.logit_bias",
            limit=f"below {vocabulary_size}",
            requested=strange[0],
        )


def end_process(code: int) -> NoReturn:
    """Ends the process at once, with all that it started: it leads a process group of its own."""
    if code == 0 and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(code)
