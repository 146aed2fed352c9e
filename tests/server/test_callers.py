"""Callers of one unix socket are told apart by their tokens: they take turns, and are held to limits of their own."""

import asyncio
import hashlib
from collections import Counter
from pathlib import Path

import grpc
from grpc import aio

from abstractllm_api.v1 import generation_pb2 as pb
from tests.providers.fake_http import HANG, Exchange
from tests.providers.openai_server import asking, saying
from tests.server.support import failure_of, serving
from tests.waiting import until


def token_file(folder: Path, *names: str) -> Path:
    """Lists a token for each caller, which is the caller's name."""
    file = folder / "tokens"
    lines = [f"{hashlib.sha256(name.encode()).hexdigest()} inference {name}" for name in names]
    file.write_text("\n".join(lines))
    file.chmod(0o600)
    return file


async def test_caller_over_a_unix_socket_does_not_wait_behind_hundreds_of_another(tmp_path: Path) -> None:
    order: list[str] = []

    async def handle(exchange: Exchange) -> None:
        order.append(exchange.request.json["messages"][0]["content"])
        await asyncio.sleep(0.02)
        await saying("ok")(exchange)

    settings = {"listen": f"unix://{tmp_path}/s", "tokens": token_file(tmp_path, "many", "one")}
    async with asking(handle, max_concurrent_requests=2) as (llm, _), serving({"gpt": llm}, **settings) as served:

        def ask(caller: str) -> aio.UnaryUnaryCall[pb.GenerateRequest, pb.GenerateResponse]:
            metadata = (("authorization", f"Bearer {caller}"),)
            return served.generation.Generate(pb.GenerateRequest(prompt=caller), metadata=metadata, timeout=HANG)

        many = [ask("many") for _ in range(200)]
        await until(lambda: llm.queued > 100)
        begun = len(order)
        assert (await ask("one")).text == "ok"
        # More than a hundred waited; some are answered while the call is on its way.
        assert order.index("one") - begun <= 50
        for call in many:
            call.cancel()


async def test_caller_with_a_token_is_held_to_the_limits_under_its_name(tmp_path: Path) -> None:
    released = asyncio.Event()

    async def handle(exchange: Exchange) -> None:
        await released.wait()
        await saying("ok")(exchange)

    settings = {"listen": f"unix://{tmp_path}/s", "tokens": token_file(tmp_path, "many", "one")}
    callers = {"many": {"max_running": 1, "max_queue": 3}}
    async with asking(handle, callers=callers) as (llm, server), serving({"gpt": llm}, **settings) as served:

        async def ask(caller: str) -> str:
            try:
                metadata = (("authorization", f"Bearer {caller}"),)
                answer = await served.generation.Generate(
                    pb.GenerateRequest(prompt="Hi"), metadata=metadata, timeout=HANG
                )
                return answer.text
            except aio.AioRpcError as error:
                refusal = failure_of(error)
                is_told = refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED and refusal.retry_delays
                return refusal.reason if is_told else refusal.message

        calls = [asyncio.create_task(ask(caller)) for caller in ["many"] * 10 + ["one"] * 5]
        await until(lambda: server.running == 6 and sum(call.done() for call in calls) == 6)
        released.set()
        assert Counter(await asyncio.gather(*calls)) == {"ok": 9, "RATE_LIMITED": 6}
