"""Settings of the debate that is played."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from maporl_agents.config import checks
from maporl_agents.config.typed_text import Typed
from maporl_env.penalties import Penalties
from maporl_env.protocols import History, Stop
from maporl_env.rewards import Horizon, Majority, Share
from maporl_env.tasks.worked import AnswerRule

ToolResults = Literal["shown", "hidden"]

LongQuestions = Literal["refuse", "leave_out", "keep"]


@dataclass(frozen=True)
class GameConfig(checks.Checked):
    """The debate that is played; see `maporl_env.debate_v0` for the rules.

    Fields are those of `maporl_env.config.DebateConfig` by the same names, but for `train_split`,
    `long_questions` and those of tools, which become one toolbox; `training.make_game` builds it.
    """

    task: str = "shopping"
    """A task by name (shopping, notes, gsm8k, math, mbpp, mmlu, arc, hotpotqa, ...; some take
    options, as in math:levels=1+2), a JSONL or CSV file of questions, or one's own as module:name
    or file.py:name."""
    data: str = ""
    """The file or folder of a named task that needs one; empty for its default source."""
    train_split: str = ""
    """Questions that agents are trained on; empty for "train". The paper's are "rl", where a task
    has such a split: it shares no question with the split "verifier"."""
    num_agents: int = 2
    """A, at least 1."""
    num_turns: int = 3
    """T, at least 1; in the first turn agents answer without reading each other."""
    protocol: str = "debate"
    """The rules of who speaks when and reads what: debate, sequential, pipeline, joint,
    self_correction, or one's own as module:Class or file.py:Class."""
    history: History = "all"
    """Earlier turns that are read: "all" of them, the "last" one or "none"."""
    token_budget: int | None = None
    """The most tokens (of four characters) that an agent reads; the oldest turns go first, then the
    middles of long messages. None: no limit.
    Append-only prompts, on which fast scoring rests, end where turns are dropped."""
    template: str = ""
    """A JSON file with the words of `maporl_env.prompts.Template`; empty for the task's own."""
    personas: tuple[Typed, ...] = ()
    """A system text per agent; empty for none (or the protocol's roles)."""
    verifier: str = "key"
    """The verifier of messages: "key", the answer key (or the tests, where answers are programs);
    "tolerance:1e-6", numbers off by at most this share; "math", answers in LaTeX by value;
    "learned:FOLDER", "remote:URL", "judge:URL,model=NAME,rubric=FILE" (a language model at an
    OpenAI-compatible address), or another name of `make_game.VERIFIERS`; or one's own reward as
    module:function or file.py:function, called as `function(questions, responses)`, which returns
    a score in [0, 1] for each response."""
    verifier_timeout: float | None = None
    """Seconds for one call of the verifier, after which its messages go unscored; None waits."""
    gamma: float = 1.0
    """Turn discount of the influence-aware reward, in [0, 1]. Tiny: 1; paper: 0.3."""
    horizon: Horizon = "discounted"
    """Later turns that a reward counts: all, "discounted", only the "last", or the "current"."""
    share: Share = "team"
    """Agents whose later scores it counts: the whole "team"'s or the agent's "own"."""
    alpha: tuple[float, float] = (0.0, 0.0)
    """Bonus (alpha0, alpha1) for being right against, or persuaded by, a majority. Paper: 0."""
    beta: tuple[float, float] = (0.0, 0.0)
    """Bonus (beta0, beta1) for moving a majority by a wrong, or right, answer. Paper: 0."""
    majority: Majority = "others"
    """Agents whose majority alpha and beta look at: the "others", or of "all"."""
    penalties: Penalties = field(default_factory=Penalties)
    """Subtracted from the reward of a message for bad form."""
    reward_feedback: bool = False
    """Show each message's score to all agents in the next turn."""
    feedback_verifier: str = ""
    """The verifier whose scores are shown, while those of `verifier` are the rewards: a name as for
    `verifier`, e.g. "noisy_key", which is right in 9 of 10 cases; empty shows those of
    `verifier`."""
    stop: Stop = "fixed"
    """Play all turns, or end after a turn in which all valid answers agree."""
    long_questions: LongQuestions = "refuse"
    """Questions whose debate may not fit a model's window, or the token budget, if messages are as
    long as they may be: refuse to begin and name them, leave them out, or ask them all the same and
    end where one does not fit."""
    protocol_options: tuple[str, ...] = ()
    """Options of one's own protocol, KEY=VALUE each: fields of its class that are none here."""
    shots: int = 0
    """Worked examples that every agent reads first, drawn from the task's training questions: never
    the question that is asked, nor one that is measured on."""
    answer_rule: AnswerRule = "box"
    """Reading of answers that are numbers: from the last "box", \\boxed{}, or as the last number
    on the line that begins with Answer: ("answer_line"), which small models write more easily."""
    tries: int = 1
    """The most tries of a message: an agent reads its refused ones, drafts, and writes again; no
    other agent reads them. The last try is the message in any case."""
    accept: str = ""
    """Which tries are the message: empty for those with a readable answer, or one's own as
    module:function or file.py:function, called as `function(question, text)`, which returns True or
    False."""

    tools: tuple[str, ...] = ()
    """Tools that agents may call inside their messages: "python", which runs a program in the
    sandbox; "search:FOLDER", which searches the text files of a folder; or one's own function of a
    text as module:function or file.py:function. Results stand in the message without any loss."""
    tool_calls: checks.AtLeast1 = 3
    """The most calls in a message; a later one is text like any other."""
    tool_chars: checks.AtLeast1 = 1000
    """The most characters of a result; see `sampling.tool_tokens` too."""
    tool_seconds: checks.Above0 = 5.0
    """Limit of a program of the tool "python"."""
    tool_results: ToolResults = "shown"
    """Whether the other agents read results: "shown" or "hidden". Their author always does, and no
    verifier."""

    env: str = ""
    """Another environment than the debate: "textarena:GAME" with options behind commas, as in
    textarena:KuhnPoker-v0-train,max_rounds=1; or module:function or file.py:function, which returns
    a PettingZoo environment of text. Its agents are num_agents, num_turns the most messages of one;
    of this group it reads gamma besides. Schemes maporl and grpo."""


