"""One metric: its name, kind, unit, meaning, attributes and buckets."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Instrument", "Kind"]


class Kind(StrEnum):
    """The kinds of metrics."""

    HISTOGRAM = "histogram"
    """Recorded at the end of each call."""
    COUNTER = "counter"
    """Recorded at the end of each call; it only grows."""
    OBSERVED_COUNTER = "observed counter"
    """Read when it is scraped; it only grows."""
    OBSERVED_SUM = "observed sum"
    """Read when it is scraped; it grows and falls, and those of several processes add up."""
    OBSERVED_GAUGE = "observed gauge"
    """Read when it is scraped; those of several processes do not add up."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric.

    Args:
        name: The name, in OpenTelemetry's form.
        kind: The kind, which decides how it is counted.
        unit: The unit, in UCUM.
        description: The meaning.
        attributes: The names of its attributes, all of which `ATTRIBUTES` describes.
        buckets: The upper bounds of a histogram's buckets.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    attributes: tuple[str, ...] = ()
    buckets: tuple[float, ...] = field(default=(), repr=False)
