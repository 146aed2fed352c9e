"""The program of an engine process: `abstractllm.providers.huggingface.worker DESCRIPTOR`, by the launcher."""

import os
import socket
import sys

from abstractllm.providers.huggingface.protocol.channel import Channel
from abstractllm.providers.huggingface.protocol.messages import ToEngine
from abstractllm.providers.huggingface.protocol.signals import settle_signals
from abstractllm.providers.huggingface.worker.server import Worker

SWITCH_SECONDS = 0.0005
"""The time after which a thread that runs Python lets another one run that waits for its turn.

Ten times as long, as it is by default, is about as long as a small model's step, and a request is in the hands of two
threads, one after another, before the batch loop has it."""


def main() -> None:
    """Serves the provider at the other end of the socket whose descriptor is the only argument."""
    settle_signals()
    sys.setswitchinterval(SWITCH_SECONDS)
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    Worker(Channel[ToEngine](socket.socket(fileno=descriptor), ToEngine)).run()


if __name__ == "__main__":
    main()
