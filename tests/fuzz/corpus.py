"""The inputs that fuzzing begins with, and their mutations."""

import random
import struct
from math import inf, nan

from abstractllm_server.security.token_entries import digest_of
from tests.fuzz.targets import MESSAGES

__all__ = ["CORPUS", "mutated"]

_METHODS = list(MESSAGES)
_BITS = [b"\xff", b"\x00", b"\x80", b"[", b"{", b"- ", b"${", b"}", b"!!", b"&a", b"*a", b"\xed\xa0\x80", b"\n", b"\t"]
_PIECES = [*_BITS, b"#", b"expires=", b"\x1b[31m", b"30\x82\x01\x00", b"Bearer ", b": ", b"'", b'"', b"\xef\xbb\xbf"]


def _request(method: str, **fields: object) -> bytes:
    name = next(name for name in _METHODS if name.endswith(f".{method}"))
    return bytes([_METHODS.index(name)]) + MESSAGES[name](**fields).SerializeToString()


_CONVERSATION = {
    "messages": [
        {"role": "ROLE_SYSTEM", "parts": [{"text": "be kind"}]},
        {
            "role": "ROLE_USER",
            "parts": [{"text": "hi"}, {"image": {"data": b"x", "mime_type": "image/png"}, "provider_state": b"s"}],
        },
        {
            "role": "ROLE_ASSISTANT",
            "parts": [
                {"reasoning": {"text": "hm"}},
                {"tool_call": {"id": "1", "name": "f", "arguments_json": '{"a": 1}'}},
            ],
        },
        {"role": "ROLE_TOOL", "parts": [{"tool_result": {"tool_call_id": "1", "content": "2", "is_error": True}}]},
    ]
}
_TOOL = {"name": "f", "description": "adds", "parameters_json_schema": '{"type": "object"}'}
_OPTIONS = {"fields": {"reply": {"string_value": "x"}, "delay": {"number_value": 0.0}, "x": {"bool_value": True}}}
_PARAMETERS = {
    "temperature": 0.5,
    "top_k": 3,
    "stop": ["END"],
    "logit_bias": {7: 1.5},
    "seed": -1,
    "reasoning_effort": "REASONING_EFFORT_LOW",
}

CORPUS: dict[str, list[bytes]] = {
    "requests": [
        *(bytes([number]) for number in range(len(_METHODS))),
        _request(
            "Generate",
            prompt="hi",
            parameters=_PARAMETERS,
            provider_options=_OPTIONS,
            request_id="r",
            labels={"a": "b"},
        ),
        _request(
            "Generate",
            chat=_CONVERSATION,
            system_prompt="s",
            tools=[_TOOL],
            tool_choice={"name": "f"},
            response_format={"json_schema": {"name": "n", "schema_json": "{}", "strict": True}},
        ),
        _request("StreamGenerate", prompt="hi", response_format={"regex": "a+"}, tool_choice={"mode": 1}),
        _request("CountTokens", llm="echo", chat=_CONVERSATION, tools=[_TOOL], model="m"),
        _request(
            "SetConfig",
            llm="other",
            config={"parameters": _PARAMETERS, "timeout": {"seconds": 3}, "max_retries": 1, "model": "a"},
            update_mask={"paths": ["parameters.temperature", "timeout", "model"]},
            validate_only=True,
        ),
        _request("ListCachedModels", llm="echo", page_size=3, page_token="YQ=="),
        _request("ClearCache", llm="echo", model="m", dry_run=True),
        _request("Check", service="llm/echo"),
        _request("ServerReflectionInfo", file_by_filename="a.proto"),
    ],
    "configuration": [
        b"",
        b"llms:\n  a: {provider: scripted}\n",
        b"default: b\nlisten: 127.0.0.1:0\ngrace: 3s\npreload: [a]\nllms:\n"
        b"  a: {provider: scripted, temperature: 0.5}\n  b:\n    provider: scripted\n"
        b"    reply: '${HOME}, ${X:-y} $$'\n    timeout: 1m\n    parameters: {stop: [END]}\n",
        b"tls: {certificate: a, key: b, client_ca: c, subjects: {'cn:x': admin}}\ntokens: t\nllms:\n"
        b"  x: {provider: fallback, llms: [y, z]}\n  y: {provider: openai, model: m, api_key: k, extra_query: {a: 1}}\n"
        b"  z: {provider: huggingface, model: demo, max_queue: 3}\n",
    ],
    "tokens": [
        b"none\n",
        f"# x\n{digest_of('a')} admin ops\n{digest_of('b')} inference expires=2030-01-01T00:00:00Z x\n".encode(),
    ],
    "certificates": [
        b"-----BEGIN CERTIFICATE-----\n"
        b"MIIBbDCCAROgAwIBAgIUZa3JCZMPamtU8kNvykUMVz+19kgwCgYIKoZIzj0EAwIw\n"
        b"DDEKMAgGA1UEAwwBeDAeFw0yNjExMjcyMjIzNDJaFw0zNjExMjQyMjIzNDJaMAwx\n"
        b"CjAIBgNVBAMMAXgwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAR8WAU5Q3QZ7JoA\n"
        b"R6SQ/yNn3wvG+GGF4PsupK3sURyDAse+R3g7f1S7kWBBvKwms4zhux4E8ghCPBwa\n"
        b"zl56Ws2Zo1MwUTAdBgNVHQ4EFgQUB8eSaI+LFM/BF/jdXD5NJqz/D5wwHwYDVR0j\n"
        b"BBgwFoAUB8eSaI+LFM/BF/jdXD5NJqz/D5wwDwYDVR0TAQH/BAUwAwEB/zAKBggq\n"
        b"hkjOPQQDAgNHADBEAiAxUpY8ZHwOvCkn0a/dNfNY8A6RGPiv91Oa/jEV7vNI1gIg\n"
        b"JgcsqU2aYxeury4EZx74c36qZrmSizCLl1NDyCXJjZg=\n"
        b"-----END CERTIFICATE-----\n",
    ],
    "authentication": [
        b"/a.B/C\nBearer secret-of-nobody",
        b"/grpc.health.v1.Health/Check\nBasic x",
        b"/abstractllm_api.v1.GenerationService/Generate\nbearer x",
    ],
}


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Returns the bytes as they are, or with some of them changed, cut off, doubled or put in."""
    result = bytearray(data)
    for _ in range(chance.choice([0, 1, 1, 2, 3, 8])):
        at = chance.randrange(len(result) + 1)
        match chance.randrange(7):
            case 0 if at < len(result):
                result[at] ^= 1 << chance.randrange(8)
            case 1:
                del result[at : at + chance.randrange(1, 9)]
            case 2:
                result[at:at] = chance.randbytes(chance.randrange(1, 5))
            case 3:
                result[at:at] = result[: chance.randrange(64)]
            case 4:
                result[at:at] = chance.choice(_PIECES) * chance.choice([1, 1, 2, 40])
            case 5:
                result[at : at + 8] = struct.pack("<d", chance.choice([nan, inf, -1.0, 1e308]))
            case _:
                del result[at:]
    return bytes(result)
