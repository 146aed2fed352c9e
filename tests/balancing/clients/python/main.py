"""The Python program: calls at a steady rate through one client; see `main.go`."""

import asyncio
import json
import sys
import time

from abstractllm_client import AsyncRemoteLLM


async def main() -> None:
    """Makes the calls that the argument asks for."""
    task = json.loads(sys.argv[1])
    token = task.get("token") or None
    options: list[tuple[str, object]] = [("grpc.dns_min_time_between_resolutions_ms", 500)]
    if service_config := task.get("service_config"):
        options.append(("grpc.service_config", service_config))
    async with AsyncRemoteLLM(
        task["address"], token=token, load_balancing=task["load_balancing"], channel_options=options
    ) as llm:
        begin = time.monotonic()
        calls = []
        for count in range(int(task["rate"] * task["seconds"])):
            await asyncio.sleep(begin + count / task["rate"] - time.monotonic())
            calls.append(asyncio.create_task(one(llm, begin)))
        await asyncio.gather(*calls)


async def one(llm: AsyncRemoteLLM, begin: float) -> None:
    """Makes one call and tells how it ended."""
    began = time.monotonic()
    try:
        outcome = (await llm.generate("hello", timeout=60)).split(" ")[0]
    except Exception as error:
        outcome = "error: " + str(error).replace("\n", " ")
    print(f"{began - begin:.3f} {time.monotonic() - began:.4f} {outcome}", flush=True)


asyncio.run(main())
