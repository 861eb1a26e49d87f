"""What the views of the debate share: all but the order of calls.

The environments themselves are `debate_v0.raw_env` (AEC) and `debate_v0.parallel_env` (Parallel);
the views for Gymnasium and other libraries are in `bridges`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from maporl_env import prompts
from maporl_env.answers import read_gold
from maporl_env.config import RENDER_MODES, DebateConfig
from maporl_env.env_bases.members import EnvMembers, warn_not_rendered
from maporl_env.game import Game
from maporl_env.observations.text_or_tokens import TextMedium, medium
from maporl_env.prompts import Template
from maporl_env.protocols import PartialTurns
from maporl_env.rendering import pictures, plain_text
from maporl_env.rendering.pictures import Picture
from maporl_env.types import AgentID, Answer, Question, Transcript, View


class DebateBase(EnvMembers):
    """Draws questions, scores turns, and makes the observations, rewards and infos of an episode.

    Attributes:
        config: the options.
        game: task, protocol, credit and verifier built from them.
        debate: the episode.
        medium: the form of actions and observations: text, rows of token ids, or single ids.
        state_space: of :meth:`state`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._set_up(DebateConfig.of(*args, **options).load())

    @classmethod
    def of_game(cls, game: Game) -> DebateBase:
        """Return one more environment of a game that is built already."""
        made = cls.__new__(cls)
        made._set_up(game)
        return made

    def _set_up(self, game: Game) -> None:
        self.game = game
        self.config = game.config
        self.debate = game.debate()
        self._protocol = self.game.protocol
        self.possible_agents = list(self.debate.agents)
        self.render_mode = self.config.render_mode
        if self.render_mode == "rgb_array":
            pictures.require_pillow()
        self.metadata = {
            "name": "debate_v0",
            "render_modes": list(RENDER_MODES),
            "render_fps": 1,
            "is_parallelizable": self._parallel(),
        }
        self.act_through(self.possible_agents)
        self._rng: np.random.Generator | None = None
        self._table: NDArray[np.float32] | None = None
        self._printed = -1

    def _parallel(self) -> bool:
        """Whether all agents act at once in every turn, each with one message."""
        if isinstance(self._protocol, PartialTurns) or self.config.tries > 1:
            return False
        return self._protocol.simultaneous or len(self.possible_agents) == 1

    # -- spaces ------------------------------------------------------------------------------

    def act_through(self, agents: Sequence[AgentID]) -> None:
        """Make the medium for the agents whose actions come from outside."""
        self.medium: TextMedium = medium(
            self.debate, agents, self.config.codec(), self.config.action
        )
        self._observation_spaces = {a: self.medium.observation_space() for a in agents}
        self._action_spaces = {a: self.medium.action_space() for a in agents}
        self.state_space = self.medium.state_space

    @property
    def max_cycles(self) -> int:
        """The number of turns. A new value holds from the next reset on."""
        return self._protocol.num_turns

    @max_cycles.setter
    def max_cycles(self, num_turns: int) -> None:
        self._protocol = replace(self._protocol, num_turns=num_turns)  # type: ignore[type-var]

    # -- the start ---------------------------------------------------------------------------

    def begin(self, seed: int | None, options: Mapping[str, Any] | None) -> None:
        """Begin a debate; a wrong option raises before anything has changed."""
        options = options if options is not None else {}
        rng = self._rng if seed is None and self._rng is not None else np.random.default_rng(seed)
        protocol = self._protocol
        if options.get("template") is not None:
            if not isinstance(options["template"], Template):
                raise ValueError("option template must be a maporl_env.prompts.Template")
            protocol = replace(protocol, template=options["template"])  # type: ignore[type-var]
        question = self._question(rng, options)
        self._rng = rng
        self.debate.protocol = protocol
        self.debate.reset(question)
        self._table = None
        self.medium.clear()
        self._printed = -1

    def _question(self, rng: np.random.Generator, options: Mapping[str, Any]) -> Question:
        questions = self.game.questions
        if options.get("split") is not None:
            questions = self.game.task.split(options["split"])
        chosen = options.get("question")
        if chosen is None:
            chosen = options.get("index")
        if chosen is None:
            if options.get("answer") is not None:
                raise ValueError(
                    "option answer is for a question that is given: set option question too"
                )
            return questions[int(rng.integers(len(questions)))]
        if isinstance(chosen, int | np.integer) and not isinstance(chosen, bool):
            if not 0 <= chosen < len(questions):
                raise ValueError(f"no question {chosen}: there are {len(questions)}, from 0")
            return questions[int(chosen)]
        return _given(chosen, options)

    # -- what a turn leads to ----------------------------------------------------------------

    def score_turn(self) -> None:
        """Have the complete turn scored."""
        responses = self.debate.due()
        questions = [self.debate.question] * len(responses)
        self.debate.settle(*(self.game.score(questions, responses) if responses else ([], None)))

    def payments(self) -> dict[AgentID, float]:
        """Return the rewards of each agent, after a turn was scored or the debate truncated."""
        if self.config.reward_mode == "score":
            if self.debate.truncated:
                return dict.fromkeys(
                    self.possible_agents, 0.0
                )  # the last turn was rewarded when it was scored
            last = self.debate.transcript.of_turn(self.debate.played - 1)
            paid = {m.agent: float(m.score or 0.0) for m in last if m.paid}
            return {agent: paid.get(agent, 0.0) for agent in self.possible_agents}
        if not self.debate.over:
            return dict.fromkeys(self.possible_agents, 0.0)
        sums = self._final_table().sum(axis=0, dtype=np.float64)
        return dict(zip(self.possible_agents, map(float, sums), strict=True))

    def _final_table(self) -> NDArray[np.float32]:
        """Return the (T, A) rewards of the finished debate, computed once."""
        if self._table is None:
            self._table = self.debate.turn_rewards()
        return self._table

    def _info(self, table: NDArray[np.float32] | None) -> dict[AgentID, dict[str, Any]]:
        """Return fresh infos: constant keys, shapes and dtypes; `table` are the final rewards."""
        debate, num_turns = self.debate, self.debate.num_turns
        turn, ready = np.int64(debate.played), table is not None
        last = debate.transcript.of_turn(debate.played - 1) if debate.played else ()
        scores = {message.agent: message.score for message in last}
        infos: dict[AgentID, dict[str, Any]] = {}
        for agent_index, agent in enumerate(self.possible_agents):
            score = scores.get(agent)
            infos[agent] = {
                "turn": turn,
                "verifier_score": np.float32(0.0 if score is None else score),
                "verifier_score_ready": score is not None,
                "turn_rewards": (
                    np.zeros(num_turns, np.float32)
                    if table is None
                    else table[:, agent_index].copy()
                ),
                "turn_rewards_ready": ready,
                **self.medium.info(agent),
            }
        return infos

    def current_infos(self) -> dict[AgentID, dict[str, Any]]:
        """Return fresh infos of all agents for the state the debate is in."""
        return self._info(self._final_table() if self.debate.over else None)

    # -- to look at --------------------------------------------------------------------------

    def observe(self, agent: AgentID) -> Any:
        """Return the observation of an agent; ValueError for an unknown agent."""
        return self.medium.observe(agent)

    @property
    def transcript(self) -> Transcript:
        """Everything published so far."""
        return self.debate.transcript

    def view(self, agent: AgentID) -> View:
        """Return an agent's observation as segments of who wrote what."""
        return self.debate.view(agent)

    def chat(self, agent: AgentID) -> list[dict[str, str]]:
        """Return an agent's observation as chat messages with role and content."""
        return prompts.chat(self.debate.view(agent))

    def outcome(self) -> tuple[Answer, ...]:
        """Return the final answers so far; see `Debate.outcome`."""
        return self.debate.outcome()

    @property
    def faults(self) -> dict[str, int]:
        """Number of messages without a score, by cause; see `verifiers.Scorer`."""
        return self.game.faults

    def state_text(self) -> str:
        """Return the question and all messages, unfinished ones too, as a text for a critic."""
        messages = (*self.debate.transcript.messages, *self.debate.pending)
        said = [(message.agent, message.text) for message in messages]
        spoken = [f"\n{agent}: {text}" for agent, text in [*said, *self.medium.unfinished()]]
        return self.debate.question.prompt + "".join(spoken)

    def state(self) -> NDArray[np.float32]:
        """Return :meth:`state_text` as numbers, float32: its UTF-8 bytes (8192,), or its token ids.

        Zeros fill up a shorter text; of a longer one the end is kept.
        """
        return self.medium.state(self.state_text())

    def render(self) -> str | Picture | None:
        """Show the debate: return it ("ansi", "rgb_array"), or print what is new ("human")."""
        if self.render_mode is None:
            warn_not_rendered()
            return None
        messages = self.debate.transcript.messages
        if self.render_mode == "rgb_array":
            return pictures.picture(self.debate.transcript, self.debate.num_turns)
        if self.render_mode == "ansi":
            return plain_text.heading(self.debate.question) + plain_text.lines(messages)
        if self._printed < 0:
            print(plain_text.heading(self.debate.question))
            self._printed = 0
        print(plain_text.lines(messages[self._printed :]), end="", flush=True)
        self._printed = len(messages)
        return None


