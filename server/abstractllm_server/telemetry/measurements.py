"""The numbers that are read when metrics are scraped: each part of the server that counts something offers its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["Measurement", "MeasurementSource"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number, as it is now.

    Args:
        name: The name of an instrument in `abstractllm_server.telemetry.instruments`.
        value: The number: of a counter, all that was counted since the process started; it never falls.
        attributes: The attributes that the instrument's description names.
    """

    name: str
    value: float
    attributes: Mapping[str, str] = field(default_factory=dict)


MeasurementSource = Callable[[], Iterable[Measurement]]
"""Called for each scrape, in a thread that is not the event loop's; it may not wait for the loop, and may not raise."""
