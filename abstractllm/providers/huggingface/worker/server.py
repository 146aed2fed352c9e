"""The engine process's threads: read, tokenize, compile, generate; the channel writes in a thread of its own."""

from __future__ import annotations

import gc
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from abstractllm.errors import AbstractLLMError, ConfigurationError
from abstractllm.providers.huggingface.hub.layout import no_directory_error
from abstractllm.providers.huggingface.missing import missing_package
from abstractllm.providers.huggingface.protocol.channel import Channel, encode
from abstractllm.providers.huggingface.protocol.messages import (
    LOADING,
    Cancel,
    Count,
    Counted,
    Done,
    Failed,
    FromEngine,
    Generate,
    Load,
    LoadFailed,
    Ping,
    Pong,
    Progress,
    ToEngine,
)
from abstractllm.providers.huggingface.worker.activity import Activity
from abstractllm.providers.huggingface.worker.caller_turns import CallerTurns
from abstractllm.providers.huggingface.worker.request import EngineRequest, failure_message
from abstractllm.providers.huggingface.worker.structured.format_queue import FormatQueue

if TYPE_CHECKING:  # importing torch takes seconds, during which the reader already watches the channel
    from abstractllm.providers.huggingface.worker.batching.engine import BatchEngine
    from abstractllm.providers.huggingface.worker.loading import ReportProgress
    from abstractllm.providers.huggingface.worker.model import LoadedModel

__all__ = ["Worker"]

_COMPILER_STACK_BYTES = 256 * 1024 * 1024
"""Address space: the compiler recurses as deep as the rules of a grammar do, which takes up to 32 MiB."""
_COMPILERS = 2
"""Formats that are compiled at a time, of different callers."""
_CLOSE_SECONDS = 30
"""The provider closes the channel as soon as it has read that the model cannot be loaded."""


