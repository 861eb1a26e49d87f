"""Chats of several templates, and an observation for them to encode."""

from __future__ import annotations

from miniatures import CHAT_TEMPLATE, make_tokenizer, shared_tokenizer

from maporl_agents.text.chat import Chat
from maporl_agents.tiny.tokenizer import make_tokenizer as make_tiny_tokenizer
from maporl_env.debate import Debate
from maporl_env.protocols import SimultaneousDebate
from maporl_env.types import Question, View

TRIMMING = CHAT_TEMPLATE.replace("message['content']", "message['content'] | trim")
BRACKETS = (  # as Mistral's: no header for the assistant, EOS after what it says
    "<|im_start|>{% for m in messages %}{% if m['role'] == 'user' %}"
    "[INST] {{ m['content'] }} [/INST]{% else %}{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
)
TEMPLATES = {"none": None, "chatml": CHAT_TEMPLATE, "trim": TRIMMING, "inst": BRACKETS}


def make_chat(name: str) -> Chat:
    if name == "tiny":
        return Chat(make_tiny_tokenizer())
    tokenizer = (
        make_tokenizer(template=CHAT_TEMPLATE) if TEMPLATES[name] else shared_tokenizer(False)
    )
    if TEMPLATES[name]:
        tokenizer.chat_template = TEMPLATES[name]
    return Chat(tokenizer)


def view_of(question: str = "how much ?", own: str = "5", peer: str = "6") -> View:
    """What agent 0 reads in the third turn of a debate with these texts."""
    debate = Debate(SimultaneousDebate(num_turns=3), 2)
    debate.reset(Question("q", question, "5", "number"))
    for _ in range(2):
        debate.post("agent_0", own)
        debate.post("agent_1", peer)
        debate.settle([0.0, 0.0])
    return debate.view("agent_0")
