"""The metrics of a server, as Prometheus reads them."""

from __future__ import annotations

import asyncio
import urllib.request
from collections import defaultdict

from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """One reading of `/metrics`."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._samples[sample.name].append((sample.labels, sample.value))

    def total(self, name: str, **labels: str) -> float:
        """Returns the sum of a sample's series that have these labels; 0 if there is none."""
        return sum(
            value
            for series, value in self._samples[name]
            if all(series.get(key) == text for key, text in labels.items())
        )


async def scrape(address: str) -> Scrape:
    """Reads the metrics of the server whose `monitoring` is this address."""
    return Scrape(await asyncio.to_thread(_read, f"http://{address}/metrics"))


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())