class Worker:
    """Loads one model and answers requests with it until the channel closes.

    The reader only reads, and answers pings, so that neither a cancellation nor a sign of life ever waits. Tokenizing a
    long prompt does not hold up the generation of another answer, and a format that compiles slowly holds up only other
    new formats of its caller. When the channel closes, the process and those that it has started end at once, whatever
    they do.

    Args:
        channel: The connection to the provider.
    """

    def __init__(self, channel: Channel[ToEngine]) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._requests: dict[int, EngineRequest] = {}
        """The requests that are not over, by id."""
        self._cancelled_early: set[int] = set()
        """The ids of requests whose cancellation came before them."""
        self._received = 0
        """Requests for an answer so far."""
        self._settings: queue.SimpleQueue[Load] = queue.SimpleQueue()
        self._to_tokenize: CallerTurns[EngineRequest | Count] = CallerTurns(_caller_of)
        self._formats: FormatQueue[EngineRequest] = FormatQueue()
        self._to_generate: queue.SimpleQueue[EngineRequest] = queue.SimpleQueue()
        self._activity = Activity()
        self._batching: BatchEngine | None = None

    def run(self) -> None:
        """Serves until the channel closes; returns only after a model that cannot be loaded."""
        self._start_thread("reader", self._read)
        settings = self._settings.get()
        self._activity.begin(LOADING)
        try:
            model = _load(settings, self._report_loading)
            engine = self._start_batching(model, settings)
        except AbstractLLMError as error:
            if error.__cause__ is not None:  # what is refused here by itself is told by its message
                traceback.print_exc()
            self.send(LoadFailed(error.reason, error.message, error.field))
            threading.Event().wait(_CLOSE_SECONDS)
            return
        self._batching = engine
        self._activity.end(LOADING)
        self.send(model.description)
        if engine is None:
            self._start_thread("generator", self._generate, model)
        submit = self._to_generate.put if engine is None else engine.submit
        default_stack_bytes = threading.stack_size(_COMPILER_STACK_BYTES)
        for number in range(_COMPILERS):
            self._start_thread(f"compiler {number}", self._compile, model, submit)
        threading.stack_size(default_stack_bytes)
        _run_or_end_process(self._tokenize, model, submit)

    def send(self, message: FromEngine) -> None:
        """Sends a message to the provider without waiting."""
        self._channel.send(encode(message))

    def _start_thread(self, name: str, function: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=_run_or_end_process, args=(function, *arguments), name=name, daemon=True).start()

    def _read(self) -> None:
        for message in self._channel:
            match message:
                case Load():
                    self._settings.put(message)
                case Generate():
                    self._to_tokenize.put(self._register(message))
                case Count():
                    self._to_tokenize.put(message)
                case Cancel():
                    self._cancel(message)
                case Ping():
                    self._channel.send(encode(Pong(self._work())), urgent=True)
        end_process(0)

    def _work(self) -> dict[str, int]:
        """Returns the pieces of work that are being done, each with its number."""
        work = self._activity.current
        if self._batching is not None:
            work["a step of the batch"] = self._batching.rounds
        return work

    def _report_loading(self, phase: str, fraction: float | None = None) -> None:
        self._activity.begin(LOADING)
        self.send(Progress(phase, fraction))

    def _register(self, message: Generate) -> EngineRequest:
        request = EngineRequest(message)
        with self._lock:
            request.cancelled = message.id in self._cancelled_early
            self._cancelled_early.discard(message.id)
            self._requests[message.id] = request
            self._received += 1
        return request

    def _cancel(self, message: Cancel) -> None:
        """Cancels a request, also one that has not come yet; one that is over needs nothing."""
        with self._lock:
            request = self._requests.get(message.id)
            if request is not None:
                request.cancelled = True
            elif message.order > self._received:
                self._cancelled_early.add(message.id)
        if request is not None and self._formats.discard(request, request.format_key):
            self._finish_cancelled(request)

    def _start_batching(self, model: LoadedModel, settings: Load) -> BatchEngine | None:
        """Starts the batch loop; returns None for a model that it does not answer correctly."""
        from abstractllm.providers.huggingface.worker.batching.start import start

        return start(
            model,
            settings,
            send=self.send,
            end=self._forget,
            crash=lambda: end_process(1),
        )

    def _tokenize(self, model: LoadedModel, submit: Callable[[EngineRequest], None]) -> None:
        """Tokenizes prompts and submits their requests, or hands them to the compiler first."""
        from abstractllm.providers.huggingface.worker.preparation import find_format, format_key_of, tokenize

        while True:
            item = self._to_tokenize.get()
            self._activity.begin("the tokens of a prompt")
            try:
                if isinstance(item, Count):
                    self.send(Counted(item.id, len(model.prompt_builder.encode(item.conversation))))
                elif item.cancelled:
                    self._finish_cancelled(item)
                elif tokenize(model, item) and not find_format(model, item):
                    item.format_key = format_key_of(item)
                    self._formats.add(item, item.format_key, item.message.caller)
                    if item.cancelled and self._formats.discard(item, item.format_key):
                        self._finish_cancelled(item)
                else:
                    submit(item)
            except Exception as error:
                if isinstance(item, Count):
                    self.send(failure_message(item.id, error))
                else:
                    self._finish(item, failure_message(item.message.id, error))
            finally:
                self._activity.end("the tokens of a prompt")

    def _compile(self, model: LoadedModel, submit: Callable[[EngineRequest], None]) -> None:
        """Compiles formats, each once for all that wait for it, and submits their requests."""
        from abstractllm.providers.huggingface.worker.preparation import compile_format, find_format

        work = f"the compilation of a format ({threading.current_thread().name})"
        while True:
            job = self._formats.take()
            failure: Exception | None = None
            with self._activity.at(work):
                try:
                    compile_format(model, job.request)
                except Exception as error:
                    failure = error
                for request in self._formats.finish(job):
                    try:
                        if failure is not None:
                            raise failure
                        if request.matcher is None and not find_format(model, request):
                            compile_format(model, request)
                        submit(request)
                    except Exception as error:
                        self._finish(request, failure_message(request.message.id, error))

    def _generate(self, model: LoadedModel) -> None:
        """Answers requests one at a time, of a model that is not batched."""
        from abstractllm.providers.huggingface.worker.sequential import before_each_layer, generate

        work = "a layer of the model"
        before_each_layer(model, lambda: self._activity.begin(work))
        while True:
            request = self._to_generate.get()
            if request.cancelled:
                self._finish_cancelled(request)
                continue
            with self._activity.at(work):
                try:
                    done = generate(model, request, self.send)
                except Exception as error:
                    model.recover(error)
                    self._finish(request, failure_message(request.message.id, error, request.output_tokens))
                else:
                    self._finish(request, done)

    def _finish_cancelled(self, request: EngineRequest) -> None:
        self._finish(request, Done(request.message.id, "cancelled", "", 0, 0))

    def _finish(self, request: EngineRequest, message: Done | Failed) -> None:
        self._forget(request)
        self.send(message)

    def _forget(self, request: EngineRequest) -> None:
        with self._lock:
            del self._requests[request.message.id]


def _caller_of(item: EngineRequest | Count) -> str:
    return "" if isinstance(item, Count) else item.message.caller


def _load(settings: Load, report: ReportProgress) -> LoadedModel:
    if settings.is_directory and not Path(settings.model).is_dir():
        raise no_directory_error(settings.model)
    if settings.local_files_only:
        os.environ["HF_HUB_OFFLINE"] = "1"  # the hub's library asks it for more than files
    try:
        # Importing torch takes seconds, during which the reader already watches the channel.
        with _lasting_objects():
            import abstractllm.providers.huggingface.worker.batching.start  # noqa: F401 - the batch needs it next
            from abstractllm.providers.huggingface.worker.loading import load_model
    except ModuleNotFoundError as error:
        raise ConfigurationError(missing_package(error.name)) from error
    return load_model(settings, report)


@contextmanager
def _lasting_objects() -> Iterator[None]:
    """Keeps the cyclic garbage collector away from the objects that are made meanwhile, now and later.

    Importing torch and transformers makes some 630,000. Passes of the collector over them are a seventh of the imports'
    time, and would hold up a step of the batch each time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _run_or_end_process(function: Callable[..., None], *arguments: object) -> None:
    """Runs a thread's function; if it fails, the process ends, since the provider would wait for the thread in vain."""
    try:
        function(*arguments)
    except BaseException:
        traceback.print_exc()
        end_process(1)


def end_process(code: int) -> NoReturn:
    """Ends the process at once, with all that it has started, whose process group it leads."""
    if code == 0 and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(code)
