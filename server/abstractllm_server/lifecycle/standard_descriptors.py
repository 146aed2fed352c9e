"""Standard input, output and error of a process that was started without them."""

from __future__ import annotations

import os

__all__ = ["open_standard_descriptors"]

_LAST = 2


def open_standard_descriptors() -> None:
    """Opens those that are closed, on nothing; called before anything else is opened.

    Else a pipe of this process, or a socket of gRPC, would get the number of one, and be lost when the log takes its
    place, or get what somebody prints.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
