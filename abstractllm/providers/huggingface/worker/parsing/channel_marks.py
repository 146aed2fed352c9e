"""The marks of OpenAI's harmony format, in which GPT-OSS writes its messages into channels.

The format: https://developers.openai.com/cookbook/articles/openai-harmony
"""

from __future__ import annotations

__all__ = ["ANALYSIS", "CALL", "CHANNEL", "CONSTRAIN", "END", "MESSAGE", "RETURN", "START"]

START = "<|start|>"
"""Before the header of a message: its role, its recipient and its channel."""
CHANNEL = "<|channel|>"
MESSAGE = "<|message|>"
"""Between a header and the message's body."""
CONSTRAIN = "<|constrain|>"
END = "<|end|>"
CALL = "<|call|>"
RETURN = "<|return|>"
ANALYSIS = "analysis"
"""The channel of reasoning."""
