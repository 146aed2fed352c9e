import time
from typing import Any

from tests.interop.servers import HANG, World


def prepare(world: World) -> None:
    world.echo.released = 0


def check(world: World, observed: Any) -> None:
    """Both generations ended, long before their hundred seconds."""
    end = time.monotonic() + HANG
    while world.echo.released < 2:
        assert time.monotonic() < end, "the server goes on"
        time.sleep(0.01)
