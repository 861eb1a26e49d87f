"""Chats of models that think: templates of our own in the formats of four families."""

from __future__ import annotations

from dataclasses import dataclass

from miniatures import make_tokenizer
from transformers import PreTrainedTokenizerFast

from maporl_agents.text.chat import Chat

QWEN3 = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content.split('</think>')[-1].lstrip('\n') if m.role == 'assistant' else m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}"""
"""Thinks unless told not to; earlier thoughts are dropped."""

DEEPSEEK = """{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}\
{% elif m.role == 'system' %}{{ m.content }}\
{% else %}<|Assistant|>{{ m.content.split('</think>')[-1] }}<|im_end|>{% endif %}{% endfor %}\
{% if add_generation_prompt %}<|Assistant|><think>
{% endif %}"""
"""The prompt begins the thought."""

SMOLLM3 = """{% if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}\
<|im_start|>system
Reasoning: {{ '/think' if enable_thinking else '/no_think' }}\
{% if messages[0].role == 'system' %} {{ messages[0].content }}{% set messages = messages[1:] %}\
{% endif %}<|im_end|>
{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if not enable_thinking %}<think>

</think>
{% endif %}{% endif %}"""
"""Its switch changes the first message, too."""

GPT_OSS = """<|start|>system<|message|>Reasoning: {{ reasoning_effort or 'medium' }}\
{% if messages[0].role == 'system' %} {{ messages[0].content }}{% set messages = messages[1:] %}\
{% endif %}<|end|>{% for m in messages %}{% if m.role == 'user' %}\
<|start|>user<|message|>{{ m.content }}<|end|>\
{% else %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>{% endif %}\
{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}\
{# thoughts stand in <|channel|>analysis<|message|> #}"""
"""Thoughts and answer on channels; <|return|> ends a message, <|end|> a part of it."""


@dataclass(frozen=True)
class Format:
    """A template, its control tokens, what a thought is written in, and what a prompt ends with."""

    template: str
    special: tuple[str, ...] = ()
    added: tuple[str, ...] = ("<think>", "</think>")
    before: str = "<think>\n"
    between: str = "</think>\n\n"
    ends: str = "<|im_end|>"


FORMATS = {
    "qwen3": Format(QWEN3),
    "deepseek": Format(DEEPSEEK, ("<|User|>", "<|Assistant|>"), before=""),
    "smollm3": Format(SMOLLM3),
    "gpt_oss": Format(
        GPT_OSS,
        ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>"),
        (),
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
        "<|return|>",
    ),
}


def thinking_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer of the format's tokens, with its template."""
    form = FORMATS[name]
    tokenizer = make_tokenizer(template=form.template)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *form.special]})
    tokenizer.add_tokens(list(form.added))
    tokenizer.eos_token = form.ends
    return tokenizer


def thinking_chat(name: str, **options: object) -> Chat:
    return Chat(thinking_tokenizer(name), **options)  # type: ignore[arg-type]


def ids_of(chat: Chat, text: str) -> tuple[int, ...]:
    """Return the ids of a text whose markers are control tokens."""
    return tuple(chat.tokenizer(text, add_special_tokens=False)["input_ids"])


def message(chat: Chat, name: str, thought: str, answer: str) -> tuple[int, ...]:
    """Return a whole message of the format."""
    form = FORMATS[name]
    return ids_of(chat, f"{form.before}{thought}{form.between}{answer}{form.ends}")
