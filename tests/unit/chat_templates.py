"""Chat templates in the forms of well-known model families, shortened to what makes them differ."""

_HEAD = (
    "{% if tools %}<|im_start|>system\nTools:{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}\n<|im_end|>\n"
    "{% endif %}"
)
_TAIL = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_REASONED = (
    "{% if message.reasoning_content %}<think>\n{{ message.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ message.content }}"
)


def _chat(call: str, content: str = "{{ message.content }}", head: str = _HEAD, tail: str = _TAIL) -> str:
    return (
        head + "{% for message in messages %}<|im_start|>{{ message.role }}\n" + content + "{% if message.tool_calls %}"
        "{% for call in message.tool_calls %}" + call + "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}" + tail
    )


HERMES = _chat(
    '\n<tool_call>\n{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>"
)
CODER = _chat(
    "\n<tool_call>\n<function={{ call.function.name }}>\n{% for key, value in call.function.arguments | items %}"
    "<parameter={{ key }}>\n{{ value if value is string else value | tojson }}\n</parameter>\n{% endfor %}"
    "</function>\n</tool_call>"
)
LLAMA = _chat('{"name": "{{ call.function.name }}", "parameters": {{ call.function.arguments | tojson }}}')
MISTRAL = (
    "{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "{% for message in messages %}{% if message.role == 'user' %}[INST]{{ message.content }}[/INST]"
    "{% elif message.role == 'tool' %}{% if message.tool_call_id | length != 9 %}"
    "{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{% endif %}"
    '[TOOL_RESULTS]{"content": {{ message.content | tojson }}, "call_id": "{{ message.tool_call_id }}"}[/TOOL_RESULTS]'
    "{% elif message.tool_calls %}[TOOL_CALLS] [{% for call in message.tool_calls %}"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}, "id": "{{ call.id }}"}'
    "{% if not loop.last %}, {% endif %}{% endfor %}]</s>{% else %}{{ message.content }}</s>{% endif %}{% endfor %}"
)
MISTRAL_NEW = (
    "{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "{% for message in messages %}{% if message.role == 'user' %}[INST]{{ message.content }}[/INST]{% else %}"
    "{{ message.content }}{% for call in message.tool_calls %}"
    "[TOOL_CALLS]{{ call.function.name }}[ARGS]{{ call.function.arguments | tojson }}{% endfor %}</s>{% endif %}"
    "{% endfor %}"
)
SILENT = _chat("")
"""Offers tools, but shows no calls."""
TEXT_ONLY = _chat(
    '{{ \'<tool_call>\n{"name": "\' + call.function.name + \'", "arguments": \' + call.function.arguments }}}'
    "\n</tool_call>"
)
"""Takes the arguments of calls as text only."""

_CALL = HERMES[HERMES.index("\n<tool_call>") : HERMES.index("{% endfor %}{% endif %}<|im_end|>")]
THINKING = _chat(
    _CALL,
    _REASONED,
    tail="{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
)
"""As Qwen 3: the model begins its reasoning itself, unless it is turned off."""
OPENED = _chat(_CALL, _REASONED, tail="{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}")
"""As QwQ: the prompt begins the reasoning, always."""
LEVELS = _chat(
    _CALL,
    head="<|im_start|>system\nReasoning: {{ reasoning_effort if reasoning_effort is defined else 'medium' }}"
    "<|im_end|>\n" + _HEAD,
)
"""As GPT-OSS: the effort is a word in the prompt."""
