"""Starts a download: `python -P -m abstractllm.providers.huggingface.puller DESCRIPTOR`.

The descriptor is a socket's, on which the process is told what to download and tells how far it is. When the other side
closes it, however that comes about, the process ends at once: what is on the disk then is where the next one goes on.
"""

import os
import queue
import socket
import sys
import threading
import traceback

from abstractllm.providers.huggingface.puller.protocol import Pull, Pulled, PullFailed
from abstractllm.providers.huggingface.worker.channel import Channel, encode


def main() -> None:
    """Does the one download that the other end of the socket asks for."""
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    channel = Channel[Pull](socket.socket(fileno=descriptor), Pull)
    asked: queue.SimpleQueue[Pull] = queue.SimpleQueue()

    def read() -> None:
        try:
            for message in channel:
                asked.put(message)
        finally:
            os._exit(0)

    threading.Thread(target=read, name="reader", daemon=True).start()
    pull = asked.get()
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # they would be drawn into a log
    # Only now: the import takes half a second, in which the process can already be ended.
    from abstractllm.providers.huggingface.puller.download import Download
    from abstractllm.providers.huggingface.puller.failures import explained

    try:
        size = Download(pull, lambda report: channel.send(encode(report))).run()
        channel.send(encode(Pulled(size)))
    except Exception as error:
        traceback.print_exc()
        failure = explained(pull, error)
        channel.send(
            encode(
                PullFailed(failure.reason, failure.message, failure.field, failure.upstream_status, failure.retry_after)
            )
        )
    threading.Event().wait(30)  # the other side closes the channel as soon as it has read this
    os._exit(1)


if __name__ == "__main__":
    main()
