"""Asks a question and prints the answer, and what it took.

python ask.py [HOST:PORT] [LLM]
"""

import sys

from abstractllm_client import RemoteLLM

with RemoteLLM(*(sys.argv[1:] or ["127.0.0.1:50051"])) as llm:
    print(llm.generate("What is the capital of France?", temperature=0))

    answer = llm.complete("What is 7 + 5?", temperature=0)
    print(f"{answer.text}  ({answer.model}: {answer.usage.input_tokens} + {answer.usage.output_tokens} tokens)")
