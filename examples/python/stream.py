"""Prints an answer as it comes, first its text alone, then every event; twice at once with asyncio.

python stream.py [HOST:PORT] [LLM]
"""

import asyncio
import sys

from abstractllm_client import AsyncRemoteLLM, Finished, RemoteLLM, TextDelta

where = sys.argv[1:] or ["127.0.0.1:50051"]

with RemoteLLM(*where) as llm:
    for piece in llm.generate("Count from 1 to 10.", stream=True, temperature=0):
        print(piece, end="", flush=True)
    print()

    for event in llm.stream("What is the opposite of hot?", temperature=0):
        match event:
            case TextDelta(text=text):
                print(text, end="", flush=True)
            case Finished(finish_reason=reason, timing=timing):
                print(f"  ({reason}, first token after {timing.first_token:.3f} s)")


async def main() -> None:
    """Two questions at the same time over one connection."""
    async with AsyncRemoteLLM(*where) as llm:
        questions = ("What is the capital of Italy?", "What is the capital of Japan?")
        for text in await asyncio.gather(*(llm.generate(question, temperature=0) for question in questions)):
            print(text)


asyncio.run(main())
