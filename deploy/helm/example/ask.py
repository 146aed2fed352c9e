"""Asks the sidecar a question every ten seconds, until the pod ends."""

import os
import signal
import sys
import time

from abstractllm_client import RemoteLLM


def main() -> None:
    """Asks, and prints the answers."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with RemoteLLM(os.environ["ABSTRACTLLM_ADDRESS"]) as llm:
        while True:
            print(llm.generate("What is the capital of France?", temperature=0), flush=True)
            time.sleep(10)


if __name__ == "__main__":
    main()
