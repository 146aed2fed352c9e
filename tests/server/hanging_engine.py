"""An engine process, run as a program, whose next step never ends once the file that TEST_HANG_ORDER names exists."""

import os
import threading
from pathlib import Path
from typing import Any

from abstractllm.providers.huggingface.worker import __main__
from abstractllm.providers.huggingface.worker.batching.engine import _Manager

ORDER = Path(os.environ["TEST_HANG_ORDER"])


def _hang_if_ordered() -> None:
    if ORDER.exists():
        ORDER.unlink()
        threading.Event().wait()


def _patch(owner: Any, name: str) -> None:
    original = getattr(owner, name)

    def patched(*arguments: Any, **options: Any) -> Any:
        _hang_if_ordered()
        return original(*arguments, **options)

    setattr(owner, name, patched)


_patch(_Manager, "_generation_step")
__main__.main()
