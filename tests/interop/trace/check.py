from typing import Any

from tests.interop.servers import World


def metadata(world: World, question: dict[str, Any]) -> dict[str, str]:
    """Returns the metadata that the last call carried."""
    return {name: world.recorder.metadata.get(name, "") for name in question["names"]}
