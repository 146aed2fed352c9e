from typing import Any

from tests.interop.servers import World


def check(world: World, observed: Any) -> None:
    assert all(one["joined"] == one["whole"] for one in observed)
