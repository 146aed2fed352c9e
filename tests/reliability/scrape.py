"""The metrics of a server, as Prometheus reads them."""

from __future__ import annotations

import asyncio
import time
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


async def until_none_active(address: str, method: str, limit: float) -> float:
    """Waits until no call of a method of GenerationService runs; returns the seconds that took, or infinity."""
    began = time.monotonic()
    name = f"abstractllm_api.v1.GenerationService/{method}"
    while time.monotonic() - began < limit:
        read = await scrape(address)
        if read.total("abstractllm_server_calls_active", rpc_method=name) == 0:
            return time.monotonic() - began
        await asyncio.sleep(0.2)
    return float("inf")


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())
