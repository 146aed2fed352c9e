"""The program of an engine process: `abstractllm.providers.huggingface.worker DESCRIPTOR`, by the launcher."""

import os
import socket
import sys

from abstractllm.providers.huggingface.protocol.channel import Channel
from abstractllm.providers.huggingface.protocol.messages import ToEngine
from abstractllm.providers.huggingface.protocol.signals import settle_signals
from abstractllm.providers.huggingface.worker.server import Worker


def main() -> None:
    """Serves the provider at the other end of the socket whose descriptor is the only argument."""
    settle_signals()
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    Worker(Channel[ToEngine](socket.socket(fileno=descriptor), ToEngine)).run()


if __name__ == "__main__":
    main()
