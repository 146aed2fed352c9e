"""The contract is the documented one, is linted, stays compatible, and its generated code is current."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from abstractllm_api.v1 import config_pb2, errors_pb2, generation_pb2, models_pb2
from tools import generate

ROOT = Path(__file__).resolve().parents[2]
BASELINE = ROOT / "proto/released/0.1.0.binpb"
FILES = (errors_pb2.DESCRIPTOR, generation_pb2.DESCRIPTOR, models_pb2.DESCRIPTOR, config_pb2.DESCRIPTOR)

# One line a message: its fields in order, numbered 1, 2, 3... unless "= n" says otherwise.
# "?" marks an optional field, "*" a repeated one, "name|" a member of the oneof of that name.
MESSAGES = """
generation GenerateRequest: string llm, input|string prompt, input|Chat chat, ?string system_prompt, GenerationParameters parameters, ResponseFormat response_format, *Tool tools, ToolChoice tool_choice, Struct provider_options, string request_id, map<string,string> labels, ParametersPolicy parameters_policy
generation GenerationParameters: ?string model, ?double temperature, ?double top_p, ?int32 top_k, ?double min_p, ?int32 max_tokens, ?int64 seed, ?double presence_penalty, ?double frequency_penalty, ?double repetition_penalty, *string stop, map<int32,double> logit_bias, ?int32 top_logprobs, ?ReasoningEffort reasoning_effort
generation Chat: *ChatMessage messages
generation ChatMessage: Role role, *Part parts
generation Part: part|string text, part|Image image, part|ToolCall tool_call, part|ToolResult tool_result, part|Reasoning reasoning, bytes provider_state = 15
generation Image: bytes data, string mime_type
generation ToolCall: string id, string name, string arguments_json
generation ToolResult: string tool_call_id, string content, bool is_error
generation Reasoning: string text
generation ResponseFormat: format|JsonObjectFormat json_object, format|JsonSchemaFormat json_schema, format|string regex, format|string grammar
generation JsonObjectFormat:
generation JsonSchemaFormat: string name, string schema_json, ?bool strict
generation Tool: string name, string description, string parameters_json_schema
generation ToolChoice: choice|ToolChoiceMode mode, choice|string name
generation GenerateResponse: string id, string text, ChatMessage message, FinishReason finish_reason, string stop_sequence, Usage usage, string llm, string provider, string model, *Attempt attempts, Timing timing, *TokenLogprob logprobs, *string dropped_parameters
generation StreamGenerateResponse: event|Started started, event|TextDelta text_delta, event|ReasoningDelta reasoning_delta, event|ToolCallDelta tool_call_delta, event|Finished finished
generation Started: string id, string llm, string provider, string model, *string dropped_parameters
generation TextDelta: string text, *TokenLogprob logprobs
generation ReasoningDelta: string text
generation ToolCallDelta: int32 index, string id, string name, string arguments_fragment
generation Finished: FinishReason finish_reason, string stop_sequence, Usage usage, *Attempt attempts, Timing timing, ChatMessage message
generation Usage: ?int64 input_tokens, ?int64 output_tokens, ?int64 cached_input_tokens, ?int64 reasoning_tokens
generation Attempt: string llm, string provider, string model, ErrorReason error_reason, string message, Duration duration
generation Timing: Duration queued, Duration first_token, Duration total
generation TokenLogprob: int32 token_id, string token, bytes token_bytes, double logprob, *TopLogprob top
generation TopLogprob: int32 token_id, string token, bytes token_bytes, double logprob
generation CountTokensRequest: string llm, input|string prompt, input|Chat chat, ?string system_prompt, *Tool tools, ?string model
generation CountTokensResponse: int64 input_tokens
models ListLlmsRequest:
models ListLlmsResponse: *Llm llms
models Llm: string name, string provider, string model, bool is_default, LlmState state, string state_reason, string device, ?int64 memory_bytes, int32 running, int32 queued
models GetCapabilitiesRequest: string llm, ?string model
models GetCapabilitiesResponse: Capabilities capabilities
models Capabilities: bool streaming, bool system_prompt, bool chat, bool tools, bool image_input, bool json_object, bool json_schema, bool regex, bool grammar, bool logprobs, bool seed, bool token_counting, *string parameters, *string provider_options, ?int64 context_window, ?int64 max_output_tokens, string quantization, string device, ?int32 max_concurrent_requests
models ListCachedModelsRequest: string llm, int32 page_size, string page_token
models ListCachedModelsResponse: *CachedModel models, string next_page_token
models CachedModel: string name, *string revisions, int64 size_bytes, Timestamp last_used_time, Timestamp last_modified_time, *string used_by, bool partial
models PullModelRequest: string llm, ?string model
models PullModelResponse: string file, int64 file_bytes_done, ?int64 file_bytes_total, int64 bytes_done, ?int64 bytes_total, bool done
models LoadModelRequest: string llm
models LoadModelResponse: LlmState state, string phase, ?double fraction
models UnloadModelRequest: string llm, bool force
models UnloadModelResponse: LlmState state, int32 running
models ClearCacheRequest: string llm, target|string model, target|AllModels all, bool dry_run
models AllModels:
models ClearCacheResponse: *string removed, int64 freed_bytes
config LlmConfig: string model, ?string system_prompt, GenerationParameters parameters, Duration timeout, ?int32 max_retries, Duration keep_alive, Quantization quantization, Struct provider_options
config GetConfigRequest: string llm
config GetConfigResponse: LlmConfig config, string etag
config SetConfigRequest: string llm, LlmConfig config, FieldMask update_mask, string etag, bool validate_only
config SetConfigResponse: LlmConfig config, string etag
"""  # noqa: E501

# Values in order, without the enum's prefix, numbered 1, 2, 3... unless "=n" says otherwise; UNSPECIFIED = 0 goes
# before them. 27 of ErrorReason is kept for CONNECTION_FAILED, which clients alone will raise.
ENUMS = """
generation ParametersPolicy: REJECT DROP_UNSUPPORTED
generation ReasoningEffort: NONE MINIMAL LOW MEDIUM HIGH XHIGH
generation Role: SYSTEM USER ASSISTANT TOOL
generation ToolChoiceMode: AUTO NONE REQUIRED
generation FinishReason: STOP MAX_TOKENS STOP_SEQUENCE TOOL_CALLS CONTENT_FILTER REFUSAL
models LlmState: UNLOADED LOADING READY FAILED
config Quantization: NONE INT8 INT4
errors ErrorReason: INVALID_REQUEST UNSUPPORTED_PARAMETER CONTEXT_LENGTH_EXCEEDED MESSAGE_TOO_LARGE UNSUPPORTED_FEATURE UNKNOWN_LLM MODEL_NOT_FOUND UNAUTHENTICATED NOT_ALLOWED PROVIDER_CREDENTIALS NOT_CONFIGURED MODEL_LOAD_FAILED MODEL_IN_USE CONTENT_BLOCKED RATE_LIMITED OVERLOADED QUOTA_EXCEEDED PROVIDER_UNAVAILABLE PROVIDER_PROTOCOL INCOMPLETE_STREAM ENGINE_CRASHED SHUTTING_DOWN TIMEOUT CANCELLED STALE_CONFIG INTERNAL UPSTREAM_REJECTED=28
"""  # noqa: E501

METHODS = """
generation GenerationService: Generate(GenerateRequest) -> GenerateResponse; StreamGenerate(GenerateRequest) -> stream StreamGenerateResponse; CountTokens(CountTokensRequest) -> CountTokensResponse
models ModelService: ListLlms(ListLlmsRequest) -> ListLlmsResponse; GetCapabilities(GetCapabilitiesRequest) -> GetCapabilitiesResponse; ListCachedModels(ListCachedModelsRequest) -> ListCachedModelsResponse; PullModel(PullModelRequest) -> stream PullModelResponse; LoadModel(LoadModelRequest) -> stream LoadModelResponse; UnloadModel(UnloadModelRequest) -> stream UnloadModelResponse; ClearCache(ClearCacheRequest) -> ClearCacheResponse
config ConfigService: GetConfig(GetConfigRequest) -> GetConfigResponse; SetConfig(SetConfigRequest) -> SetConfigResponse
"""  # noqa: E501

SCALARS = {
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
}


def lines(table: str) -> set[str]:
    return set(table.strip().splitlines())


def name_of(file: FileDescriptor) -> str:
    return file.name.removeprefix("abstractllm_api/v1/").removesuffix(".proto")


def kind(field: FieldDescriptor) -> str:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name
        return f"map<{kind(entry['key'])},{kind(entry['value'])}>"
    named = field.message_type or field.enum_type
    return named.name if named is not None else SCALARS[field.type]


def describe_field(field: FieldDescriptor, number: int) -> str:
    oneof = field.containing_oneof
    mark = ""
    if field.is_repeated and not kind(field).startswith("map<"):
        mark = "*"
    elif oneof is not None:  # an optional field is the only member of a oneof that begins with "_"
        mark = "?" if oneof.name.startswith("_") else f"{oneof.name}|"
    other_number = f" = {field.number}" if field.number != number else ""
    return f"{mark}{kind(field)} {field.name}{other_number}"


def describe_messages(file: FileDescriptor) -> set[str]:
    return {
        f"{name_of(file)} {message.name}: "
        + ", ".join(describe_field(field, number) for number, field in enumerate(message.fields, start=1))
        for message in file.message_types_by_name.values()
    }


def describe_enum(enum: EnumDescriptor) -> str:
    prefix = "".join("_" + letter if letter.isupper() else letter for letter in enum.name).upper()[1:] + "_"
    assert all(value.name.startswith(prefix) for value in enum.values)
    names = [
        value.name.removeprefix(prefix) + (f"={value.number}" if value.number != place else "")
        for place, value in enumerate(enum.values)
    ]
    assert names[0] == "UNSPECIFIED"
    return f"{name_of(enum.file)} {enum.name}: {' '.join(names[1:])}"


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture
def buf() -> str:
    beside_python = Path(sys.executable).parent / "buf"
    program = str(beside_python) if beside_python.exists() else shutil.which("buf")
    assert program is not None, "buf is missing: install buf-bin"
    return program


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    return tmp_path


def edit(copy: Path, old: str, new: str) -> None:
    path = copy / "proto/abstractllm_api/v1/generation.proto"
    text = path.read_text("utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), "utf-8")


def test_every_message_has_the_documented_fields_types_and_numbers() -> None:
    described = {line.rstrip() for file in FILES for line in describe_messages(file)}
    assert described == lines(MESSAGES)


def test_no_message_or_enum_is_nested() -> None:
    for file in FILES:
        for message in file.message_types_by_name.values():
            assert not message.enum_types
            assert all(nested.GetOptions().map_entry for nested in message.nested_types)


def test_every_enum_has_the_documented_values() -> None:
    described = {describe_enum(enum) for file in FILES for enum in file.enum_types_by_name.values()}
    assert described == lines(ENUMS)


def test_every_service_has_the_documented_methods() -> None:
    described = {
        f"{name_of(file)} {service.name}: "
        + "; ".join(
            f"{method.name}({method.input_type.name}) -> "
            + ("stream " if method.server_streaming else "")
            + method.output_type.name
            for method in service.methods
            if not method.client_streaming
        )
        for file in FILES
        for service in file.services_by_name.values()
    }
    assert described == lines(METHODS)


def test_package_and_identities_are_the_documented_ones() -> None:
    for file in FILES:
        assert file.package == "abstractllm_api.v1"
        assert file.GetOptions().java_package == "io.abstractllm.v1"
        assert file.GetOptions().java_multiple_files
        assert file.GetOptions().go_package.endswith(";abstractllmv1")


def test_lint_and_format_pass(buf: str) -> None:
    lint = run(buf, "lint")
    assert (lint.returncode, lint.stdout) == (0, "")
    layout = run(buf, "format", "--diff", "--exit-code")
    assert layout.returncode == 0, layout.stdout


def test_lint_fails_on_an_uncommented_field(buf: str, copy: Path) -> None:
    edit(copy, "  // Who speaks.\n  Role role = 1;", "  Role role = 1;")
    lint = run(buf, "lint", cwd=copy)
    assert lint.returncode != 0
    assert 'Field "role" should have a non-empty comment' in lint.stdout


def test_lint_fails_on_a_comment_that_would_switch_it_off(buf: str, copy: Path) -> None:
    edit(copy, "  // Who speaks.\n  Role role = 1;", "  // buf:lint:ignore COMMENT_FIELD\n  Role role = 1;")
    assert run(buf, "lint", cwd=copy).returncode != 0


def test_contract_is_compatible_with_the_released_one(buf: str) -> None:
    breaking = run(buf, "breaking", "--against", str(BASELINE))
    assert (breaking.returncode, breaking.stdout) == (0, "")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("optional int32 top_k = 4;", "optional int64 top_k = 4;", 'Field "4" with name "top_k"'),
        ("optional double min_p = 5;", "optional double min_p = 16;", 'Previously present field "5"'),
        ("  // Why it ended.\n  FinishReason finish_reason = 1;\n", "", 'Previously present field "1"'),
        ("ROLE_TOOL = 4;", "ROLE_FUNCTION = 4;", 'Enum value "4" on enum "Role"'),
        ("rpc CountTokens(", "rpc Count(", 'Previously present RPC "CountTokens"'),
    ],
    ids=["retyped", "renumbered", "removed", "renamed enum value", "renamed RPC"],
)
def test_a_breaking_change_is_caught(buf: str, copy: Path, old: str, new: str, complaint: str) -> None:
    edit(copy, old, new)
    breaking = run(buf, "breaking", "--against", str(BASELINE), cwd=copy)
    assert breaking.returncode != 0
    assert complaint in breaking.stdout


def without_json_names(file: FileDescriptorProto) -> FileDescriptorProto:
    """Leaves out the default names, which the protobuf runtimes disagree on storing."""
    for message in file.message_type:
        for field in (*message.field, *(field for nested in message.nested_type for field in nested.field)):
            field.ClearField("json_name")
    return file


def test_generated_code_holds_the_descriptors_of_the_proto_files(buf: str, tmp_path: Path) -> None:
    path = tmp_path / "now.binpb"
    build = run(buf, "build", "--exclude-source-info", "--as-file-descriptor-set", "--output", str(path))
    assert build.returncode == 0, build.stderr
    built = {file.name: file for file in FileDescriptorSet.FromString(path.read_bytes()).file}
    for file in FILES:
        generated = FileDescriptorProto()
        file.CopyToProto(generated)
        assert without_json_names(generated) == without_json_names(built[file.name]), file.name


def test_the_check_of_generated_code_names_what_is_missing_stale_or_foreign(tmp_path: Path) -> None:
    fresh, committed = tmp_path / "fresh", tmp_path / "committed"
    shutil.copytree(ROOT / "clients/python/gen", fresh)
    shutil.copytree(ROOT / "clients/python/gen", committed)
    assert generate.differences(fresh, committed) == []
    (committed / "abstractllm_api/py.typed").unlink()
    (committed / "abstractllm_api/mine.py").touch()
    (committed / "abstractllm_api/v1/errors_pb2.py").write_text("stale")
    assert generate.differences(fresh, committed) == [
        f"missing: {Path('abstractllm_api/py.typed')}",
        f"not generated: {Path('abstractllm_api/mine.py')}",
        f"differs: {Path('abstractllm_api/v1/errors_pb2.py')}",
    ]
