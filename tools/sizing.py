"""Tells the memory that a local model takes on a GPU: `python3 tools/sizing.py DIRECTORY [--gpu 24] [--context 8192]`.

It reads config.json and the headers of the safetensors files, so it needs neither PyTorch nor a GPU. The engine takes,
of what is free once the weights are there, 40 % for the keys and values (`kv_cache_bytes`); beside that PyTorch, CUDA
and the captured graphs are taken to need 1 GiB.
"""

import argparse
import json
import math
import struct
import sys
from pathlib import Path
from typing import Any

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0, "int4": 0.56}
"""A weight's bytes; int4 has a scale of 32 bits for each 64 weights."""
HALF = 2
"""Bytes of a key's or value's number: on a GPU the cache is in half precision."""
OVERHEAD_GIB = 1.0
CACHE_SHARE = 0.4
GPUS = (16, 24, 48, 80)


def parameters(directory: Path) -> tuple[int, int]:
    """Returns the number of a model's weights, and of those that quantization leaves as they are.

    These are the embeddings and what is no matrix.

    Raises:
        ValueError: If there is no such file, or one is damaged.
    """
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{directory} has no *.safetensors")
    total = kept = 0
    for path in files:
        with path.open("rb") as file:
            try:
                [length] = struct.unpack("<Q", file.read(8))
                if length > 100_000_000:
                    raise ValueError("its header is too long")
                header: dict[str, Any] = json.loads(file.read(length))
            except (struct.error, ValueError) as error:
                raise ValueError(f"{path} is no file of safetensors: {error}") from None
        for name, tensor in header.items():
            if name != "__metadata__":
                count = math.prod(tensor["shape"])
                total += count
                kept += count if len(tensor["shape"]) != 2 or "embed" in name or "lm_head" in name else 0
    return total, kept


def bytes_per_token(config: dict[str, Any]) -> int:
    """Returns the bytes of the keys and values of one token, where all layers have full attention.

    Raises:
        ValueError: If the configuration does not tell.
    """
    config = config.get("text_config", config)
    try:
        heads = config["num_attention_heads"]
        kv_heads = config.get("num_key_value_heads") or heads
        head_dim = config.get("head_dim") or config["hidden_size"] // heads
        return int(2 * config["num_hidden_layers"] * kv_heads * head_dim * HALF)
    except (KeyError, TypeError) as error:
        raise ValueError(f"config.json does not have {error}: no keys and values that grow with each token?") from None


def gib(size: float) -> str:
    """Returns a number of bytes in GiB."""
    return f"{size / 2**30:.2f} GiB"


def main() -> int:
    """Runs the command line.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description="Tell the memory that a local model takes on a GPU.")
    parser.add_argument("directory", type=Path, help="the model: config.json and *.safetensors")
    parser.add_argument("--gpu", type=float, action="append", help="GiB of a GPU; may be repeated")
    parser.add_argument("--context", type=int, default=8192, help="tokens of one request, prompt and answer together")
    arguments = parser.parse_args()
    try:
        config = json.loads((arguments.directory / "config.json").read_text("utf-8"))
        total, kept = parameters(arguments.directory)
        token = bytes_per_token(config)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{total / 1e9:.3g} billion weights; {token / 1024:.0f} KiB of keys and values a token, ", end="")
    print(f"{gib(token * arguments.context)} for a request of {arguments.context:,} tokens")
    gpus = arguments.gpu or GPUS
    print("| weights in | take | " + " | ".join(f"{gpu:g} GiB: tokens in the cache" for gpu in gpus) + " |")
    print("|---|---|" + "---|" * len(gpus))
    for name, size in BYTES.items():
        weights = (total - kept) * size + kept * max(size, HALF)
        free = [gpu * 2**30 - weights - OVERHEAD_GIB * 2**30 for gpu in gpus]
        cells = [f"{int(left * CACHE_SHARE / token):,}" if left > 0 else "does not fit" for left in free]
        print(f"| {name} | {gib(weights)} | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
