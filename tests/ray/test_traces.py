"""A trace goes on through a replica to what the replica asks."""

from __future__ import annotations

import re

import pytest
from opentelemetry.sdk.trace import TracerProvider

from abstractllm.providers.ray import RayProvider
from tests.providers import fake_http, openai_server
from tests.ray.replicas import REPLICA

pytestmark = pytest.mark.timeout(400)


async def test_trace_of_a_program_goes_on_from_a_replica_to_a_hosted_provider(ray_address: str) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("program")
    async with fake_http.serving(openai_server.saying("All ", "well")) as api:
        hosted = {"serves": "openai", "model": "gpt", "base_url": f"{api.url}/v1", "api_key": "none"}
        async with RayProvider(REPLICA | hosted | {"application": "traced", "delete_on_stop": True}) as llm:
            await llm.generate_async("Hello")
            with tracer.start_as_current_span("program") as span:
                whole = await llm.generate_async("Hello")
                pieces = [piece async for piece in await llm.generate_async("Hello", stream=True)]
    assert whole == "".join(pieces) == "All well"
    sent = [request.headers.get("traceparent", "none") for request in api.requests]
    trace = f"{span.get_span_context().trace_id:032x}"
    assert sent[0] == "none"
    assert all(re.fullmatch(f"00-{trace}-[0-9a-f]{{16}}-0[13]", header) for header in sent[1:]), sent
    assert len(sent) == 3
