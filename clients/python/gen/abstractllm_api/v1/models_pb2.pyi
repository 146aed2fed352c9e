import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LlmState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LLM_STATE_UNSPECIFIED: _ClassVar[LlmState]
    LLM_STATE_UNLOADED: _ClassVar[LlmState]
    LLM_STATE_LOADING: _ClassVar[LlmState]
    LLM_STATE_READY: _ClassVar[LlmState]
    LLM_STATE_FAILED: _ClassVar[LlmState]
LLM_STATE_UNSPECIFIED: LlmState
LLM_STATE_UNLOADED: LlmState
LLM_STATE_LOADING: LlmState
LLM_STATE_READY: LlmState
LLM_STATE_FAILED: LlmState

class ListLlmsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListLlmsResponse(_message.Message):
    __slots__ = ("llms",)
    LLMS_FIELD_NUMBER: _ClassVar[int]
    llms: _containers.RepeatedCompositeFieldContainer[Llm]
    def __init__(self, llms: _Optional[_Iterable[_Union[Llm, _Mapping]]] = ...) -> None: ...

class Llm(_message.Message):
    __slots__ = ("name", "provider", "model", "is_default", "state", "state_reason", "device", "memory_bytes", "running", "queued")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_REASON_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    name: str
    provider: str
    model: str
    is_default: bool
    state: LlmState
    state_reason: str
    device: str
    memory_bytes: int
    running: int
    queued: int
    def __init__(self, name: _Optional[str] = ..., provider: _Optional[str] = ..., model: _Optional[str] = ..., is_default: _Optional[bool] = ..., state: _Optional[_Union[LlmState, str]] = ..., state_reason: _Optional[str] = ..., device: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., running: _Optional[int] = ..., queued: _Optional[int] = ...) -> None: ...

