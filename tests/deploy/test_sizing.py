"""The sizing of a local model: its numbers are those of the engine, and what it cannot read it refuses by name."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.dockerfile import ROOT
from tools.sizing import bytes_per_token, parameters

DEMO = ROOT / "abstractllm/providers/huggingface/demo_model"


def sizing(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs the command with an interpreter that has no packages."""
    command = [sys.executable, "-I", "-S", str(ROOT / "tools/sizing.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_weights_are_counted_as_pytorch_counts_them() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(DEMO)
    assert parameters(DEMO)[0] == sum(weight.numel() for weight in model.parameters())
    # Keys and values as the model itself hands them out for one token, in half precision.
    cached = model(model.dummy_inputs["input_ids"][:, :1]).past_key_values
    numbers = sum(layer.keys.numel() + layer.values.numel() for layer in cached.layers)
    per_token = numbers / model.dummy_inputs["input_ids"].shape[0]
    assert bytes_per_token(AutoConfig.from_pretrained(DEMO).to_dict()) == 2 * per_token


def test_known_shapes() -> None:
    llama = {"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32}
    assert bytes_per_token(llama) == 131_072
    assert bytes_per_token({"text_config": llama | {"head_dim": 256}}) == 262_144
    assert bytes_per_token({key: value for key, value in llama.items() if key != "num_key_value_heads"}) == 524_288


def test_command_tells_what_fits() -> None:
    done = sizing(str(DEMO), "--gpu", "1.005", "--gpu", "24", "--context", "2048")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == (
        "0.00341 billion weights; 4 KiB of keys and values a token, 0.01 GiB for a request of 2,048 tokens"
    )
    assert any(line.startswith("| float32 | 0.01 GiB | does not fit | 2,4") for line in lines)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "config.json"),
        ({"config.json": b"{}"}, "has no *.safetensors"),
        ({"config.json": b"nonsense", "model.safetensors": b""}, "error: "),
        ({"config.json": b"{}", "model.safetensors": b"short"}, "model.safetensors is no file of safetensors"),
        ({"config.json": b"{}", "model.safetensors": struct.pack("<Q", 2) + b"{}"}, "config.json does not have"),
    ],
)
def test_what_cannot_be_read_is_named(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    done = sizing(str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_several_files_are_added_up(tmp_path: Path) -> None:
    for number in (1, 2):
        header = json.dumps({"__metadata__": {}, f"w{number}": {"dtype": "BF16", "shape": [3, number]}}).encode()
        (tmp_path / f"model-{number}.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert parameters(tmp_path) == (9, 0)
