"""The ways in which models write tool calls."""
# ruff: noqa: RUF001 - models' marks are what they are

from __future__ import annotations

from dataclasses import dataclass

from abstractllm.providers.huggingface.worker.parsing.channel_marks import CALL, CHANNEL, MESSAGE

__all__ = ["CHANNELS", "FORMATS", "CallFormat", "Tags"]


@dataclass(frozen=True, slots=True)
class Tags:
    """The texts around the parts of a call whose arguments are elements."""

    name: tuple[str, str]
    """Around the tool's name; a name without a text behind it ends at a line break or the next tag."""
    key: tuple[str, str]
    value: tuple[str, str]
    end: str
    """Behind the last argument; empty where the closing of the calls stands there."""


@dataclass(frozen=True, slots=True)
class CallFormat:
    """A way of writing calls."""

    body: str
    """The form behind the opening.

    `json`: an object with a name and arguments, or several; `keyed`: an object whose one key is the name; `named`: the
    name, `separator`, the arguments as JSON; `elements`: `tags`, with the arguments as plain text; `python`: a function
    call, or a list of such, or the same as objects; `bare`: `call:`, the name, an object whose keys have no quotes;
    `channels`: see `channel_parser`.
    """
    opening: str
    """The text before calls; empty if an answer that begins with an object may be a call."""
    closing: str = ""
    separator: str = ""
    call: tuple[str, str] = ("", "")
    """Of `named`: the texts around each call between `opening` and `closing`."""
    prefix: str = ""
    """Of `named`: a text before the name."""
    id_separator: str = ""
    """Of `named`: the text between the name and an id, where the model may write one."""
    quote: str = ""
    """Of `bare`: the text around strings."""
    tags: Tags | None = None

    @property
    def markers(self) -> tuple[str, ...]:
        """The texts that may be, or hold, special tokens."""
        texts = [self.opening, self.separator, self.closing, *self.call, self.prefix, self.id_separator, self.quote]
        if self.tags is not None:
            texts += [*self.tags.name, *self.tags.key, *self.tags.value, self.tags.end]
        return tuple(text for text in texts if text)

    @property
    def bare_opening(self) -> str:
        """The text with which a call begins where a model leaves `opening` out, as Qwen3-Coder does; empty for none."""
        return self.tags.name[0] if self.tags is QWEN_TAGS else ""

    @property
    def is_forcible(self) -> bool:
        """True if an answer can be held to a call in this format without a frame around JSON."""
        return self.tags is QWEN_TAGS and self.opening == "<tool_call>"


QWEN_TAGS = Tags(("<function=", ">"), ("<parameter=", ">"), ("", "</parameter>"), "</function>")
_INVOKE_TAGS = Tags(('<invoke name="', '">'), ('<parameter name="', '">'), ("", "</parameter>"), "</invoke>")
_GLM_TAGS = Tags(("", ""), ("<arg_key>", "</arg_key>"), ("<arg_value>", "</arg_value>"), "")
_DEEPSEEK = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_DEEPSEEK_CALL = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
_DEEPSEEK_SEPARATOR = "<｜tool▁sep｜>"
_FENCE = "```"

FORMATS = (
    CallFormat("elements", "<tool_call>", "</tool_call>", tags=QWEN_TAGS),  # Qwen3-Coder, Qwen 3.5, Nemotron 3
    CallFormat("elements", "<tool_call>", "</tool_call>", tags=_GLM_TAGS),  # GLM 4.5 and later
    CallFormat("json", "<tool_call>", "</tool_call>"),  # Hermes, Qwen 2.5, Qwen 3, Granite 4, SmolLM 3, Ernie, EXAONE 4
    # Mistral since version 11 of its format.
    CallFormat("named", "[TOOL_CALLS]", "", "[ARGS]", id_separator="[CALL_ID]"),
    CallFormat("json", "[TOOL_CALLS]"),  # Mistral before
    CallFormat("json", "<|tool_call|>", "<|/tool_call|>"),  # Phi-4-mini
    CallFormat("json", "<|tool_call|>"),  # Granite 3
    # DeepSeek V3, R1.
    CallFormat(
        "named",
        *_DEEPSEEK,
        f"\n{_FENCE}json\n",
        (_DEEPSEEK_CALL[0], f"{_FENCE}{_DEEPSEEK_CALL[1]}"),
        f"function{_DEEPSEEK_SEPARATOR}",
    ),
    CallFormat("named", *_DEEPSEEK, _DEEPSEEK_SEPARATOR, _DEEPSEEK_CALL),  # DeepSeek V3.1
    # Kimi K2.
    CallFormat(
        "named",
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_end|>",
        "<|tool_call_argument_begin|>",
        ("<|tool_call_begin|>", "<|tool_call_end|>"),
        "functions.",
    ),
    CallFormat("elements", "<seed:tool_call>", "</seed:tool_call>", tags=QWEN_TAGS),  # Seed-OSS
    CallFormat("elements", "<minimax:tool_call>", "</minimax:tool_call>", tags=_INVOKE_TAGS),  # MiniMax M2
    CallFormat("json", "<tool_calls>", "</tool_calls>"),  # MiniMax M1, Hunyuan, Jamba
    CallFormat("json", "<TOOLCALL>", "</TOOLCALL>"),  # Nemotron Nano
    CallFormat("json", "<|START_ACTION|>", "<|END_ACTION|>"),  # Command R7B, Command A
    CallFormat("json", "Action:\n```json", "```"),  # Command R
    CallFormat("json", "Action: ```json", "```"),
    CallFormat("json", "<longcat_tool_call>", "</longcat_tool_call>"),  # LongCat
    CallFormat("json", "<|action_start|><|plugin|>", "<|action_end|>"),  # InternLM 2.5
    CallFormat("json", "function call<|role_sep|>", "<|message_sep|>"),  # GigaChat 3
    CallFormat("keyed", "<|tools_prefix|>", "<|tools_suffix|>"),  # Apertus
    CallFormat("python", "<|tool_call_start|>", "<|tool_call_end|>"),  # LFM2
    CallFormat("python", "<function_calls>", "</function_calls>"),  # Olmo 3
    CallFormat("python", "<|python_start|>", "<|python_end|>"),  # Llama 4
    CallFormat("bare", "<|tool_call>", "<tool_call|>", quote='<|"|>'),  # Gemma 4
    CallFormat("bare", "<start_function_call>", "<end_function_call>", quote="<escape>"),  # FunctionGemma
    CallFormat("named", "<function=", "</function>", ">"),  # Llama 3.1, where the template writes the tag
    CallFormat("json", "<|python_tag|>"),  # Llama 3, where the template writes the tag
    CallFormat("json", ""),  # Llama 3, xLAM
    CallFormat("python", ""),  # Llama 4, Llama 3.2 and others whose calls are a list in Python's form
)
"""The known formats. Where two could read the same text, the more specific one comes first."""

CHANNELS = CallFormat("channels", CHANNEL, CALL, MESSAGE)
"""The format of GPT-OSS, whose calls are messages of a channel."""
