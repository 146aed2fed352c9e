"""Starts a download: `abstractllm.providers.huggingface.hub.downloader DESCRIPTOR`, by the launcher.

The descriptor is a socket's, from which the process reads what to download, and to which it writes its progress. When
the other side closes it, however that comes about, the process ends at once; the next one goes on with what is on the
disk.
"""

import os
import queue
import socket
import sys
import threading
import traceback
from collections.abc import Callable

from abstractllm.errors import ErrorReason
from abstractllm.providers.huggingface.hub.downloader.messages import Pull, Pulled, PullFailed, Report, ToDownloader
from abstractllm.providers.huggingface.missing import missing_package
from abstractllm.providers.huggingface.protocol.channel import Channel, encode
from abstractllm.providers.huggingface.protocol.messages import Pong
from abstractllm.providers.huggingface.protocol.signals import settle_signals


def main() -> None:
    """Does the one download that the other side of the socket asks for."""
    settle_signals()
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    channel = Channel[ToDownloader](socket.socket(fileno=descriptor), ToDownloader)
    pulls: queue.SimpleQueue[Pull] = queue.SimpleQueue()

    def read() -> None:
        try:
            for message in channel:
                if isinstance(message, Pull):
                    pulls.put(message)
                else:
                    channel.send(encode(Pong({})), urgent=True)
        finally:
            os._exit(0)

    threading.Thread(target=read, name="reader", daemon=True).start()
    channel.send(encode(_outcome(pulls.get(), lambda report: channel.send(encode(report)))))
    threading.Event().wait(30)  # the other side closes the channel as soon as it has read this
    os._exit(1)


def _outcome(pull: Pull, report: Callable[[Report], None]) -> Pulled | PullFailed:
    """Downloads; returns the outcome."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # they would be drawn into a log
    try:
        # Importing takes half a second, in which the process can already be ended.
        from abstractllm.providers.huggingface.hub.downloader.download import Download
        from abstractllm.providers.huggingface.hub.downloader.failures import as_library_error
    except ModuleNotFoundError as error:
        return PullFailed(ErrorReason.NOT_CONFIGURED, missing_package(error.name))
    try:
        return Pulled(Download(pull, report).run())
    except Exception as error:
        traceback.print_exc()
        failure = as_library_error(pull, error)
        return PullFailed(failure.reason, failure.message, failure.field, failure.upstream_status, failure.retry_after)


if __name__ == "__main__":
    main()
