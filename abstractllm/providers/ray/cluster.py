"""This process's place in a Ray cluster: there is one for all LLMs, as Ray has it."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from abstractllm._core.forks import forget_in_forked_child
from abstractllm.errors import ConfigurationError
from abstractllm.providers.ray.errors import UnansweredError
from abstractllm.providers.ray.reachability import LOCAL, check_reachable, unreachable
from abstractllm.providers.ray.threads import ThreadOfItsOwn

if TYPE_CHECKING:
    from abstractllm.providers.ray.config import ReplicaKeys

__all__ = ["Cluster", "cluster", "import_serve", "quiet", "resolved_address"]

_STARTS = 4
_ANSWER_SECONDS = 60.0
"""Time of a cluster that takes connections for answering; Ray's own bound is a quarter of an hour."""
_LEAVING_SECONDS = 10.0
_TURN_SECONDS = 20.0
"""Time of Ray Serve's controller for answering; Ray itself would wait without end."""
_OUTAGE_SECONDS = 10**6
"""Time without its head after which Ray ends the process that is connected to it, with all that it does beside."""
_OUTAGE_VARIABLE = "RAY_gcs_rpc_server_reconnect_timeout_s"
_CONNECT_VARIABLE = "RAY_ENABLE_AUTO_CONNECT"
"""Tells Ray, when it is imported, whether a call connects a process that is not: it would start a Ray of its own."""
_NEW_CLUSTER_HINT = "; where another cluster has taken the place of the one that was lost, start this process again"
_OWN_ENDED_HINT = "; it was this process's own, and is not started twice: start this process again"
T = TypeVar("T")
_SIGACTION_BYTES = 512
"""More than a `struct sigaction` has on any platform."""


def resolved_address(address: str | None) -> str:
    """Returns the cluster that is meant: the configured one, else the environment's, else one of this process's own."""
    return address or os.environ.get("RAY_ADDRESS", "").strip() or LOCAL


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what Ray's own modules warn of: it is not the user's to mend."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, ResourceWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        yield


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keeps the process's own way of taking SIGTERM.

    Ray puts a handler in front of it that writes a stack trace and sets an alarm, which would end a server in the midst
    of its drain, and takes all handlers away when it is left. Only the C library can put it back from another thread
    than the main one.
    """
    libc, before = ctypes.CDLL(None), ctypes.create_string_buffer(_SIGACTION_BYTES)
    is_known = libc.sigaction(int(signal.SIGTERM), None, before) == 0
    try:
        yield
    finally:
        if is_known:
            libc.sigaction(int(signal.SIGTERM), before, None)


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Sets a variable of the environment for a while, for this process alone, unless the operator has set it."""
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def _surviving_outages() -> contextlib.AbstractContextManager[None]:
    """Keeps Ray from ending this process a minute after the cluster's head has gone.

    Ray reads that when it connects. The processes of a Ray that is started here are not to have it: they do end.
    """
    return _variable(_OUTAGE_VARIABLE, str(_OUTAGE_SECONDS))


def import_serve() -> tuple[Any, Any]:
    """Returns the modules `ray` and `ray.serve`; importing them takes seconds.

    Raises:
        ConfigurationError: If they are not installed.
    """
    # Ray would tell its makers of the cluster.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        with quiet(), _variable(_CONNECT_VARIABLE, "0"):
            import ray
            from ray import serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "ray":
            raise
        raise ConfigurationError(
            "the package ray is not installed; LLMs on Ray Serve need: pip install 'abstractllm-grpc[ray]'"
        ) from error
    # Lines on the standard error, in a form of its own: for each connection and deployment, each request refused.
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray, serve


