"""An engine process without a model, which starts in a moment; its one argument is the descriptor of the channel.

It speaks the protocol of `abstractllm.providers.huggingface.worker` and imports nothing of this package, for speed. The
directory's name says what it does: `slow` takes half a second to load, `crashing` ends itself at every fifth answer.
"""

import queue
import socket
import sys
import threading
import time
from typing import Any

import msgspec


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    cancelled: set[int] = set()

    def send(kind: str, **fields: Any) -> None:
        body = msgspec.msgpack.encode({"type": kind, **fields})
        connection.sendall(len(body).to_bytes(4, "big") + body)

    def read() -> None:
        with connection.makefile("rb") as stream:
            while prefix := stream.read(4):
                message = msgspec.msgpack.decode(stream.read(int.from_bytes(prefix, "big")))
                if message["type"] == "Cancel":
                    cancelled.add(message["id"])
                else:
                    waiting.put(message)
        os_exit(0)

    from os import _exit as os_exit

    threading.Thread(target=read, daemon=True).start()
    model = waiting.get()["model"]
    send("Progress", phase="weights", fraction=0.5)
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
            os_exit(3)
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
