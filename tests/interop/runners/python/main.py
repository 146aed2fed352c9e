"""The Python runner: runs the behaviours that it is asked for on the standard input."""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from dataclasses import dataclass
from typing import Any

from abstractllm_client import RemoteLLM


@dataclass(frozen=True)
class Task:
    """The case of a behaviour, and the servers to ask.

    Attributes:
        input: From its case.
        servers: Addresses, files and tokens by name.
    """

    input: Any
    servers: dict[str, str]

    def connect(self, llm: str = "", server: str = "plain", **options: Any) -> RemoteLLM:
        """A client of one of the servers."""
        return RemoteLLM(self.servers[server], llm, **options)

    def ask(self, do: str, **facts: Any) -> Any:
        """Asks the suite for something, and waits for its answer."""
        tell({"ask": {"do": do, **facts}})
        return json.loads(sys.stdin.readline())["answer"]


def tell(message: dict[str, Any]) -> None:
    """Writes one line."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Runs until the input ends."""
    while line := sys.stdin.readline():
        task = json.loads(line)
        try:
            behaviour = importlib.import_module(f"tests.interop.{task['behaviour']}.run")
            tell({"observed": behaviour.run(Task(task["input"], task["servers"]))})
        except Exception:
            tell({"failed": traceback.format_exc()})


if __name__ == "__main__":
    main()