class GetCapabilitiesRequest(_message.Message):
    __slots__ = ("llm", "model")
    LLM_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    llm: str
    model: str
    def __init__(self, llm: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class GetCapabilitiesResponse(_message.Message):
    __slots__ = ("capabilities",)
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    capabilities: Capabilities
    def __init__(self, capabilities: _Optional[_Union[Capabilities, _Mapping]] = ...) -> None: ...

class Capabilities(_message.Message):
    __slots__ = ("streaming", "system_prompt", "chat", "tools", "image_input", "json_object", "json_schema", "regex", "grammar", "logprobs", "seed", "token_counting", "parameters", "provider_options", "context_window", "max_output_tokens", "quantization", "device", "max_concurrent_requests")
    STREAMING_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_PROMPT_FIELD_NUMBER: _ClassVar[int]
    CHAT_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_INPUT_FIELD_NUMBER: _ClassVar[int]
    JSON_OBJECT_FIELD_NUMBER: _ClassVar[int]
    JSON_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    REGEX_FIELD_NUMBER: _ClassVar[int]
    GRAMMAR_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNTING_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_WINDOW_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENT_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    streaming: bool
    system_prompt: bool
    chat: bool
    tools: bool
    image_input: bool
    json_object: bool
    json_schema: bool
    regex: bool
    grammar: bool
    logprobs: bool
    seed: bool
    token_counting: bool
    parameters: _containers.RepeatedScalarFieldContainer[str]
    provider_options: _containers.RepeatedScalarFieldContainer[str]
    context_window: int
    max_output_tokens: int
    quantization: str
    device: str
    max_concurrent_requests: int
    def __init__(self, streaming: _Optional[bool] = ..., system_prompt: _Optional[bool] = ..., chat: _Optional[bool] = ..., tools: _Optional[bool] = ..., image_input: _Optional[bool] = ..., json_object: _Optional[bool] = ..., json_schema: _Optional[bool] = ..., regex: _Optional[bool] = ..., grammar: _Optional[bool] = ..., logprobs: _Optional[bool] = ..., seed: _Optional[bool] = ..., token_counting: _Optional[bool] = ..., parameters: _Optional[_Iterable[str]] = ..., provider_options: _Optional[_Iterable[str]] = ..., context_window: _Optional[int] = ..., max_output_tokens: _Optional[int] = ..., quantization: _Optional[str] = ..., device: _Optional[str] = ..., max_concurrent_requests: _Optional[int] = ...) -> None: ...

class ListCachedModelsRequest(_message.Message):
    __slots__ = ("llm", "page_size", "page_token")
    LLM_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    llm: str
    page_size: int
    page_token: str
    def __init__(self, llm: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCachedModelsResponse(_message.Message):
    __slots__ = ("models", "next_page_token")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[CachedModel]
    next_page_token: str
    def __init__(self, models: _Optional[_Iterable[_Union[CachedModel, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CachedModel(_message.Message):
    __slots__ = ("name", "revisions", "size_bytes", "last_used_time", "last_modified_time", "used_by", "partial")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LAST_USED_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_MODIFIED_TIME_FIELD_NUMBER: _ClassVar[int]
    USED_BY_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    revisions: _containers.RepeatedScalarFieldContainer[str]
    size_bytes: int
    last_used_time: _timestamp_pb2.Timestamp
    last_modified_time: _timestamp_pb2.Timestamp
    used_by: _containers.RepeatedScalarFieldContainer[str]
    partial: bool
    def __init__(self, name: _Optional[str] = ..., revisions: _Optional[_Iterable[str]] = ..., size_bytes: _Optional[int] = ..., last_used_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_modified_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., used_by: _Optional[_Iterable[str]] = ..., partial: _Optional[bool] = ...) -> None: ...

class PullModelRequest(_message.Message):
    __slots__ = ("llm", "model")
    LLM_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    llm: str
    model: str
    def __init__(self, llm: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class PullModelResponse(_message.Message):
    __slots__ = ("file", "file_bytes_done", "file_bytes_total", "bytes_done", "bytes_total", "done")
    FILE_FIELD_NUMBER: _ClassVar[int]
    FILE_BYTES_DONE_FIELD_NUMBER: _ClassVar[int]
    FILE_BYTES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BYTES_DONE_FIELD_NUMBER: _ClassVar[int]
    BYTES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    file: str
    file_bytes_done: int
    file_bytes_total: int
    bytes_done: int
    bytes_total: int
    done: bool
    def __init__(self, file: _Optional[str] = ..., file_bytes_done: _Optional[int] = ..., file_bytes_total: _Optional[int] = ..., bytes_done: _Optional[int] = ..., bytes_total: _Optional[int] = ..., done: _Optional[bool] = ...) -> None: ...

class LoadModelRequest(_message.Message):
    __slots__ = ("llm",)
    LLM_FIELD_NUMBER: _ClassVar[int]
    llm: str
    def __init__(self, llm: _Optional[str] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("state", "phase", "fraction")
    STATE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    state: LlmState
    phase: str
    fraction: float
    def __init__(self, state: _Optional[_Union[LlmState, str]] = ..., phase: _Optional[str] = ..., fraction: _Optional[float] = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ("llm", "force")
    LLM_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    llm: str
    force: bool
    def __init__(self, llm: _Optional[str] = ..., force: _Optional[bool] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = ("state", "running")
    STATE_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    state: LlmState
    running: int
    def __init__(self, state: _Optional[_Union[LlmState, str]] = ..., running: _Optional[int] = ...) -> None: ...

class ClearCacheRequest(_message.Message):
    __slots__ = ("llm", "model", "all", "dry_run")
    LLM_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    llm: str
    model: str
    all: AllModels
    dry_run: bool
    def __init__(self, llm: _Optional[str] = ..., model: _Optional[str] = ..., all: _Optional[_Union[AllModels, _Mapping]] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class AllModels(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ClearCacheResponse(_message.Message):
    __slots__ = ("removed", "freed_bytes")
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    removed: _containers.RepeatedScalarFieldContainer[str]
    freed_bytes: int
    def __init__(self, removed: _Optional[_Iterable[str]] = ..., freed_bytes: _Optional[int] = ...) -> None: ...
