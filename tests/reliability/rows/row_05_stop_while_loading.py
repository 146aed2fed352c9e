"""Row 5: SIGTERM while a model loads.

Pass mark: at five moments of the loading the process ends within the grace and one second, and no child is left.
Load: five starts of a server with a real engine; a grace of two seconds.
"""

from __future__ import annotations

import asyncio
import time

from tests.reliability.calls import DEMO
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.server_process import descendants_left, serving

_GRACE = 2.0


async def measure(setting: Setting) -> Figures:
    """Ends servers at different moments of their loading."""
    figures = setting.figures()
    moments = (0.0, 0.3, 1.0, 2.0, 3.5) if setting.full else (1.0,)
    slowest, left, seen = 0.0, 0, 0
    for number, moment in enumerate(moments):
        async with serving(setting.folder / str(number), {"local": DEMO}, ready=False, grace=_GRACE) as server:
            await server.becomes_healthy("liveness")
            began, children = time.monotonic(), server.children
            while time.monotonic() - began < moment:
                children = server.children or children
                await asyncio.sleep(0.05)
            seen += bool(children)
            slowest = max(slowest, await server.ends())
            await asyncio.sleep(0.2)
            left += len(descendants_left(children))
    figures.at_least("of the moments, those with an engine process", seen, 1)
    figures.at_most("the slowest exit", slowest, _GRACE + 1, "s")
    figures.equal("children left", left, 0)
    return figures


ROW = Row(
    numbers=(5,),
    title="SIGTERM while a model loads, at five moments",
    pass_mark="exit within grace + 1 s, no child left",
    measure=measure,
    quick=True,
)