class Cluster:
    """The connection to Ray. It is made for the first LLM that needs it and given up with the last one.

    A Ray that the program has connected to by itself is used as it is, and left alone at the end.
    """

    def __init__(self) -> None:
        self._reset()
        forget_in_forked_child(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._wanted = self._address = ""
        self._is_ours = self._is_program_s = False
        # A Ray that is started here is ended by the kernel with the thread that has started it: this one stays.
        self._thread = ThreadOfItsOwn("ray")
        self._turns = ThreadOfItsOwn("ray serve")
        self.handles: dict[str, Any] = {}
        """The handles of deployments, by application."""
        self.connection = 0
        """The number of the connection: another one each time that one is given up because nobody answers."""

    def forget(self) -> None:
        """Called in a forked child: the connection is its parent's."""
        self._reset()

    @property
    def is_local(self) -> bool:
        """True if the Ray ends with this process."""
        return self._is_ours and self._address == LOCAL

    def join(self, keys: ReplicaKeys) -> int:
        """Connects to the cluster, if no other LLM has, and starts Ray Serve there if it does not run.

        Returns:
            The number of the connection.

        Raises:
            ConfigurationError: If Ray is not installed, or the process is connected to another cluster.
            ProviderUnavailableError: If the cluster cannot be reached, or does not answer in time.
        """
        address = resolved_address(keys.ray_address)
        with self._lock:
            if self._users and not self._is_program_s and address != self._wanted:
                raise ConfigurationError(
                    f"ray_address: all LLMs of a process are on one cluster, and it is connected to {self._wanted}",
                    field="ray_address",
                    limit=self._wanted,
                    requested=address,
                )
            self._wanted = address
            self._users += 1
            connection = self.connection
        try:
            import_serve()
            check_reachable(address)
            # One of its own is started in steps that have bounds themselves; one that was lost may never answer again.
            wait = None if address == LOCAL and not connection else _ANSWER_SECONDS
            connecting = self._thread.submit(lambda: self._connect(address, keys))
            try:
                connecting.result(wait)
            except TimeoutError as error:
                # Ray cannot be interrupted: whoever comes next waits for the same attempt.
                connecting.cancel()
                hint = "" if not connection else _OWN_ENDED_HINT if address == LOCAL else _NEW_CLUSTER_HINT
                raise unreachable(address, f"it has not answered for {_ANSWER_SECONDS:g} seconds{hint}") from error
        except BaseException:
            with self._lock:
                if connection == self.connection:
                    self._users -= 1
            raise
        return connection

    def take_turn(self, act: Callable[[], T], seconds: float = _TURN_SECONDS) -> T:
        """Calls Ray Serve's functions, which are not made for more than one thread.

        Making a deployment's options enters a module in cloudpickle's process-wide set and takes it out again, which
        fails where another thread has taken it out before (`RequestRouterConfig` in `ray/serve/config.py`, Ray 2.60).

        Raises:
            UnansweredError: If Ray does not answer in time; it may wait without end, which then hinders nobody.
        """
        turn = self._turns.submit(act)
        try:
            return turn.result(seconds)
        except TimeoutError as error:
            if turn.done() and not turn.cancelled():
                raise
            turn.cancel()
            raise UnansweredError(
                f"Ray Serve's controller has not answered for {seconds:g} seconds", retry_after=1.0
            ) from error

    def give_up(self, connection: int) -> None:
        """Counts a connection as lost on which nobody answers: whoever uses it has to join again.

        Ray stays connected: it comes back with the same cluster, and leaving it would end this process, since threads
        of Ray Serve go on asking it (2.60). Only a process that starts anew can use another cluster of that address.

        Args:
            connection: Its number; nothing happens if it has been given up already.
        """
        with self._lock:
            if connection != self.connection:
                return
            self.connection += 1
            self._users = 0
            # The thread may wait without end.
            self._turns = ThreadOfItsOwn("ray serve")
            self._thread = ThreadOfItsOwn("ray") if self._address != LOCAL else self._thread

    def leave(self, connection: int) -> None:
        """Gives the connection up, if no other LLM needs it.

        Args:
            connection: Its number.
        """
        with self._lock:
            if connection != self.connection:
                return
            self._users -= 1
            if self._users:
                return
            if not self._is_ours:
                with contextlib.suppress(Exception):
                    self.take_turn(self._end_handles, _LEAVING_SECONDS)
            else:
                with contextlib.suppress(UnansweredError):
                    self.take_turn(lambda: None, _LEAVING_SECONDS)  # Ray must not be left under what it is being asked
                with contextlib.suppress(TimeoutError):
                    self._thread.submit(self._disconnect).result(_LEAVING_SECONDS)

    # In the threads.

    def _end_handles(self) -> None:
        """Ends the handles of LLMs in a Ray that stays: each would report its number of requests for ever.

        Once the program has left that Ray, they would connect it again, or start another one.
        """
        _, serve = import_serve()
        cache = serve.context._global_client.handle_cache
        for handle in self.handles.values():
            for key in [key for key, known in cache.items() if known is handle]:
                del cache[key]
            handle.shutdown()
        self.handles.clear()

    def _connect(self, address: str, keys: ReplicaKeys) -> None:
        ray, serve = import_serve()
        options: dict[str, Any] = {}
        if address == LOCAL:
            options = {
                "num_cpus": keys.ray_cpus,
                "object_store_memory": keys.ray_object_store,
                "include_dashboard": False,
            }
        try:
            if self._is_ours and self._address != address:
                self._disconnect()  # an attempt that nobody has waited for
            with quiet():
                if not ray.is_initialized():
                    self._is_ours, self._address, self._is_program_s = True, address, False
                    _start(ray, address, options)
                self._is_program_s = not self._is_ours
                serve.start(proxy_location="Disabled")
        except Exception as error:
            if self._is_ours and self._users <= 1 and not self.connection:
                with contextlib.suppress(Exception):
                    self._disconnect()
            raise unreachable(address, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error

    def _disconnect(self) -> None:
        ray, serve = import_serve()
        self._is_ours = False
        with contextlib.suppress(Exception):
            # Of an autoscaled deployment they report the number of requests for ever, and connect this process again.
            serve.context._global_client.shutdown_cached_handles()
        self.handles.clear()
        with quiet(), _own_sigterm():
            ray.shutdown()
        # It keeps the controller that it knew, and would ask that one again.
        serve.context._set_global_client(None)


def _start(ray: Any, address: str, options: dict[str, Any]) -> None:
    """Connects to Ray or, where it is to be one of this process's own, starts it.

    Ray gives its own parts half a minute to start, which is too little on a machine that is busy.
    """
    for tries in range(1, _STARTS + 1):
        try:
            with _own_sigterm(), contextlib.nullcontext() if address == LOCAL else _surviving_outages():
                ray.init(
                    address=address, configure_logging=False, log_to_driver=False, namespace="abstractllm", **options
                )
        except Exception as error:
            if tries == _STARTS or address != LOCAL or "timed out during startup" not in str(error):
                raise
            with _own_sigterm():
                ray.shutdown()
                _end_node_of(error)
        else:
            return


def _end_node_of(error: Exception) -> None:
    """Ends the processes of a Ray that has not started in time, which Ray itself leaves running beside the next ones.

    They are known to the object alone whose making has failed.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if (end := getattr(frame.f_locals.get("self"), "kill_all_processes", None)) is not None:
            with contextlib.suppress(Exception):
                end(check_alive=False, allow_graceful=False)
            return


cluster = Cluster()
"""The connection of this process."""
