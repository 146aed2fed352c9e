import asyncio
import statistics
import time

from abstractllm_client import AsyncRemoteLLM
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    return asyncio.run(many(task))


async def many(task: Task) -> object:
    inputs = task.input
    right = pieces = 0
    first_pieces: list[float] = []

    async def ask(llm: AsyncRemoteLLM, stream: int) -> None:
        nonlocal right, pieces
        prompt = f"{stream} " * inputs["words"]
        for _ in range(inputs["answers"]):
            start = time.perf_counter()
            came: list[str] = []
            async for piece in await llm.generate(prompt.strip(), stream=True):
                if not came:
                    first_pieces.append(time.perf_counter() - start)
                came.append(piece)
            pieces += len(came)
            right += "".join(came) == prompt.strip()

    async with AsyncRemoteLLM(task.servers["plain"], inputs["llm"]) as llm:
        await llm.generate("connects")
        start = time.perf_counter()
        await asyncio.gather(*(ask(llm, stream) for stream in range(inputs["streams"])))
        seconds = time.perf_counter() - start
    return {
        "right": right,
        "pieces": pieces,
        "seconds": seconds,
        "first_piece_seconds": statistics.median(first_pieces),
    }