def _given(question: object, options: Mapping[str, Any]) -> Question:
    """Return the question an option pins; ValueError unless its gold answer can be read."""
    if isinstance(question, str):
        question = {"prompt": question}
    if isinstance(question, Mapping):
        question = _from_mapping(question, options)
    if not isinstance(question, Question):
        raise ValueError(
            "option question must be a Question, a dict of its fields, its text, or an index, not "
            f"{type(question).__name__}"
        )
    if options.get("answer") is not None:
        question = replace(question, answer=str(options["answer"]))
    read_gold(question.answer, question.kind)
    return question


def _from_mapping(fields: Mapping[Any, Any], options: Mapping[str, Any]) -> Question:
    known = {"id": "given", "answer": options.get("answer"), **fields}
    fields_known = {"id", "prompt", "answer", "kind", "private", "hidden"}
    unknown = sorted(set(map(str, known)) - fields_known)
    if unknown or not isinstance(known.get("prompt"), str) or known["answer"] is None:
        raise ValueError(
            "option question needs prompt and answer, and may have id, kind, private and hidden; "
            f"got {', '.join(map(str, fields)) or 'nothing'}"
        )
    written = {**known, "id": str(known["id"]), "answer": str(known["answer"])}
    try:
        return Question.from_dict(written)
    except TypeError as error:
        raise ValueError(f"option question: {error}") from error


def needs_reset(what: str) -> ResetNeeded:
    """Return the error for a call before the first reset or after the end."""
    return ResetNeeded(f"cannot {what}: call reset first")
