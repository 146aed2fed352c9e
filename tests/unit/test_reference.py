"""The contract's reference is what the .proto files say, and a change of those without it is noticed."""

import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from abstractllm_api.v1 import config_pb2, errors_pb2, generation_pb2, models_pb2
from tools import generate as generate_module
from tools.emit import config_values, model_parameter

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reference.md").read_text("utf-8")
FILES = (errors_pb2.DESCRIPTOR, generation_pb2.DESCRIPTOR, models_pb2.DESCRIPTOR, config_pb2.DESCRIPTOR)


def section(page: str, heading: str) -> str:
    (body,) = re.findall(rf"^### {heading}$(.*?)(?=^##|\Z)", page, re.M | re.S)
    return str(body)


@pytest.fixture
def generate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/generate.py at work on a copy of what it reads and writes, without any language's messages and stubs."""
    monkeypatch.setattr(generate_module, "ROOT", tmp_path)
    monkeypatch.setattr(generate_module, "available_languages", list)
    monkeypatch.setattr(generate_module, "prepare_python", lambda: Path(sys.executable).parent)
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    descriptors = generate_module.build_descriptors(tmp_path)
    for path in [*generate_module.contract_files(descriptors), *model_parameter.FILES, config_values.FILE]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    return generate_module


def run(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["generate.py", *arguments])
    return int(module.main())


def edit(module: ModuleType, old: str, new: str) -> None:
    path = module.ROOT / "proto/abstractllm_api/v1/generation.proto"
    text = path.read_text("utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), "utf-8")


def test_a_changed_comment_fails_the_check_until_the_page_is_written_anew(
    generate: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(generate, monkeypatch, "--check") == 0
    edit(generate, "// Who speaks.\n  Role role", "// Whose words these are.\n  Role role")
    assert run(generate, monkeypatch, "--check") == 1
    assert f"differs: {Path('docs/reference.md')}" in capsys.readouterr().err
    assert run(generate, monkeypatch) == 0
    assert run(generate, monkeypatch, "--check") == 0
    page = (generate.ROOT / "docs/reference.md").read_text("utf-8")
    assert "| 1 | `role` | [Role](#role) |  | Whose words these are. |" in section(page, "ChatMessage")
    (generate.ROOT / "docs/reference.md").unlink()
    assert run(generate, monkeypatch, "--check") == 1


def test_what_is_deprecated_or_reserved_is_told(generate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(
        generate,
        "// Who speaks.\n  Role role = 1;",
        'reserved 7, 9 to 11;\n  reserved "gone";\n  // Who | <speaks>.\n  Role role = 1 [deprecated = true];',
    )
    assert run(generate, monkeypatch) == 0
    text = section((generate.ROOT / "docs/reference.md").read_text("utf-8"), "ChatMessage")
    assert "Reserved: 7, 9 to 11, `gone`." in text
    assert r"| 1 | `role` | [Role](#role) |  | **Deprecated.** Who \| \<speaks>. |" in text


def test_everything_in_the_contract_is_described() -> None:
    for file in FILES:
        for service in file.services_by_name.values():
            for method in service.methods:
                assert f"| `{method.name}` | [{method.input_type.name}](" in section(PAGE, service.name)
        for message in file.message_types_by_name.values():
            text = section(PAGE, message.name)
            numbers = re.findall(r"^\| (\d+) \| `(\w+)` \| \S.* \|.*\| \S.* \|$", text, re.M)
            assert numbers == [(str(field.number), field.name) for field in message.fields]
        for enum in file.enum_types_by_name.values():
            values = re.findall(r"^\| (\d+) \| `(\w+)` \|", section(PAGE, enum.name), re.M)
            prefix = "ERROR_REASON_" if enum.name == "ErrorReason" else ""
            assert values == [(str(value.number), value.name.removeprefix(prefix)) for value in enum.values]


def test_types_and_labels_read_as_in_the_proto_files() -> None:
    request, parameters = section(PAGE, "GenerateRequest"), section(PAGE, "GenerationParameters")
    assert "| 3 | `chat` | [Chat](#chat) | oneof `input` |" in request
    assert "| 4 | `system_prompt` | string | optional |" in request
    assert "| 7 | `tools` | [Tool](#tool) | repeated |" in request
    assert r"| 11 | `labels` | map\<string, string> |  |" in request
    assert "| 14 | `reasoning_effort` | [ReasoningEffort](#reasoningeffort) | optional |" in parameters
    assert "| stream of [StreamGenerateResponse](#streamgenerateresponse) |" in section(PAGE, "GenerationService")


def test_every_link_within_the_page_leads_somewhere() -> None:
    anchors = {re.sub(r"[^\w -]", "", name.lower()) for name in re.findall(r"^#+ (.*)$", PAGE, re.M)}
    links = set(re.findall(r"\]\(#([^)]*)\)", PAGE))
    assert links and links <= anchors
    for page in set(re.findall(r"\]\((\w[\w-]*\.md)\)", PAGE)):
        assert (ROOT / "docs" / page).is_file()


def test_the_codes_of_the_errors_are_those_that_the_server_sends() -> None:
    codes = dict(re.findall(r"^\| \d+ \| `(\w+)` \| ([A-Z_]*) \|", section(PAGE, "ErrorReason"), re.M))
    described = dict(
        re.findall(r"^\| `(\w+)` \| `\w+` \| (\w+) \|", (ROOT / "docs/errors.md").read_text("utf-8"), re.M)
    )
    assert codes == {"UNSPECIFIED": ""} | described
