"""Protocols: the order of speakers, the view of each agent, and the final answer.

A protocol is data (a frozen dataclass of settings) and functions of the history alone. It keeps no
state, so a prefix of a transcript can be resampled, branched or replayed by asking it again.

To add a protocol, write such a dataclass and pass an instance as `protocol=`, or its name as
"module:Class" or "file.py:Class", or put the class into :data:`PROTOCOLS` under a name. An option
of the environment is passed to the field of the same name; an option without such a field is
refused. The other fields of the class are set by `protocol_options`, a mapping.
"""

from __future__ import annotations

from collections.abc import Callable

from maporl_env.protocols.base import AppendOnly, PartialTurns, Privileged, Protocol
from maporl_env.protocols.debate import SimultaneousDebate
from maporl_env.protocols.dialogue import Dialogue
from maporl_env.protocols.drafts import Accept, Drafting, tries_again
from maporl_env.protocols.early_stopping import Stop, consensus
from maporl_env.protocols.joint import Feedback, Joiner, JointAnswer
from maporl_env.protocols.leader import Leader
from maporl_env.protocols.lessons import Lessons
from maporl_env.protocols.observation_layout import (
    DEFAULT_TEMPLATE,
    Conversation,
    answers_of_turn,
)
from maporl_env.protocols.pipeline import ROLES, Pipeline
from maporl_env.protocols.retrieve import Retrieve
from maporl_env.protocols.review import Review
from maporl_env.protocols.self_correction import SelfCorrection
from maporl_env.protocols.sequential import SequentialDebate
from maporl_env.protocols.teams_and_judge import TeamsAndJudge
from maporl_env.protocols.visibility import History

__all__ = [
    "DEFAULT_TEMPLATE",
    "PROTOCOLS",
    "ROLES",
    "Accept",
    "AppendOnly",
    "Conversation",
    "Dialogue",
    "Drafting",
    "Feedback",
    "History",
    "Joiner",
    "JointAnswer",
    "Leader",
    "Lessons",
    "PartialTurns",
    "Pipeline",
    "Privileged",
    "Protocol",
    "Retrieve",
    "Review",
    "SelfCorrection",
    "SequentialDebate",
    "SimultaneousDebate",
    "Stop",
    "TeamsAndJudge",
    "answers_of_turn",
    "consensus",
    "tries_again",
]

PROTOCOLS: dict[str, Callable[..., Protocol]] = {
    "debate": SimultaneousDebate,
    "sequential": SequentialDebate,
    "pipeline": Pipeline,
    "joint": JointAnswer,
    "self_correction": SelfCorrection,
    "leader": Leader,
    "dialogue": Dialogue,
    "teams_and_judge": TeamsAndJudge,
    "review": Review,
    "retrieve": Retrieve,
    "lessons": Lessons,
}
"""Protocols by name. An entry is a callable that takes options of the environment as keywords."""
