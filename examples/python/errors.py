"""Shows errors that a program can act on: a class, a reason, the field, its limit.

python errors.py [HOST:PORT] [LLM]
"""

import sys

from abstractllm_client import AbstractLLMError, InvalidRequestError, RemoteLLM, UnknownLLMError

where = sys.argv[1:] or ["127.0.0.1:50051"]

with RemoteLLM(*where) as llm:
    try:
        llm.generate("Hi", temperature=5)
    except InvalidRequestError as error:
        print(f"{error.reason}: {error.field} must be {error.limit}, not {error.requested}")

    try:
        llm.generate("Hi", timeout=30)
        RemoteLLM(where[0], "nobody").generate("Hi")
    except UnknownLLMError as error:
        print(f"{error.reason}: {error}")
    except AbstractLLMError as error:  # whatever else there is
        print(f"{error.reason}, worth a retry: {error.retryable}, in the server's log under {error.request_id}")
