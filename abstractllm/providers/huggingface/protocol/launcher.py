"""The first program of a child process: ties its life to its parent's, then runs the program proper.

`python -P launcher.py PARENT PROGRAM ARGUMENTS...`, where PARENT is the parent's process id, and PROGRAM a module or a
file.

A child process ends when its channel closes; but one that is stopped, as by SIGSTOP, notices nothing, and would outlive
a parent that is killed, with all its memory. Linux ends it with the thread that has started it, if it asks for that.
This file asks first of all, and imports nothing of the package: to import that takes half a second.
"""

from __future__ import annotations

import os
import signal
import sys

__all__ = ["launch_command"]

_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""


def launch_command(program: str, *arguments: str) -> list[str]:
    """Returns the command of a child process.

    Args:
        program: The name of a module, or the path of a Python file.
        *arguments: The arguments of the program.
    """
    return [sys.executable, "-P", __file__, str(os.getpid()), program, *arguments]


def _main() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    parent, program = int(sys.argv[1]), sys.argv[2]
    if os.getppid() != parent:  # which ended before it could be asked for
        os._exit(1)
    sys.argv[:] = sys.argv[2:]
    import runpy

    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
