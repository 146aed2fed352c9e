"""The answers of the hosted providers' servers: the same scenes and the same faults, each in its own wire format."""

import json

from tests.providers import anthropic_server as anthropic
from tests.providers import ollama_server as ollama
from tests.providers import openai_server as openai
from tests.providers.fake_http import (
    EVENT_STREAM,
    answering,
    gibibyte,
    gzip_bomb,
    hanging,
    resetting,
    serving,
    streaming,
)

TEXT = ("The capital of ", "France ", "is Paris.")
THOUGHT = ("France... ", "its capital?")
ARGUMENTS = ('{"city"', ': "Paris"}')
JSON = ('{"city":', ' "Paris"}')
REFUSAL = "I cannot help with that."
LOGPROBS = [
    {"token": token, "bytes": None, "logprob": -0.25, "top_logprobs": [{"token": token, "logprob": -0.25}]}
    for token in ("Pa", "ris")
]
RETRY_AFTER = "7"


class Upstream:
    """A provider's server, and the scene that it plays."""

    provider: str
    key: str

    def __init__(self):
        self.handler = None
        self.server = None

    def running(self):
        """The server, as a context manager; `server` is what it has seen."""
        return serving(self.handle)

    async def handle(self, exchange):
        await self.handler(exchange)

    def play(self, scene):
        """Plays a scene or a fault from now on."""
        self.handler = getattr(self, scene.replace(" ", "_").replace("-", "_").lower())()

    @property
    def sent(self):
        """The body of the last request for an answer."""
        return self.server.requests[-1].body


class OpenAI(Upstream):
    provider, key = "openai", "sk-canary-0123456789-openai"

    def config(self):
        return {"provider": "openai", "base_url": f"{self.server.url}/v1", "model": "m", "api_key": self.key}

    def text(self):
        return openai.saying(*TEXT)

    def stop(self):
        pieces = [openai.chunk(TEXT[0]), openai.chunk(finish="stop", choice={"stop_reason": "Fra"})]
        return streaming([*pieces, openai.usage_chunk(), openai.DONE])

    def length(self):
        return openai.saying("The", " capital", finish="length")

    def tool_call(self):
        pieces = [openai.call(call_id="call_1", name="weather"), *(openai.call(arguments=one) for one in ARGUMENTS)]
        return streaming([*pieces, openai.chunk(finish="tool_calls"), openai.usage_chunk(), openai.DONE])

    def json(self):
        return openai.saying(*JSON)

    def reasoning(self):
        pieces = [openai.chunk(reasoning_content=one) for one in THOUGHT]
        return streaming([*pieces, *openai.texts(*TEXT)])

    def logprobs(self):
        pieces = [openai.chunk(one["token"], choice={"logprobs": {"content": [one]}}) for one in LOGPROBS]
        return streaming([*pieces, openai.chunk(finish="stop"), openai.usage_chunk(), openai.DONE])

    def refusal(self):
        return streaming([openai.chunk(refusal=REFUSAL), openai.chunk(finish="stop"), openai.usage_chunk()])

    def reset_before_the_answer(self):
        return resetting

    def reset_mid_token(self):
        return streaming([openai.chunk("partial")], then="reset")

    def hang_before_the_answer(self):
        return hanging

    def hang_mid_answer(self):
        return streaming([openai.chunk("partial")], then="hang")

    def early_end(self):
        return streaming([openai.chunk("partial")])

    def status_401(self):
        return openai.failing(401, f"Incorrect API key provided: {self.key}", code="invalid_api_key")

    def status_429(self):
        return openai.failing(429, f"slow down, {self.key}", code="rate_limit_exceeded")

    def status_429_with_retry_after(self):
        return openai.failing(429, "slow down", headers={"Retry-After": RETRY_AFTER})

    def quota(self):
        return openai.failing(429, f"quota of {self.key}", code="insufficient_quota")

    def status_500(self):
        return openai.failing(500, f"Bearer {self.key}", kind="server_error")

    def status_529(self):
        return openai.failing(529, "overloaded")

    def error_mid_answer(self):
        return openai.raw(openai.chunk("partial"), openai.event({"error": {"message": self.key, "code": 502}}))

    def bad_json(self):
        return openai.raw(f"data: {{bad {self.key}\n\n")

    def bad_utf_8(self):
        return openai.raw(b"data: \xff\xfe\n\n")

    def html_with_200(self):
        return answering(f"<html>Sign in, {self.key}</html>", headers={"Content-Type": "text/html"})

    def empty_choices(self):
        return openai.raw(openai.event({"choices": []}), openai.DONE)

    def unknown_finish_reason(self):
        return streaming([openai.chunk("partial"), openai.chunk(finish="melted"), openai.DONE])

    def overlong_line(self):
        return streaming(gibibyte(b"data: "))

    def gzip_bomb(self):
        return streaming(gzip_bomb(), headers=EVENT_STREAM | {"Content-Encoding": "gzip"})


BEGUN = [
    anthropic.start(),
    *anthropic.block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "partial"})[:2],
]


