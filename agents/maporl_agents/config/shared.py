"""Settings that runs of every scheme have: sampling, optimiser, evaluation, the run itself.

Under each field: its meaning, unit or range, and where the default comes from ("paper" = the MAPoRL
paper or its code; "tiny" = measured here on the built-in model and task, see docs/log.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, NamedTuple

from maporl_agents.config import checks
from maporl_agents.config.game import GameConfig, JointGameConfig
from maporl_agents.config.self_play import SelfPlayConfig
from maporl_agents.config.team import TeamConfig
from maporl_agents.config.typed_text import Typed
from maporl_agents.config.warmup import WarmupConfig

Schedule = Literal["linear", "cosine", "constant"]

Engine = Literal["local", "vllm"]

Use = Literal["best", "last"]
"""Which checkpoint of a run is used."""


FEWEST_TOOL_TOKENS = 32
"""Of a result that holds no more than its tags, whatever the tokenizer."""


class Truncation(NamedTuple):
    """Which ids are left out of a distribution; the values here leave out none."""

    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


@dataclass(frozen=True)
class Sampling(checks.Checked):
    """Sampling of messages: from softmax(logits / temperature), over the ids that are kept."""

    max_new_tokens: checks.AtLeast1 = 32
    """Limit per message, the EOS included. Paper: 300 for GSM8K, 250 for ANLI."""
    temperature: checks.NotNegative = 1.0
    """Divides the logits, in sampling and in training; 0 means greedy decoding."""
    model_temperature: bool = True
    """Where `temperature` is left at 1, take that of the generation settings of models that are not
    built in; the run says so when it begins."""
    top_k: checks.CountOrNone = None
    """Draw among the k most probable tokens, over which probabilities are renormalised here and in
    training; 0 for all. None: as the models' generation_config.json says, all for built-in ones."""
    top_p: checks.ShareOrNone = None
    """Then among the fewest tokens that have this probability together, in (0, 1]; 1 for all. None:
    as above."""
    min_p: checks.UnitOrNone = None
    """Then among those at least this times as probable as the most probable one, in [0, 1]; 0 for
    all. None: as above."""
    max_thinking_tokens: int | None = None
    """Tokens of a message after which its thought is ended by the mark of the chat template, which
    then has no part in the loss; None for no limit but that of the message."""
    tool_tokens: int = 256
    """The most tokens of one result of a tool (game.tools), its tags included; beside the message's
    own limit, which counts what its author writes."""
    max_rows: checks.AtLeast1 = 512
    """Largest number of prompts that are decoded side by side; bounds memory."""
    cache_gb: checks.NotNegative = 2.0
    """Memory for the key-value caches that are kept from one message of an agent to its next, so
    that only what is new in a prompt is read: 10^9 bytes; 0 keeps none."""
    agent_max_new_tokens: tuple[int, ...] = ()
    """A limit per agent in place of `max_new_tokens`; agents beyond the list are as its last."""
    turn_max_new_tokens: tuple[int, ...] = ()
    """A limit per turn in place of `max_new_tokens`; turns beyond the list are as its last. Beside
    limits per agent the smaller of the two holds."""
    stop: tuple[Typed, ...] = ()
    r"""Texts that end a message: its last token is the one that completes the first of them. On
    the command line \n, \t, \xHH and \uHHHH are characters, and \\ is a backslash."""
    agent_stop: tuple[Typed, ...] = ()
    """A further such text per agent, "" for none; agents beyond the list are as its last."""
    engine: Engine = "local"
    """Messages are written by the models of this process ("local"), or by servers of vLLM's API
    ("vllm"), which hold the base model and are sent every version of the adapters."""
    url: tuple[str, ...] = ()
    """With "vllm": the servers, http://host:port each. Debates are spread over them."""
    adapters: str = ""
    """With "vllm": folder of the adapters that are sent, which trainer and servers see under the
    same path; empty for runs/adapters/NAME."""
    lag: checks.ZeroOrOne = 0
    """With "vllm": updates between the weights that play and those that learn. 0: first play, then
    learn. 1: the next step is played while this one is learnt."""
    mismatch: checks.Above0 = 0.2
    """With "vllm": largest mean distance between the log-probabilities of a server and the
    trainer, in nats per token. Beyond it the run stops: other weights spoke."""
    request_seconds: checks.Above0 = 600.0
    """With "vllm": limit of one attempt of a request, in seconds."""
    retries: checks.Count = 3
    """With "vllm": further attempts where a server drops a request, answers late or with 5xx. Then
    it counts as lost, and the others take over."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tool_tokens < FEWEST_TOOL_TOKENS:
            raise ValueError(
                f"tool_tokens must be at least {FEWEST_TOOL_TOKENS}, which the tags of a result "
                f"may take, not {self.tool_tokens}"
            )
        for name in ("agent_max_new_tokens", "turn_max_new_tokens"):
            if any(limit < 1 for limit in getattr(self, name)):
                raise ValueError(f"{name} must be at least 1 each, not {getattr(self, name)}")
        if not all(self.stop):
            raise ValueError('stop holds an empty text, which ends every message: leave "" out')
        if self.engine == "vllm" and not self.url:
            raise ValueError(
                "engine='vllm' needs the addresses of its servers: --sampling.url http://host:port"
            )
        if len(set(self.url)) < len(self.url):
            raise ValueError(f"url names a server twice: {', '.join(self.url)}")

    @property
    def truncation(self) -> Truncation | None:
        """The settings of truncation, None where nothing is left out."""
        found = Truncation(
            self.top_k or 0, 1.0 if self.top_p is None else self.top_p, self.min_p or 0.0
        )
        return None if found == Truncation() else found

    def limit_of(self, agent: int, turn: int = 0) -> int:
        """Return the most tokens an agent may write in its message of a turn, both from 0."""
        lists = (self.agent_max_new_tokens, agent), (self.turn_max_new_tokens, turn)
        limits = [limits[min(place, len(limits) - 1)] for limits, place in lists if limits]
        return min(limits, default=self.max_new_tokens)

    def by_own_models(self) -> Sampling:
        """Return settings by which the models of this process write."""
        return replace(self, engine="local", url=(), adapters="", lag=0)

    def limited_to(self, tokens: int) -> Sampling:
        """Return settings with one limit for every message."""
        return replace(self, max_new_tokens=tokens, agent_max_new_tokens=(), turn_max_new_tokens=())

    def stops_of(self, agent: int) -> tuple[str, ...]:
        """Return the texts that end an agent's message."""
        own = self.agent_stop or ("",)
        return (*self.stop, *filter(None, [own[min(agent, len(own) - 1)]]))

    def greedy(self) -> Sampling:
        """Return the same settings with greedy decoding."""
        return replace(self, temperature=0.0)


