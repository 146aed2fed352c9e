"""Row 13: a caller that is frozen.

Pass mark: a process that streams and is stopped by SIGSTOP is noticed; its place at the provider is free within 20
seconds.
Load: one stream; on two transports: plain text and unix socket.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time

from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.server_process import ROOT, serving
from tests.reliability.upstream import hosted, speaking, upstream

_FROZEN = """
import sys, grpc
from abstractllm_api.v1 import generation_pb2 as pb, generation_pb2_grpc as rpc

stub = rpc.GenerationServiceStub(grpc.insecure_channel(sys.argv[1]))
for event in stub.StreamGenerate(pb.GenerateRequest(prompt="hi")):
    print("reads", flush=True)
"""


async def measure(setting: Setting) -> Figures:
    """Freezes one caller on each transport."""
    figures = setting.figures()
    for name, listen in (("TCP", {}), ("unix socket", {"listen": f"unix://{setting.folder}/s.sock"})):
        async with (
            upstream(speaking(10_000, 0.05)) as api,
            serving(setting.folder / name[:3], {"hosted": hosted(api)}, **listen) as server,
        ):
            arguments = (sys.executable, "-c", _FROZEN, server.address.replace("unix://", "unix:"))
            caller = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE, cwd=ROOT)
            try:
                assert caller.stdout is not None
                for _ in range(3):
                    await asyncio.wait_for(caller.stdout.readline(), 20)
                figures.equal(f"{name}: running before", api.running, 1)
                caller.send_signal(signal.SIGSTOP)
                began = time.monotonic()
                while api.running and time.monotonic() - began < 40:
                    await asyncio.sleep(0.1)
                figures.at_most(f"{name}: free after", time.monotonic() - began, 20, "s")
            finally:
                caller.kill()
                await caller.wait()
    return figures


ROW = Row(
    numbers=(13,),
    title="a caller under SIGSTOP, over TCP and a unix socket",
    pass_mark="slot free within 20 s",
    measure=measure,
)