class Anthropic(Upstream):
    provider, key = "anthropic", "sk-canary-0123456789-anthropic"

    def config(self):
        return {"provider": "anthropic", "base_url": self.server.url, "api_key": self.key}

    def text(self):
        return anthropic.says(anthropic.answer(*TEXT))

    def stop(self):
        return self._says(anthropic.text(0, TEXT[0]), "stop_sequence", "Fra")

    def length(self):
        return self._says(anthropic.text(0, "The", " capital"), "max_tokens")

    def tool_call(self):
        return self._says(anthropic.tool_use(0, "toolu_1", "weather", *ARGUMENTS), "tool_use")

    def json(self):
        return anthropic.says(anthropic.answer(*JSON))

    def reasoning(self):
        return self._says([*anthropic.thinking(0, "signed", *THOUGHT), *anthropic.text(1, *TEXT)])

    def logprobs(self):
        return self.text()  # never asked for: they are refused

    def refusal(self):
        return self._says(anthropic.text(0, REFUSAL), "refusal")

    def reset_before_the_answer(self):
        return resetting

    def reset_mid_token(self):
        return anthropic.says(BEGUN, then="reset")

    def hang_before_the_answer(self):
        return hanging

    def hang_mid_answer(self):
        return anthropic.says(BEGUN, then="hang")

    def early_end(self):
        return anthropic.says(BEGUN)

    def status_401(self):
        return anthropic.fails(401, "authentication_error", f"invalid x-api-key {self.key}")

    def status_429(self):
        return anthropic.fails(429, "rate_limit_error", f"slow down, {self.key}")

    def status_429_with_retry_after(self):
        return anthropic.fails(429, "rate_limit_error", retry_after=RETRY_AFTER)

    def quota(self):
        return anthropic.fails(402, "billing_error", f"quota of {self.key}")

    def status_500(self):
        return anthropic.fails(500, "api_error", f"Bearer {self.key}")

    def status_529(self):
        return anthropic.fails(529, "overloaded_error")

    def error_mid_answer(self):
        return anthropic.raw(*BEGUN, anthropic.event("error", **anthropic.error_body("api_error", self.key)))

    def bad_json(self):
        return anthropic.raw(f"event: message_start\ndata: {{bad {self.key}\n\n")

    def bad_utf_8(self):
        return anthropic.raw(b"event: message_start\ndata: \xff\xfe\n\n")

    def html_with_200(self):
        return answering(f"<html>Sign in, {self.key}</html>", headers={"Content-Type": "text/html"})

    def empty_choices(self):
        return anthropic.raw()

    def unknown_finish_reason(self):
        return self._says(anthropic.text(0, "partial"), "melted")

    def overlong_line(self):
        return streaming(gibibyte(b"event: ping\ndata: "))

    def gzip_bomb(self):
        return streaming(gzip_bomb(), headers=EVENT_STREAM | {"Content-Encoding": "gzip"})

    @staticmethod
    def _says(blocks, *stop):
        return anthropic.says([anthropic.start(), *blocks, *anthropic.stop(*stop)])


class Ollama(Upstream):
    provider, key = "ollama", "canary-0123456789-ollama"

    def config(self):
        return {"provider": "ollama", "base_url": self.server.url, "api_key": self.key}

    def text(self):
        return ollama.says(ollama.answer(*TEXT))

    def stop(self):
        return ollama.says(ollama.answer(TEXT[0]))

    def length(self):
        return ollama.says([ollama.line("The"), ollama.line(" capital"), ollama.done("length", eval_count=2)])

    def tool_call(self):
        call = {"function": {"name": "weather", "arguments": json.loads("".join(ARGUMENTS))}}
        return ollama.says([ollama.line(tool_calls=[call]), ollama.done()])

    def json(self):
        return ollama.says(ollama.answer(*JSON))

    def reasoning(self):
        return ollama.says([*(ollama.line(thinking=one) for one in THOUGHT), *ollama.answer(*TEXT)])

    def logprobs(self):
        return ollama.says([*(ollama.line(one["token"], logprobs=[one]) for one in LOGPROBS), ollama.done()])

    def refusal(self):
        return ollama.says(ollama.answer(REFUSAL))

    def reset_before_the_answer(self):
        return ollama.serves(resetting)

    def reset_mid_token(self):
        return ollama.says([ollama.line("partial")], then="reset")

    def hang_before_the_answer(self):
        return ollama.serves(hanging)

    def hang_mid_answer(self):
        return ollama.says([ollama.line("partial")], then="hang")

    def early_end(self):
        return ollama.says([ollama.line("partial")])

    def status_401(self):
        return ollama.fails(401, f"invalid key: {self.key}")

    def status_429(self):
        return ollama.fails(429, f"slow down, {self.key}")

    def status_429_with_retry_after(self):
        return ollama.fails(429, "slow down", retry_after=RETRY_AFTER)

    def quota(self):
        return ollama.fails(402, f"quota of {self.key}")

    def status_500(self):
        return ollama.fails(500, f"Bearer {self.key}")

    def status_529(self):
        return ollama.fails(529, "overloaded")

    def error_mid_answer(self):
        return ollama.raw(ollama.line("partial"), json.dumps({"error": f"runner of {self.key} crashed"}) + "\n")

    def bad_json(self):
        return ollama.raw(f"{{bad {self.key}\n")

    def bad_utf_8(self):
        return ollama.raw(b"\xff\xfe\n")

    def html_with_200(self):
        return ollama.serves(answering(f"<html>Sign in, {self.key}</html>"))

    def empty_choices(self):
        return ollama.raw()

    def unknown_finish_reason(self):
        return ollama.says([ollama.line("partial"), ollama.done("melted")])

    def overlong_line(self):
        return ollama.serves(streaming(gibibyte(b'{"a": "')))

    def gzip_bomb(self):
        return ollama.serves(streaming(gzip_bomb(), headers={"Content-Encoding": "gzip"}))
