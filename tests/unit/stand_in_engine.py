"""An engine process without a model, which starts in a moment; its one argument is the descriptor of the channel.

It speaks the protocol of `abstractllm.providers.huggingface.worker` and imports nothing of this package, for speed. The
directory's name says what it does: `slow` takes half a second to load, `broken` cannot be loaded,
`crashing` ends itself at every fifth answer.
"""

import os
import queue
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec


def use(monkeypatch: Any) -> None:
    """Lets engine processes be of this kind, until the monkeypatch is undone."""
    from abstractllm.providers.huggingface.protocol import child_process

    def start(self: Any) -> None:
        child_process.ChildProcess.__init__(self, "stand_in_engine", child_process.FromEngine)

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(child_process.EngineProcess, "__init__", start)


def main() -> None:
    """Serves the provider at the other end of the channel."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    cancelled: set[int] = set()

    sending = threading.Lock()

    def send(kind: str, **fields: Any) -> None:
        body = msgspec.msgpack.encode({"type": kind, **fields})
        with sending:
            connection.sendall(len(body).to_bytes(4, "big") + body)

    def read() -> None:
        with connection.makefile("rb") as stream:
            while prefix := stream.read(4):
                message = msgspec.msgpack.decode(stream.read(int.from_bytes(prefix, "big")))
                if message["type"] == "Cancel":
                    cancelled.add(message["id"])
                elif message["type"] == "Ping":
                    send("Pong", work={})
                else:
                    waiting.put(message)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    model = Path(waiting.get()["model"]).name
    send("Progress", phase="weights", fraction=0.5)
    if "broken" in model:
        send("LoadFailed", reason="MODEL_LOAD_FAILED", message=f"model {model} is broken")
    time.sleep(0.5 if "slow" in model else 0.02)
    described = {
        "device": "cpu",
        "memory_bytes": 1000,
        "dtype": "float32",
        "quantization": "",
        "context_window": 10_000,
    }
    send("Loaded", **described, max_characters=None, system_prompt=True, slots=2, cache_bytes=500)
    answers = 0
    while True:
        message = waiting.get()
        ident = message["id"]
        if message["type"] == "Count":
            send("Counted", id=ident, tokens=3)
            continue
        answers += 1
        if "crashing" in model and answers % 5 == 0:
            os._exit(3)
        send("Begun", id=ident)
        for _ in range((message["sampling"].get("max_tokens") or 10**9) - 1):
            if ident in cancelled:
                break
            time.sleep(0.005)
            send("Delta", id=ident, text="x")
        reason = "cancelled" if ident in cancelled else "max_tokens"
        send("Done", id=ident, finish_reason=reason, stop_sequence="", input_tokens=3, output_tokens=1)


if __name__ == "__main__":
    main()
