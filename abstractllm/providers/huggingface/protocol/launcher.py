"""The first program of a child process: ties its life to its parent's, then runs the program proper.

`python -P launcher.py PARENT SIGNAL PROGRAM ARGUMENTS...`, where PARENT is the parent's process id, SIGNAL the number
of the signal that it gets when the parent ends, and PROGRAM a module or a file.

A child process ends when its channel closes; but one that is stopped, as by SIGSTOP, notices nothing, and would outlive
a parent that is killed, with all its memory. Linux sends it a signal at the end of the thread that has started it, if
it asks for that: SIGCONT, so that it goes on, notices, and ends itself and all that it has started; or SIGKILL.
This file asks first of all, and imports nothing of the package: to import that takes half a second.
"""

from __future__ import annotations

import os
import signal
import sys

__all__ = ["launch_command"]

_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""


def launch_command(program: str, *arguments: str, at_parents_end: signal.Signals) -> list[str]:
    """Returns the command of a child process.

    Args:
        program: The name of a module, or the path of a Python file.
        *arguments: The arguments of the program.
        at_parents_end: The signal that it gets when its parent ends: SIGCONT for one that ends with its channel.
    """
    return [sys.executable, "-P", __file__, str(os.getpid()), str(int(at_parents_end)), program, *arguments]


def _main() -> None:
    parent, number, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, number)
    if os.getppid() != parent:  # which ended before it could be asked for
        os._exit(1)
    sys.argv[:] = sys.argv[3:]
    import runpy

    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
