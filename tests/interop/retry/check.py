from typing import Any

from tests.interop.servers import World


def prepare(world: World) -> None:
    world.attempts.clear()


def check(world: World, observed: Any) -> None:
    """Checks the number of times that the server was asked."""
    assert world.attempts == {"overloaded": 3, "unavailable": 4, "always": 5, "quota": 1, "invalid": 1, "large": 3}
