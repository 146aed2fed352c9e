import shutil

from tests.interop.servers import World


def prepare(world: World) -> None:
    shutil.rmtree(world.cache, ignore_errors=True)
