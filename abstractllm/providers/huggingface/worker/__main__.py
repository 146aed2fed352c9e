"""Starts an engine process: `python -P -m abstractllm.providers.huggingface.worker DESCRIPTOR`."""

import os
import socket
import sys

from abstractllm.providers.huggingface.worker.channel import Channel
from abstractllm.providers.huggingface.worker.loop import Worker
from abstractllm.providers.huggingface.worker.protocol import ToEngine


def main() -> None:
    """Serves the provider at the other end of the socket whose descriptor is the only argument."""
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    Worker(Channel[ToEngine](socket.socket(fileno=descriptor), ToEngine)).run()


if __name__ == "__main__":
    main()