G = TypeVar("G", bound=GameConfig)


def asking(game: G, task: str) -> G:
    """Return a game about a task: if another, without the file, words and split of the first."""
    if task == game.task:
        return game
    return replace(game, task=task, data="", template="", train_split="")


@dataclass(frozen=True)
class JointGameConfig(GameConfig):
    """The game of joint answers: what agents write at once is joined, and has one reward."""

    task: str = "receipts"
    """A built-in task, a JSONL or CSV file of questions, or one's own."""
    num_turns: int = 1
    """T, at least 1; from the second turn on a joint answer is revised."""
    protocol: str = "joint"
    """Any in which all agents speak at once; where scores differ their mean is the joint reward."""
    show_parts: bool = False
    """In protocol "joint", whether agents read each other's parts of earlier turns. Paper: no."""
    feedback: str = ""
    """In protocol "joint", what outside words agents read about the joint answer before the next
    turn: "" for none (a plain request to revise), "tests" for the diagnostics of executed tests, or
    one's own as module:function or file.py:function, called as
    `function(question, joint_answer)`."""


@dataclass(frozen=True)
class LeaderGameConfig(GameConfig):
    """The game of a leader and its peers."""

    num_agents: int = 2
    """The peers and, last, the leader. Tiny: 2; paper: 4."""
    num_turns: int = 2
    """Turns that are played, of which the first is trained. Paper: 5."""
    protocol: str = "leader"
    """MLPO plays "leader"."""


@dataclass(frozen=True)
class DialogueGameConfig(GameConfig):
    """The game of an agent and a simulated user."""

    num_agents: int = 2
    """The agent and the user."""
    num_turns: int = 3
    """The most turns. Paper: 10."""
    protocol: str = "dialogue"
    """SWEET-RL plays "dialogue"."""
