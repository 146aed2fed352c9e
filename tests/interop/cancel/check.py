import time
from typing import Any

from tests.interop.servers import HANG, World


def prepare(world: World) -> None:
    world.echo.requests.clear()
    world.echo.released = 0


def check(world: World, observed: Any) -> None:
    """Three of the four calls came to the server, and all were given up long before their hundred seconds."""
    end = time.monotonic() + HANG
    while world.echo.released < 3 or world.echo.running:
        assert time.monotonic() < end, f"{world.echo.released} of 3 calls are over"
        time.sleep(0.01)
    prompts = [request.prompt for request in world.echo.requests]
    assert prompts == ["after the first event", "in the middle", "whole"]