@dataclass(frozen=True)
class OptimizerConfig(checks.Checked):
    """AdamW and its schedule, of whatever algorithm. No weight decay."""

    learning_rate: checks.NotNegative = 1e-3
    """Of the policies: the peak of the schedule. Tiny; LoRA on a large model wants about 1e-5
    (paper)."""
    warmup_steps: checks.Count = 5
    """Steps of linear warm-up. Tiny."""
    schedule: Schedule = "linear"
    """Way from the peak to the last step: a line, half a "cosine" wave, or "constant". Paper:
    linear."""
    final_fraction: checks.Unit = 0.1
    """Share of the peak that is left at the end, in [0, 1]. Paper: 0.1."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """Memory of AdamW for the gradient and its square, in [0, 1)."""
    adam_eps: checks.NotNegative = 1e-8
    """Added to the root of the squared gradient's mean."""
    max_grad_norm: checks.Limit = 1.0
    """Gradient clip, per policy. Tiny."""
    micro_tokens: checks.AtLeast1 = 8192
    """Largest number of tokens in one forward and backward pass, padding included; a conversation
    that is longer goes alone. Changes memory and time, not the result."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 <= beta < 1 for beta in self.adam_betas):
            raise ValueError(f"adam_betas must lie in [0, 1), not {self.adam_betas}")


@dataclass(frozen=True)
class EvalConfig(checks.Checked):
    """Evaluation of a team, on questions that training never saw."""

    questions: checks.AtLeast1 = 500
    """Held-out questions; a figure's standard error is about sqrt(p (1 - p) / questions)."""
    questions_before: checks.AtLeast1 = 100
    """As many of them, the first, are also asked before training; at most `questions`. 100 leave a
    standard error of at most .05, and the measurement before training a fifth of the time."""
    split: str = "test"
    """Which questions of the task."""
    seed: int = 20_000
    """Names the sampling noise of evaluations, the same before and after training."""
    passes: checks.AtLeast1 = 1
    """Where all agents give one answer together: the number of debates per question, which vote.
    MALT's paper: 3."""
    greedy: bool = True
    """Whether the questions are also answered greedily, which takes as long again."""
    use: Use = "best"
    """The checkpoint that is measured, exported and played with: the "best" one on the validation
    slice, or the "last"."""
    validation_questions: checks.AtLeast1 = 100
    """Questions of the split "validation" that are asked at every checkpoint, to find the best; at
    most `questions`. None is among those that are measured on."""
    every: checks.Count = 0
    """Steps between the measurements on the validation slice, each of which saves a checkpoint; 0
    for every `checkpoint_every` steps."""
    patience: checks.Count = 0
    """Measurements in a row on the validation slice, none better than the best, after which
    training stops; 0 trains all steps."""

    def __post_init__(self) -> None:
        if self.questions == 0:
            raise ValueError(
                "questions must be at least 1, not 0: every run measures its team; "
                "--eval.questions 1 --eval.no-greedy measures least"
            )
        super().__post_init__()


