"""Starts the server with the demo model, shows one answer streamed through gRPC, serves until Ctrl-C.

`make run` and `make demo` (`--exit`: stop after the answer) call it with the environment's Python.
"""

import argparse
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from abstractllm_client import AbstractLLMError, LlmState, RemoteLLM

HOST = "127.0.0.1"
QUESTION = "What is the capital of France?"
READY_WITHIN_SECONDS = 180.0
STOPPED_WITHIN_SECONDS = 30.0


def main() -> None:
    """Runs the demonstration; exit code 0 after Ctrl-C or SIGTERM, 1 with a message if it cannot be shown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=50051, help="port on 127.0.0.1, 0 for a free one (default: 50051)")
    parser.add_argument("--exit", action="store_true", help="stop the server after the answer")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupt)
    try:
        with serving(arguments.port) as (server, address):
            show_answer(address)
            if not arguments.exit:
                show_next_steps(address)
                code = server.wait()
                sys.exit(f"The server ended by itself with exit code {code}.")
    except KeyboardInterrupt:
        print("\nThe server has stopped.")


@contextmanager
def serving(port: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server with the demo model: its process and its address, once it is ready; stopped at the end.

    Exits with a message if the port is taken, or the server does not get ready.
    """
    port = usable_port(port)
    address = f"{HOST}:{port}"
    program = str(Path(sys.executable).with_name("abstractllm"))
    # A session of its own: Ctrl-C reaches this program alone, which then stops the server once.
    server = subprocess.Popen(
        [program, "serve", "--model", "demo", "--host", HOST, "--port", str(port), "--log-level", "warning"],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until_ready(server, address)
        yield server, address
    finally:
        stop(server)


def interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Lets SIGTERM end the program the way Ctrl-C does."""
    raise KeyboardInterrupt


def usable_port(port: int) -> int:
    """Returns the port, a free one for 0; exits with a clear line if another program listens on it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
        except (OSError, OverflowError) as error:
            sys.exit(f"Port {port} of {HOST} cannot be used ({error}). Name another: make run PORT=50052")


def wait_until_ready(server: subprocess.Popen[bytes], address: str) -> None:
    """Waits for the readiness service of the server to say SERVING, showing how long it takes.

    Exits with a message if the server ends before that, cannot load its model, or is not ready after three minutes.
    """
    start = time.monotonic()
    print(f"Starting the server on {address} and loading the demo model ...", flush=True)
    with grpc.insecure_channel(address) as channel, RemoteLLM(address, timeout=2) as llm:
        health = HealthStub(channel)
        while time.monotonic() - start < READY_WITHIN_SECONDS:
            code = server.poll()
            if code is not None:
                sys.exit(f"The server ended with exit code {code} before it was ready; see its messages.")
            with suppress(grpc.RpcError, AbstractLLMError):  # not listening yet
                answer = health.Check(HealthCheckRequest(service=""), timeout=2)
                if answer.status == HealthCheckResponse.SERVING:
                    print(f"Ready after {time.monotonic() - start:.1f} s.", flush=True)
                    return
                failed = [one.state_reason for one in llm.list_llms() if one.state == LlmState.FAILED]
                if failed:
                    sys.exit(f"The demo model cannot be loaded: {failed[0]}")
            time.sleep(0.2)
    sys.exit(f"The server was not ready within {READY_WITHIN_SECONDS:.0f} s; see its messages.")


def show_answer(address: str) -> None:
    """Streams one answer to the terminal, as it comes."""
    print(f"\n> {QUESTION}", flush=True)
    with RemoteLLM(address) as llm:
        for text in llm.generate(QUESTION, stream=True, temperature=0):
            print(text, end="", flush=True)
    print("\n", flush=True)


def show_next_steps(address: str) -> None:
    """Prints how to call the server that keeps running."""
    python = Path(sys.executable)
    with suppress(ValueError):
        python = python.relative_to(Path.cwd())
    print(f"Serving on {address} until Ctrl-C. From another terminal:")
    print(f"  {python.with_name('abstractllm')} generate --address {address} 'What is 7 + 5?'")
    print(
        f'  {python} -c "from abstractllm_client import RemoteLLM; '
        f"print(RemoteLLM('{address}').generate('What is 7 + 5?'))\"",
        flush=True,
    )


def stop(server: subprocess.Popen[bytes]) -> None:
    """Ends the server and waits for it; a second Ctrl-C, or half a minute, kills it."""
    server.terminate()
    try:
        server.wait(STOPPED_WITHIN_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
