"""Measures serving a local model: the batching engine alone, and our server over gRPC, on the same model in one run.

    .venv/bin/python -m benchmarks.serving                  # about three minutes on two cores
    .venv/bin/python -m benchmarks.serving --clients 64 --answers 2

The model is a Llama of four layers and hidden size 256 with a vocabulary of 8,192 and random weights: on two CPU cores
its step takes about as long as a large model's on a GPU. Each part runs in processes of its own. Only the ratios
within one run on a quiet machine say something; see `benchmarks/README.md`.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from grpc import aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_api.v1.generation_pb2_grpc import GenerationServiceStub

VOCABULARY = 8192
PROMPT_TOKENS = 16
NEW_TOKENS = 64


def build_model(folder: Path) -> None:
    """Writes the model and a tokenizer of one token a word."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    words = {f"w{index}": index for index in range(VOCABULARY)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=2048).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


ENGINE_ALONE = """
import json, sys, time, torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig
folder, clients, prompt_tokens, new_tokens, threads = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
prompts = [[(7 * i + j) % 8000 + 1 for j in range(prompt_tokens)] for i in range(clients)]
blocks = clients * 8 + 64
config = ContinuousBatchingConfig(page_size=16, num_blocks=blocks, max_batch_tokens=512, max_requests_per_batch=64)
options = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=new_tokens)
manager = model.init_continuous_batching(generation_config=options, continuous_batching_config=config)
manager.start()
def run():
    manager.add_requests(prompts, max_new_tokens=new_tokens)
    left = clients
    while left:
        result = manager.get_result(timeout=60)
        left -= result is not None and result.is_finished()
run()
start = time.perf_counter()
run()
print(json.dumps(clients * new_tokens / (time.perf_counter() - start)))
manager.stop()
"""


def engine_alone(folder: Path, clients: int, threads: int) -> float:
    """Tokens a second of transformers' continuous batching in a process of its own, greedy, without a server."""
    arguments = map(str, (folder, clients, PROMPT_TOKENS, NEW_TOKENS, threads))
    found = subprocess.run(
        [sys.executable, "-c", ENGINE_ALONE, *arguments], capture_output=True, text=True, check=False
    )
    if found.returncode != 0:
        sys.exit(f"The engine alone failed:\n{found.stderr[-2000:]}")
    return float(json.loads(found.stdout.splitlines()[-1]))


@contextmanager
def serving(folder: Path, threads: int) -> Iterator[str]:
    """Our server with the model: its address, once it is ready."""
    file = folder / "llms.yaml"
    line = {
        "provider": "huggingface",
        "model": str(folder),
        "threads": threads,
        "max_batch_size": 64,
        "max_queue": 1000,
    }
    file.write_text(json.dumps({"listen": "127.0.0.1:0", "log_level": "info", "llms": {"local": line}}))
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name("abstractllm")), "serve", "--config", str(file)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        address = next(text.split("listening on ")[1].strip() for text in server.stderr if "listening on " in text)
        with grpc.insecure_channel(address) as channel:
            while HealthStub(channel).Check(HealthCheckRequest()).status != HealthCheckResponse.SERVING:
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(30)


async def measure(address: str, clients: int, answers: int, streaming: bool, sampled: bool) -> dict[str, float]:
    """Tokens a second, and the median time to the first token, of `clients` clients with `answers` answers each."""
    async with aio.insecure_channel(address) as channel:
        stub = GenerationServiceStub(channel)
        firsts: list[float] = []
        tokens = 0

        def request(index: int) -> pb.GenerateRequest:
            words = " ".join(f"w{(7 * index + place) % 8000 + 1}" for place in range(PROMPT_TOKENS))
            parameters = pb.GenerationParameters(max_tokens=NEW_TOKENS, temperature=0.0)
            if sampled:
                parameters = pb.GenerationParameters(
                    max_tokens=NEW_TOKENS,
                    temperature=0.5 + index % 10 / 10,
                    top_k=20 + index % 60,
                    top_p=0.8 + index % 15 / 100,
                    seed=index,
                )
            return pb.GenerateRequest(prompt=words, parameters=parameters)

        async def client(number: int) -> None:
            nonlocal tokens
            for turn in range(answers):
                start = time.perf_counter()
                asked = request(number * answers + turn)
                if not streaming:
                    tokens += (await stub.Generate(asked)).usage.output_tokens
                    continue
                first = 0.0
                async for event in stub.StreamGenerate(asked):
                    kind = event.WhichOneof("event")
                    if kind == "text_delta" and not first:
                        first = time.perf_counter() - start
                    elif kind == "finished":
                        tokens += event.finished.usage.output_tokens
                firsts.append(first)

        await asyncio.gather(*(client(number) for number in range(clients)))
        tokens, start = 0, time.perf_counter()
        firsts.clear()
        await asyncio.gather(*(client(number) for number in range(clients)))
        return {
            "tokens_per_second": tokens / (time.perf_counter() - start),
            "first_token_ms": statistics.median(firsts) * 1000 if firsts else float("nan"),
        }


def client_process(address: str, clients: int, answers: int, streaming: bool, sampled: bool) -> dict[str, float]:
    """Measures in a process of its own, so that the client does not share the server's interpreter, nor this one's."""
    arguments = [sys.executable, "-m", "benchmarks.serving", "--address", address]
    arguments += ["--clients", str(clients), "--answers", str(answers)]
    arguments += ["--streaming"] * streaming + ["--sampled"] * sampled
    found = subprocess.run(arguments, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(found.stdout)
    return result


def main() -> None:
    """Runs every part and prints the table; with `--address` only the client's part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--answers", type=int, default=2, help="answers a client")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the engine")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--streaming", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--sampled", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.address:
        measured = measure(options.address, options.clients[0], options.answers, options.streaming, options.sampled)
        print(json.dumps(asyncio.run(measured)))
        return
    figures = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_model(folder)
        alone = {clients: engine_alone(folder, clients, options.threads) for clients in options.clients}
        print(f"{'clients':>7}  {'what':<24} {'tokens/s':>9} {'of alone':>9} {'first token, ms':>16}")
        with serving(folder, options.threads) as address:
            for clients in options.clients:
                print(f"{clients:>7}  {'engine alone, greedy':<24} {alone[clients]:>9.0f} {1:>9.2f}")
                for title, streaming, sampled in (
                    ("unary, greedy", False, False),
                    ("streaming, greedy", True, False),
                    ("streaming, sampled", True, True),
                ):
                    found = client_process(address, clients, options.answers, streaming, sampled)
                    ratio = found["tokens_per_second"] / alone[clients]
                    figures.append({"clients": clients, "what": title, "of_alone": ratio, **found})
                    first = found["first_token_ms"]
                    print(f"{clients:>7}  {title:<24} {found['tokens_per_second']:>9.0f} {ratio:>9.2f} {first:>16.0f}")
    if options.json:
        options.json.write_text(json.dumps({"engine_alone": alone, "server": figures}, indent=2))


if __name__ == "__main__":
    main()
