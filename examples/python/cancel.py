"""Leaves an answer before its end: the server stops generating it at once.

python cancel.py [HOST:PORT] [LLM]
"""

import sys

from abstractllm_client import GenerationTimeoutError, RemoteLLM

with RemoteLLM(*(sys.argv[1:] or ["127.0.0.1:50051"])) as llm:
    for number, piece in enumerate(llm.generate("Count from 1 to 20.", stream=True, temperature=0), start=1):
        print(piece, end="", flush=True)
        if number == 5:
            break  # ends the generation, as an exception or close() would
    print(" ... enough")

    try:
        llm.generate("Count from 1 to 20.", temperature=0, timeout=0.001)
    except GenerationTimeoutError as error:
        print(f"too late: {error}")