@dataclass(frozen=True)
class RunConfig(checks.Checked):
    """The settings that runs of every scheme have."""

    steps_per_round: ClassVar[int] = 1
    """Steps in a row that work on the same questions."""

    name: str = "run"
    """Folder of the run below `runs`: letters, digits, `_`, `-` and `.`, no path."""
    seed: int = 0
    """Names every random stream of the run."""
    steps: checks.AtLeast1 = 50
    """Rounds of play and update."""
    questions_per_step: checks.AtLeast1 = 64
    """Questions asked in one step."""
    checkpoint_every: checks.AtLeast1 = 10
    """Steps between checkpoints; the last step is always saved."""
    game: GameConfig = field(default_factory=GameConfig)
    team: TeamConfig = field(default_factory=TeamConfig)
    sampling: Sampling = field(default_factory=Sampling)
    eval: EvalConfig = field(default_factory=EvalConfig)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    self_play: SelfPlayConfig = field(default_factory=SelfPlayConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sampling.temperature:
            raise ValueError(
                "sampling.temperature must be above 0 in training: greedy messages are all alike, "
                "so that there is nothing to compare"
            )
        if self.sampling.top_k == 1 or self.sampling.min_p == 1:
            raise ValueError(
                "sampling.top_k=1 and sampling.min_p=1 keep one token, which is greedy decoding: "
                "messages are all alike, so that there is nothing to compare"
            )
        if self.game.tools and self.team.shard_base:
            raise ValueError(
                "team.shard_base has all processes write the same messages at once, and what the "
                "tools of game.tools return may differ between them: leave one of them out"
            )
        if self.sampling.engine == "vllm":
            _require_servable(self.sampling, self.team)
            if self.self_play.game:
                raise ValueError(
                    "sampling.engine='vllm' writes debates, and self_play.game is played by the "
                    "models of this process: choose engine='local'"
                )

    def training_game(self) -> tuple[GameConfig, int]:
        """Return the game that is trained on, and the number of questions of a step."""
        return self.game, self.questions_per_step

    def validates_after(self, step: int) -> bool:
        """Return whether the team is measured on the validation slice after a step."""
        every = self.eval.every or self.checkpoint_every
        return step % every == 0 or step == self.steps

    def saves_after(self, step: int) -> bool:
        """Return whether a checkpoint is due after a step."""
        every = self.eval.every if self.eval.use == "best" else 0
        due = step % self.checkpoint_every == 0 or step == self.steps
        return due or bool(every and step % every == 0)


def _require_servable(sampling: Sampling, team: TeamConfig) -> None:
    """Refuse what servers cannot do: they hold one base model and take adapters."""
    if team.tuning != "lora":
        raise ValueError(
            f"sampling.engine='vllm' sends adapters to servers, and team.tuning={team.tuning!r} "
            "has none: choose team.tuning='lora'"
        )
    if team.partners:
        raise ValueError(
            "sampling.engine='vllm' writes all messages by servers, and team.partners names agents "
            "that are no models: choose engine='local'"
        )
    if len(set(team.model)) > 1:
        raise ValueError(
            "sampling.engine='vllm' asks servers of one base model, and team.model names "
            f"{', '.join(dict.fromkeys(team.model))}: choose one model for all agents"
        )
    if sampling.truncation is not None:
        raise ValueError(
            "sampling.engine='vllm' cannot truncate, since servers do not say which ids a token "
            "was drawn from: set sampling.top_k 0, top_p 1 and min_p 0"
        )
    if team.shard_base:
        raise ValueError(
            "sampling.engine='vllm' compares servers with the base on one rank, and "
            "team.shard_base spreads it over ranks: leave shard_base out"
        )
    if sampling.lag and team.central:
        raise ValueError(
            "sampling.lag=1 plays while it learns, and critic='central' reads texts with the same "
            "tokenizer: choose sampling.lag=0 or another critic"
        )
    if sampling.max_thinking_tokens is not None:
        raise ValueError(
            "sampling.engine='vllm' cannot end thoughts at sampling.max_thinking_tokens: leave it "
            "out, or choose engine='local'"
        )


@dataclass(frozen=True)
class JointRunConfig(RunConfig):
    """A run in which agents write joint answers, each with one reward for all agents."""

    steps: checks.AtLeast1 = 100
    """Rounds of play and update. Tiny: many small ones; each batch allows one update."""
    game: JointGameConfig = field(default_factory=JointGameConfig)
