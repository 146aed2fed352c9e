import time
from typing import Any

from tests.interop.servers import HANG, World


def steps_until_idle(world: World, question: dict[str, Any]) -> dict[str, int]:
    """Waits until the engine has nothing to do; tells how many steps it made after the server knew of the leaving."""
    end = time.monotonic() + HANG
    local = world.local
    while local.running:  # the server's side of the call; the client has left it before it asked
        assert time.monotonic() < end, "the server has not noticed that the caller left"
        time.sleep(0.0005)
    noticed = local.counters.steps
    while local.counters.active or local.counters.running:
        assert time.monotonic() < end, "the engine goes on"
        time.sleep(0.0005)
    return {"steps": local.counters.steps - noticed, "running_after": local.running}


def check(world: World, observed: Any) -> None:
    """The engine needs two batches. A step of so small a model takes a millisecond, and a busy machine may let it make
    some more before the word of the leaving is even sent; none comes near the 400 of the whole answer."""
    assert min(one["steps"] for one in observed["left"]) <= 2
