"""The options of a debate in one frozen dataclass, checked before anything is played."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from maporl_env import prompts
from maporl_env.credit import Credit
from maporl_env.debate import MAX_CHARS, OnLong
from maporl_env.game import Game
from maporl_env.observations.tokens import (
    MESSAGE_TOKENS,
    OBSERVATION_TOKENS,
    ByteTokenizer,
    ObsDtype,
    TokenCodec,
    Tokenizer,
)
from maporl_env.penalties import Penalties
from maporl_env.prompts import Template
from maporl_env.protocols import PROTOCOLS, Accept, Drafting, Feedback, History, Protocol, Stop
from maporl_env.protocols.by_name import make_protocol, maker_of, parameters_of
from maporl_env.protocols.knowledge import require_private
from maporl_env.rewards import Horizon, Majority, Share
from maporl_env.similar_names import make, require_choice
from maporl_env.tasks import load_task
from maporl_env.tasks.base import Task
from maporl_env.tasks.worked import (
    AnswerRule,
    WorkedExamples,
    instructing,
    require_numbers,
    worked_examples,
)
from maporl_env.tools import Toolbox, toolbox_named
from maporl_env.types import Question, agent_ids
from maporl_env.user_functions import is_own_name
from maporl_env.verifiers import AnswerKey, Scorer, VerifierLike

RewardMode = Literal["terminal", "score"]
Unit = Literal["message", "token"]
OBSERVATIONS = ("text", "tokens")
RENDER_MODES = ("human", "ansi", "rgb_array")


@dataclass(frozen=True)
class DebateConfig:
    """Every option of a debate. `debate_v0.env(...)`, `BatchedDebate` and the bridges take these.

    Attributes:
        task: a name, a path, a list of `Question`, or a `Task`; see `tasks.load_task`.
        num_agents: A >= 1.
        num_turns: the horizon T >= 1.
        protocol: a name of `protocols.PROTOCOLS`; one's own class as "module:name" or
            "file.py:name"; or a protocol object, whose own num_turns, template and so on are used.
        protocol_options: values of further fields of the protocol's class, by name: fields that
            are not an option of a debate. None for none.
        verifier: scores the answers; None for the task's own, in most tasks the answer key. See
            `verifiers`.
        gamma: turn discount of the influence-aware reward, in [0, 1].
        alpha: (alpha0, alpha1), bonus for correcting its own answer; see `rewards.shaping_bonus`.
        beta: (beta0, beta1), bonus for correcting the majority; see `rewards.shaping_bonus`.
        reward_mode: "terminal" rewards each agent with the sum of its turn rewards at the end;
            "score" rewards with the verifier score after each turn, which is another objective.
        reward_feedback: agents read the scores of earlier messages.
        feedback_verifier: gives the scores that agents read, while `verifier` gives those for
            rewards; None if agents read the scores of `verifier`.
        stop: "fixed" plays all turns; "consensus" ends when all valid answers of a turn agree.
        observation: "text", or "tokens": observations and actions are rows of token ids.
        render_mode: None, "human" (prints), "ansi" (returns the text) or "rgb_array" (returns a
            picture; needs the extra `render`).
        max_cycles: another name for num_turns, as PettingZoo's tools use it; None to use num_turns.
        data: the file or folder of a named task that needs one; None for its default source.
        split: which questions are drawn; None for "train", or the only split there is.
        template: one `Template`, or one per agent; None for the task's own.
        personas: a system text per agent; None for none (or the protocol's roles).
        history: the earlier turns that agents read: "all", the "last" one, or "none".
        token_budget: upper bound on the tokens of an observation; the oldest turns are left out,
            then the middles of long messages, to keep within it. None for no bound.
        count_tokens: how tokens are counted for the budget; a quarter of the characters by default.
        horizon: the later turns that count in a reward: "discounted", "last" or "current".
        share: the agents whose later scores count: "team" or "own".
        majority: the agents whose majority alpha and beta use: the "others" or "all".
        penalties: costs of a badly formed message; None for none.
        max_chars: longest message in characters.
        on_long: a longer message is cut and flagged ("truncate") or refused ("error").
        verifier_timeout: seconds for one verifier call; None for no limit.
        action: with tokens, an action is a whole "message" (Box) or one "token" (Discrete).
        tokenizer: encode, decode and vocab_size of your own; None for one id per byte.
        observation_tokens: length of an observation. Without a `token_budget` the oldest turns are
            dropped to keep within it; the question never is.
        message_tokens: longest message, the end id not counted.
        obs_dtype: "int64", or "float32" for learners that feed ids to a dense layer.
        feedback: in protocol "joint", `(question, joint answer) -> text` that all agents read
            before the next turn, e.g. `verifiers.programs.Diagnostics()`; None for none.
        show_parts: in protocol "joint", whether agents read each other's parts of earlier turns.
        shots: number of worked examples that every agent reads first, of the task's training
            questions; see `tasks.worked`.
        answer_rule: how answers that are numbers are read: in a "box", or "answer_line", the last
            number on the line that begins with `Answer:`; see `answers` and `answer_lines`.
        tries: the most tries of a message; those that `accept` refuses are drafts, which no other
            agent reads. 1 takes every message as it is.
        accept: `(question, text) -> bool`, whether a try may be the message; None accepts one
            from which an answer can be read.
        tools: that agents may call inside their messages: a `tools.Toolbox`, or names of tools as
            `tools.toolbox_named` takes them; None for none. The environment tells agents of them
            in the task's own template, and shows their results; who calls them is the agents' side
            (`Toolbox.message` for agents that write text).
    """

    task: str | Path | Sequence[Question] | Task = "shopping"
    num_agents: int = 3
    num_turns: int = 3
    protocol: str | Protocol = "debate"
    verifier: VerifierLike | None = None
    gamma: float = 0.3
    alpha: tuple[float, float] = (0, 0)
    beta: tuple[float, float] = (0, 0)
    reward_mode: RewardMode = "terminal"
    reward_feedback: bool = False
    stop: Stop = "fixed"
    observation: str = "text"
    render_mode: str | None = None
    max_cycles: int | None = None
    feedback_verifier: VerifierLike | None = None
    data: str | Path | None = None
    split: str | None = None
    template: Template | Sequence[Template] | None = None
    personas: Sequence[str] | None = None
    history: History = "all"
    token_budget: int | None = None
    count_tokens: Callable[[str], int] = prompts.count_characters
    horizon: Horizon = "discounted"
    share: Share = "team"
    majority: Majority = "others"
    penalties: Penalties | None = None
    max_chars: int = MAX_CHARS
    on_long: OnLong = "truncate"
    verifier_timeout: float | None = None
    action: Unit = "message"
    tokenizer: Tokenizer | None = None
    observation_tokens: int = OBSERVATION_TOKENS
    message_tokens: int = MESSAGE_TOKENS
    obs_dtype: ObsDtype = "int64"
    feedback: Feedback | None = None
    show_parts: bool = True
    protocol_options: Mapping[str, Any] | None = None
    shots: int = 0
    answer_rule: AnswerRule = "box"
    tries: int = 1
    accept: Accept | None = None
    tools: Toolbox | Sequence[str] | None = None

    @classmethod
    def of(cls, *args: Any, **options: Any) -> DebateConfig:
        """Return a config; TypeError names the nearest option for one that does not exist."""
        return make(cls, *args, **options)

    def __post_init__(self) -> None:
        require_choice("reward_mode", self.reward_mode, typing.get_args(RewardMode))
        require_choice("observation", self.observation, OBSERVATIONS)
        require_choice("action", self.action, typing.get_args(Unit))
        require_choice("render_mode", self.render_mode, (None, *RENDER_MODES))
        require_choice("on_long", self.on_long, typing.get_args(OnLong))
        require_choice("history", self.history, typing.get_args(History))
        require_choice("stop", self.stop, typing.get_args(Stop))
        require_choice("answer_rule", self.answer_rule, typing.get_args(AnswerRule))
        if isinstance(self.shots, bool) or not isinstance(self.shots, int) or self.shots < 0:
            raise ValueError(f"shots must be an integer >= 0, not {self.shots!r}")
        for name in ("reward_feedback", "show_parts"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, not {getattr(self, name)!r}")
        if self.feedback_verifier is not None and not self.reward_feedback:
            raise ValueError(
                "feedback_verifier gives the scores that agents read: set reward_feedback=True too"
            )
        _positive("num_turns", self.num_turns)
        _positive("max_chars", self.max_chars)
        _positive("tries", self.tries)
        if self.accept is not None and self.tries == 1:
            raise ValueError("accept says which tries are drafts: set tries to 2 or more")
        if self.max_cycles is not None:
            _positive("max_cycles", self.max_cycles)
        if isinstance(self.protocol, str) and not is_own_name(self.protocol):
            require_choice("protocol", self.protocol, tuple(PROTOCOLS))
        agent_ids(self.num_agents)
        self._check_tokens()
        if self.tools is not None and not isinstance(self.tools, Toolbox):
            names = (self.tools,) if isinstance(self.tools, str) else tuple(self.tools)
            object.__setattr__(self, "tools", toolbox_named(names))

    def _check_tokens(self) -> None:
        _positive("observation_tokens", self.observation_tokens)
        _positive("message_tokens", self.message_tokens)
        if self.codec() is None:
            if self.action == "token":
                raise ValueError("action='token' needs observation='tokens'")
        elif self.on_long == "error":
            raise ValueError("on_long='error' is for text: message_tokens limits token messages")
        elif self._prompt_tokens() < 1:
            raise ValueError(
                f"observation_tokens={self.observation_tokens} must be more than "
                f"message_tokens={self.message_tokens}: the unfinished message is observed too"
            )

    @property
    def toolbox(self) -> Toolbox | None:
        """The tools of the agents; None without any."""
        return self.tools if isinstance(self.tools, Toolbox) else None

    def codec(self) -> TokenCodec | None:
        """Return the codec from text to token ids; None where observations are text."""
        if self.observation != "tokens":
            return None
        return TokenCodec(
            self.tokenizer if self.tokenizer is not None else ByteTokenizer(),
            self.observation_tokens,
            self.message_tokens,
            self.obs_dtype,
        )

    def _prompt_tokens(self) -> int:
        """Room for a prompt in an observation that may also hold the unfinished message."""
        return self.observation_tokens - (self.message_tokens if self.action == "token" else 0)

    def _token_limits(self, known: set[str]) -> dict[str, Any]:
        """With token observations: count in their tokens, and keep within their length."""
        codec = self.codec()
        if codec is None or "token_budget" not in known:
            return {}
        limits: dict[str, Any] = {}
        if self.token_budget is None:
            limits["token_budget"] = self._prompt_tokens()
        if self.count_tokens is prompts.count_characters:
            limits["count_tokens"] = codec.count
        return limits

    def load(self) -> Game:
        """Build what the options describe: task, protocol, credit, verifier."""
        task = load_task(self.task, self.data)
        split = self.split or task.default_split
        task.split(split)
        for question in task.private_counts.get(split, ()):
            require_private(question, self.num_agents)
        require_numbers(task.split(split), self.answer_rule)
        protocol, examples = self._with_examples(task, self._protocol(task))
        return Game(
            task=task,
            protocol=protocol,
            examples=examples,
            drafting=Drafting(self.tries, self.accept) if self.tries > 1 else None,
            credit=self._credit(),
            scorer=self._scorer(self._verifier(task)),
            config=self,
            feedback=(
                None if self.feedback_verifier is None else self._scorer(self.feedback_verifier)
            ),
        )

    def _with_examples(
        self, task: Task, protocol: Protocol
    ) -> tuple[Protocol, WorkedExamples | None]:
        """Return the protocol, its token budget less the worked examples, and the examples."""
        budget = getattr(protocol, "token_budget", None)
        whole = protocol if budget is None else replace(protocol, token_budget=None)  # type: ignore[type-var]
        words = getattr(protocol, "template", task.template)
        each = words if isinstance(words, tuple) else (words,) * self.num_agents
        agents = agent_ids(self.num_agents)
        examples = worked_examples(task, whole, agents, self.shots, self.answer_rule, each)
        if examples is None or budget is None:
            return protocol, examples
        longest = [examples.longest(agent) for agent in range(self.num_agents)]
        room = budget - max(map(protocol.count_tokens, longest))  # type: ignore[attr-defined]
        if room < 1:
            raise ValueError(
                f"{self.shots} worked examples take {budget - room} tokens, all of the {budget} of "
                "the token budget: lower shots, or raise it"
            )
        return replace(protocol, token_budget=room), examples  # type: ignore[type-var]

    def _verifier(self, task: Task) -> VerifierLike:
        if self.verifier is not None:
            return self.verifier
        made: VerifierLike = AnswerKey() if task.make_verifier is None else task.make_verifier()
        return made

    def _scorer(self, verifier: VerifierLike) -> Scorer:
        return Scorer(verifier, self.verifier_timeout)

    def _credit(self) -> Credit:
        return Credit(
            gamma=self.gamma,
            horizon=self.horizon,
            share=self.share,
            alpha=_pair("alpha", self.alpha),
            beta=_pair("beta", self.beta),
            majority=self.majority,
            penalties=self.penalties if self.penalties is not None else Penalties(),
        )

    def _template(self, task: Task) -> Template | Sequence[Template]:
        """Return the words of the debate, which say how an answer is marked.

        Raises:
            ValueError: templates that were given ask for a box, and `answer_rule` reads none.
        """
        if self.template is None:
            words = instructing(task.template, self.answer_rule)
            return words if self.toolbox is None else words.telling(self.toolbox.instruction)
        given = [self.template] if isinstance(self.template, Template) else self.template
        if self.answer_rule != "box" and any("\\boxed" in one.instruction for one in given):
            raise ValueError(
                f"the template asks for a \\boxed answer, and answer_rule={self.answer_rule!r} "
                "reads none: change its instruction, or leave answer_rule out"
            )
        return self.template

    def _protocol(self, task: Task) -> Protocol:
        template = self._template(task)
        if not isinstance(self.protocol, str):
            protocol = self.protocol
            if self.protocol_options:
                raise ValueError("protocol_options are for a protocol by name: set the object's")
            if self.max_cycles is not None:
                protocol = replace(protocol, num_turns=self.max_cycles)  # type: ignore[type-var]
        else:
            wanted: dict[str, Any] = {
                "num_turns": self.max_cycles if self.max_cycles is not None else self.num_turns,
                "template": template if isinstance(template, Template) else tuple(template),
                "reward_feedback": self.reward_feedback,
                "stop": self.stop,
                "history": self.history,
                "token_budget": self.token_budget,
                "count_tokens": self.count_tokens,
                "feedback": self.feedback,
                "show_parts": self.show_parts,
            }
            make = maker_of(self.protocol)
            known = parameters_of(make)
            wanted |= self._token_limits(known)
            if self.personas is not None:
                wanted["personas"] = tuple(self.personas)
            if "joiner" in known:
                roles = task.roles if self.num_agents > 1 else ()
                wanted = {"personas": roles, "joiner": task.joiner, **wanted}
            defaults = {field.name: field.default for field in fields(DebateConfig)}
            own = self.protocol_options or {}
            protocol = make_protocol(self.protocol, make, wanted, own, defaults)
        check = getattr(protocol, "check", None)
        if check is not None:
            check(self.num_agents)
        return protocol


def _positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, not {value!r}")


def _pair(name: str, value: Any) -> tuple[float, float]:
    try:
        first, second = value
        return float(first), float(second)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} must be a pair of numbers ({name}0, {name}1), not {value!r}"
        ) from None
