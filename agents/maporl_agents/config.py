"""Settings of a run. Frozen, saved as JSON beside it, and the flags of ``maporl train``.

Under each field: its meaning, unit or range, and where the default comes from ("paper" = the MAPoRL
paper or its code; "tiny" = measured here on the built-in model and task, see docs/log.md).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from maporl_agents.typed_text import Typed
from maporl_env.credit import Penalties
from maporl_env.named import is_own_name, object_named, whole_name
from maporl_env.protocols import History, Stop
from maporl_env.rewards import Horizon, Majority, Share

Sharing = Literal["agent", "turn", "first_turn", "one"]
Schedule = Literal["linear", "cosine", "constant"]
KLOfReward = Literal["k1", "k2", "k3", "full_ref_policy"]
Attention = Literal["auto", "eager", "sdpa", "flash_attention_2", "flex_attention"]
Quantization = Literal["none", "nf4", "int8"]
LongQuestions = Literal["refuse", "leave_out", "keep"]


@dataclass(frozen=True)
class Sampling:
    """How messages are drawn: from softmax(logits / temperature), without truncation."""

    max_new_tokens: int = 32
    """Limit per message, the EOS included. Paper: 300 for GSM8K, 250 for ANLI."""
    temperature: float = 1.0
    """Divides the logits, in sampling and in scoring alike; 0 means greedy decoding."""
    max_rows: int = 512
    """At most so many prompts are decoded side by side; bounds memory."""
    agent_max_new_tokens: tuple[int, ...] = ()
    """A limit per agent in place of `max_new_tokens`; agents beyond the list are as its last."""
    stop: tuple[Typed, ...] = ()
    r"""Texts that end a message: its last token is the one that completes the first of them. On
    the command line \n, \t, \xHH and \uHHHH are characters, and \\ is a backslash."""
    agent_stop: tuple[Typed, ...] = ()
    """A further such text per agent, "" for none; agents beyond the list are as its last."""

    def __post_init__(self) -> None:
        _require_numbers(self, AT_LEAST_1, "max_new_tokens", "max_rows")
        if any(limit < 1 for limit in self.agent_max_new_tokens):
            raise ValueError(
                f"agent_max_new_tokens must be at least 1 each, not {self.agent_max_new_tokens}"
            )
        if not all(self.stop):
            raise ValueError('stop holds an empty text, which ends every message: leave "" out')
        _require_numbers(self, NOT_NEGATIVE, "temperature")

    def limit_of(self, seat: int) -> int:
        """Return the most tokens an agent may write in one message."""
        limits = self.agent_max_new_tokens or (self.max_new_tokens,)
        return limits[min(seat, len(limits) - 1)]

    def stops_of(self, seat: int) -> tuple[str, ...]:
        """Return the texts that end an agent's message."""
        own = self.agent_stop or ("",)
        return (*self.stop, *filter(None, [own[min(seat, len(own) - 1)]]))


@dataclass(frozen=True)
class GameConfig:
    """The debate that is played; see `maporl_env.debate_v0` for the rules.

    Fields are those of `maporl_env.config.DebateConfig` by the same names, but for `train_split`
    and `long_questions`; `games` builds it.
    """

    task: str = "shopping"
    """A built-in task, a JSONL or CSV file of questions, or one's own as module:name or
    file.py:name."""
    data: str = ""
    """The file or folder of a named task that needs one; empty for its default source."""
    train_split: str = ""
    """Questions that agents are trained on; empty for "train". The paper's are "rl", where a task
    has such a split: it shares no question with the split "verifier"."""
    num_agents: int = 2
    """A, at least 1."""
    num_turns: int = 3
    """T, at least 1; the first turn is the answer without having seen anybody."""
    protocol: str = "debate"
    """Who speaks when and reads what: debate, sequential, pipeline, joint, self_correction, or
    one's own as module:Class or file.py:Class."""
    history: History = "all"
    """Earlier turns that are read: "all" of them, the "last" one or "none"."""
    token_budget: int | None = None
    """At most so many tokens (of four characters) are read; the oldest turns go first, then the
    middles of long messages. None: all.
    Append-only prompts, on which fast scoring rests, end where turns are dropped."""
    template: str = ""
    """A JSON file with the words of `maporl_env.prompts.Template`; empty for the task's own."""
    personas: tuple[Typed, ...] = ()
    """A system text per agent; empty for none (or the protocol's roles)."""
    verifier: str = "key"
    """What scores the messages: "key", the answer key (or the tests, where answers are programs);
    "tolerance:1e-6", numbers off by at most this share; "math", answers in LaTeX by value;
    "learned:FOLDER", "remote:URL", or another name of `games.VERIFIERS`; or one's own reward as
    module:function or file.py:function, called as `function(questions, responses)`, which returns
    a score in [0, 1] for each response."""
    verifier_timeout: float | None = None
    """Seconds for one call of the verifier, after which its messages go unscored; None waits."""
    gamma: float = 1.0
    """Turn discount of the influence-aware reward, in [0, 1]. Tiny: 1; paper: 0.3."""
    horizon: Horizon = "discounted"
    """Later turns that a reward counts: all, "discounted", only the "last", or the "current"."""
    share: Share = "team"
    """Whose later scores it counts: the whole "team"'s or the agent's "own"."""
    alpha: tuple[float, float] = (0.0, 0.0)
    """Bonus (alpha0, alpha1) for being right against, or persuaded by, a majority. Paper: 0."""
    beta: tuple[float, float] = (0.0, 0.0)
    """Bonus (beta0, beta1) for moving a majority by a wrong, or right, answer. Paper: 0."""
    majority: Majority = "others"
    """Whose majority alpha and beta look at: that of the "others", or of "all"."""
    penalties: Penalties = field(default_factory=Penalties)
    """What bad form costs its own message."""
    reward_feedback: bool = False
    """Show each message's score to everybody in the next turn."""
    feedback_verifier: str = ""
    """Whose scores are shown, while `verifier`'s are paid: a name likewise, e.g. "noisy_key", a
    judge that is right in 9 of 10 cases; empty for those that are paid."""
    stop: Stop = "fixed"
    """Play all turns, or end after a turn in which all valid answers agree."""
    long_questions: LongQuestions = "refuse"
    """Questions whose debate may not fit a model's window, or the token budget, if messages are as
    long as they may be: refuse to begin and name them, leave them out, or ask them all the same and
    end where one does not fit."""
    protocol_options: tuple[str, ...] = ()
    """Options of one's own protocol, KEY=VALUE each: fields of its class that are none here."""


@dataclass(frozen=True)
class TeamConfig:
    """The language models."""

    model: tuple[str, ...] = ("tiny",)
    """One for all agents, or one per agent: built in ("tiny", "tiny-sharing"), a folder, or a
    Hugging Face hub name."""
    tuning: Literal["full", "lora", "none"] = "full"
    """All weights of each policy, a LoRA adapter per policy on one frozen base, or nothing."""
    sharing: Sharing = "agent"
    """Who shares a policy: each agent its own ("agent"), each (turn, agent) its own ("turn"), each
    agent two, the first turn apart ("first_turn"), or everybody one ("one")."""
    train_turns: str = ">=1"
    """Turns that are trained, counted from 1: ">=1" or "all", ">=2", or a list such as "2,3". In
    the others agents speak as they began and learn nothing. Paper: ">=2" in experiment 1."""
    train_agents: tuple[int, ...] = ()
    """Agents that are trained, counted from 0; empty for all. The others stay as they began."""
    lora_rank: int = 8
    """Rank of the adapters. Paper: 8."""
    lora_alpha: int = 16
    """Scale of the adapters (alpha / rank). Paper: 16."""
    start_from: tuple[str, ...] = ()
    """With "lora": adapters that the policies begin as, and are held against, instead of the bare
    base. One folder for all agents or one each: an adapter, or adapters by the policies' names, as
    below a checkpoint's "policies". Rank and scale are then theirs."""
    critic: Literal["trunk", "adapter"] = "trunk"
    """What a critic reads the history with: its policy's own layers, which it helps to train, or,
    with "lora", an adapter of its own."""
    critic_width: int = 64
    """Hidden units of each value head. Tiny."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them: less memory, slower."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the base model's weights."""
    device: str = "auto"
    """ "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU if there is one."""
    device_map: Literal["one", "auto"] = "one"
    """The whole model on the "one" device above, or spread over all there are ("auto")."""
    attention: Attention = "auto"
    """How attention is computed; "auto" leaves it to transformers (as a rule "sdpa")."""
    quantization: Quantization = "none"
    """Keep the base model's linear layers in 4 ("nf4": QLoRA) or 8 bits ("int8"), by bitsandbytes;
    needs "lora", or "none" for a team that only plays. `dtype` is then that of the arithmetic."""
    double_quant: bool = False
    """With "nf4": quantise the scales too, which saves another 0.4 bits per weight."""

    def __post_init__(self) -> None:
        _read_turns(self.train_turns)
        _require_choice("dtype", self.dtype, ("float32", "bfloat16", "float16"))
        _require_choice("device_map", self.device_map, ("one", "auto"))
        _require_choice("attention", self.attention, get_args(Attention))
        _require_choice("quantization", self.quantization, get_args(Quantization))
        if self.tuning == "full":
            self._require_own_weights()
        if self.double_quant and self.quantization != "nf4":
            raise ValueError(
                f"double_quant quantises the scales of 'nf4', and quantization is "
                f"{self.quantization!r}: leave it out, or choose quantization='nf4'"
            )
        _require_choice("sharing", self.sharing, get_args(Sharing))
        _require_choice("tuning", self.tuning, ("full", "lora", "none"))
        _require_choice("critic", self.critic, ("trunk", "adapter"))
        if self.tuning != "lora" and self.critic == "adapter":
            raise ValueError(f"critic='adapter' needs tuning='lora', not {self.tuning!r}")
        if self.tuning != "lora" and self.start_from:
            raise ValueError(
                f"start_from names adapters, so it needs tuning='lora', not {self.tuning!r}; whole "
                "models to begin from are named by `model`"
            )

    def _require_own_weights(self) -> None:
        """Refuse what full tuning, which copies and trains all weights, cannot do."""
        if self.quantization != "none":
            raise ValueError(
                f"quantization={self.quantization!r} freezes the weights, so it needs "
                "tuning='lora' (or 'none' for a team that only plays), not 'full'"
            )
        if self.device_map == "auto":
            raise ValueError(
                "device_map='auto' spreads one frozen model over devices, so it needs "
                "tuning='lora' or 'none', not 'full'"
            )


@dataclass(frozen=True)
class Range:
    """Numbers that a setting may be, and how to say so."""

    words: str
    holds: Callable[[Any], bool]


AT_LEAST_1 = Range("at least 1", lambda x: x >= 1)
NOT_NEGATIVE = Range("a number >= 0", lambda x: 0 <= x < math.inf)
ABOVE_0 = Range("a number above 0", lambda x: 0 < x < math.inf)
ABOVE_0_OR_NONE = Range("a number above 0, or None", lambda x: x is None or ABOVE_0.holds(x))
LIMIT = Range("a number above 0, or inf for no limit", lambda x: x > 0)
UNIT = Range("in [0, 1]", lambda x: 0 <= x <= 1)


def _require_numbers(settings: Any, allowed: Range, *names: str) -> None:
    for name in names:
        if not allowed.holds(value := getattr(settings, name)):
            raise ValueError(f"{name} must be {allowed.words}, not {value}")


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(choices)}")


def turns_of(text: str, num_turns: int) -> frozenset[int]:
    """Return the turns, counted from 0, that a text such as ">=2", "all" or "2,3" names.

    Raises:
        ValueError: the text has another form, or names a turn that is not played.
    """
    first, listed = _read_turns(text)
    turns = range(first, num_turns + 1) if first else listed
    if not turns or max(turns) > num_turns:
        raise ValueError(
            f"train_turns={text!r} names a turn that is not played: there are {num_turns}, from 1"
        )
    return frozenset(turn - 1 for turn in turns)


def _read_turns(text: str) -> tuple[int, tuple[int, ...]]:
    """Return (first, ()) of "from the first on", or (0, turns) of a list; all counted from 1."""
    plain = "".join(text.split())
    if plain == "all":
        return 1, ()
    if re.fullmatch(r">=0*[1-9]\d*", plain, re.ASCII):
        return int(plain[2:]), ()
    if re.fullmatch(r"0*[1-9]\d*(,0*[1-9]\d*)*", plain, re.ASCII):
        return 0, tuple(map(int, plain.split(",")))
    raise ValueError(
        f"train_turns={text!r} is not understood: write 'all', '>=2' or a list such as '2,3', "
        "turns counted from 1"
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its schedule, of whatever algorithm. No weight decay."""

    learning_rate: float = 1e-3
    """Of the policies: the peak of the schedule. Tiny; LoRA on a large model wants about 1e-5
    (paper)."""
    warmup_steps: int = 5
    """Steps of linear warm-up. Tiny."""
    schedule: Schedule = "linear"
    """Way from the peak to the last step: a line, half a "cosine" wave, or "constant". Paper:
    linear."""
    final_fraction: float = 0.1
    """Share of the peak that is left at the end, in [0, 1]. Paper: 0.1."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """Memory of AdamW for the gradient and its square, in [0, 1)."""
    adam_eps: float = 1e-8
    """Added to the root of the squared gradient's mean."""
    max_grad_norm: float = 1.0
    """Gradient clip, per policy. Tiny."""
    micro_episodes: int = 64
    """At most so many debates go through the model at once; changes memory, not the result."""

    def __post_init__(self) -> None:
        _require_choice("schedule", self.schedule, get_args(Schedule))
        _require_numbers(self, NOT_NEGATIVE, "learning_rate", "warmup_steps", "adam_eps")
        _require_numbers(self, UNIT, "final_fraction")
        _require_numbers(self, LIMIT, "max_grad_norm")
        _require_numbers(self, AT_LEAST_1, "micro_episodes")
        if not all(0 <= beta < 1 for beta in self.adam_betas):
            raise ValueError(f"adam_betas must lie in [0, 1), not {self.adam_betas}")


@dataclass(frozen=True)
class PPOConfig(OptimizerConfig):
    """Multi-agent PPO at the level of tokens (spec of the paper's section 4)."""

    critic_learning_rate: float = 5e-3
    """Of the critics, same schedule. Tiny."""
    epochs: int = 1
    """Passes over each batch. Tiny: 1, as good per step as 2 and half the work; paper: 4."""
    minibatches: int = 4
    """Optimiser steps per pass. Tiny."""
    clip_coef: float = 0.2
    """Half width of the band for the ratio. Paper: 0.2."""
    kl_coef: float = 0.02
    """Price per token of the KL to the reference policy, taken off the reward. Tiny; paper:
    0.002."""
    kl_estimator: KLOfReward = "k1"
    """What is priced: k1, the log-ratio; k2, half its square; k3, exp(-k1) - 1 + k1; or
    "full_ref_policy", KL(ref || pi) exact over the vocabulary, at the cost of a second scoring.
    Paper: k1 in its code, full_ref_policy in print. Always in the reward, never in the loss."""
    kl_target: float | None = None
    """KL per token (k1) that the price is adapted to, step by step; None for a fixed price."""
    kl_gain: float = 0.1
    """How fast: the price changes by at most 0.2 * kl_gain of itself per step."""
    critic_coef: float = 0.5
    """Weight of the value loss. Tiny; paper: 0.1."""
    value_clip: float | None = None
    """Largest counted move of a value from what it was before the step, in units of reward; None
    for no bound. Paper: none."""
    entropy_coef: float = 0.0
    """Weight of the entropy per token that is added to the objective; 0 leaves it out. Paper: 0."""
    reduction: Literal["token", "sequence"] = "token"
    """What the losses are means over: all "token"s of a policy's messages alike, or its messages,
    each the mean over its own tokens ("sequence"). Paper: a token drawn uniformly in a message."""
    reward_scale: bool = False
    """Divide rewards by their standard deviation over the run so far; the mean stays."""
    target_kl: float | None = None
    """A minibatch whose approx_kl, mean over the policies, is above this is a step's last; None
    makes them all."""
    token_gamma: float = 1.0
    """Discount per token. Paper: 1."""
    gae_lambda: float = 1.0
    """Lambda of GAE over the tokens of a message, in [0, 1]. Tiny: 1; paper: 0.95."""

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        _require_choice("kl_estimator", self.kl_estimator, get_args(KLOfReward))
        _require_choice("reduction", self.reduction, ("token", "sequence"))
        _require_numbers(self, AT_LEAST_1, "epochs", "minibatches")
        _require_numbers(self, LIMIT, "clip_coef")
        _require_numbers(self, ABOVE_0_OR_NONE, "kl_target", "value_clip", "target_kl")
        _require_numbers(self, NOT_NEGATIVE, "kl_coef", "kl_gain", "entropy_coef", "critic_coef")
        _require_numbers(self, NOT_NEGATIVE, "critic_learning_rate")
        _require_numbers(self, UNIT, "token_gamma", "gae_lambda")
        if self.kl_target is not None and self.kl_coef == 0:
            raise ValueError("kl_target adapts kl_coef by factors, so kl_coef must be above 0")


@dataclass(frozen=True)
class EvalConfig:
    """How a team is measured, on questions that training never saw."""

    questions: int = 500
    """Held-out questions; a figure's standard error is about sqrt(p (1 - p) / questions)."""
    split: str = "test"
    """Which questions of the task."""
    seed: int = 20_000
    """Names the sampling noise of evaluations, the same before and after training."""
    passes: int = 1
    """Where all agents give one answer together: so many debates per question, which then vote.
    MALT's paper: 3."""

    def __post_init__(self) -> None:
        _require_numbers(self, AT_LEAST_1, "questions", "passes")


@dataclass(frozen=True)
class RunConfig:
    """What every training run has, whatever its scheme."""

    name: str = "run"
    """Folder of the run below `runs`: letters, digits, `_`, `-` and `.`, no path."""
    seed: int = 0
    """Names every random stream of the run."""
    steps: int = 50
    """Rounds of play and update."""
    questions_per_step: int = 64
    """Questions asked in one step."""
    checkpoint_every: int = 10
    """Steps between checkpoints; the last step is always saved."""
    game: GameConfig = field(default_factory=GameConfig)
    team: TeamConfig = field(default_factory=TeamConfig)
    sampling: Sampling = field(default_factory=Sampling)
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        _require_numbers(self, AT_LEAST_1, "steps", "questions_per_step", "checkpoint_every")
        if not self.sampling.temperature:
            raise ValueError(
                "sampling.temperature must be above 0 in training: greedy messages are all alike, "
                "so that there is nothing to compare"
            )


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """A run of MAPoRL."""

    name: str = "maporl-shopping"
    """Folder of the run below `runs`: letters, digits, `_`, `-` and `.`, no path."""
    questions_per_step: int = 64
    """Debates per step; each gives agents x turns answers."""
    single_agent: bool = False
    """Train every agent alone (one turn, nobody to read) on as many answers, as the control."""
    ppo: PPOConfig = field(default_factory=PPOConfig)


@dataclass(frozen=True)
class FitConfig(OptimizerConfig):
    """How a role of MALT is fitted to data that no longer changes, by passes over it."""

    warmup_steps: int = 5
    """Updates of linear warm-up. Tiny."""
    epochs: int = 3
    """Passes over the data. Paper: 1 to 10."""
    batch_size: int = 8
    """Messages, or pairs, per update of a role. Paper: 8."""

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        _require_numbers(self, AT_LEAST_1, "epochs", "batch_size")


Role = Literal["generator", "verifier", "refiner"]


@dataclass(frozen=True)
class MALTSettings:
    """Trees of samples, and what is learnt from them (arXiv 2412.01928)."""

    roles: tuple[Role, ...] = get_args(Role)
    """Who speaks, by seat; the last one's answer is the team's. Left out, a role takes its seat
    along: set --game.num-agents and --game.personas too."""
    branching: int = 3
    """n, samples that continue each prefix: n + n^2 + n^3 generations a question. Paper: 3."""
    thresholds: tuple[float, ...] = (0.5,)
    """A message is positive if its value is above this, strictly. One per round, the last for all
    further ones. Paper: 0.5."""
    examples: Literal["positive", "right_paths"] = "positive"
    """What is imitated: positive messages, or all messages of debates that ended right (STaR)."""
    prefer: tuple[Role, ...] = ("verifier", "refiner")
    """Roles that learn from pairs, too. Paper: these; with the generator it got worse."""
    beta: float = 0.2
    """Pull towards what the role was after imitation. Paper: 0.2."""
    labels: Literal["hard", "soft"] = "hard"
    """Who of a pair is preferred: the positive one for sure, or with probability
    sigmoid(difference of the values). Paper: hard in training, soft in its theorem."""
    imitation: FitConfig = field(default_factory=FitConfig)
    """SFT. The paper's learning rate is not known."""
    preference: FitConfig = field(default_factory=lambda: FitConfig(learning_rate=1e-4, epochs=1))
    """DPO."""
    trees_per_file: int = 64
    """Questions whose trees are grown and saved at a time; bounds memory."""

    def __post_init__(self) -> None:
        if not self.roles or len(set(self.roles)) < len(self.roles):
            raise ValueError(f"roles must be different, and at least one, not {self.roles}")
        for role in (*self.roles, *self.prefer):
            _require_choice("role", role, get_args(Role))
        _require_choice("examples", self.examples, ("positive", "right_paths"))
        _require_choice("labels", self.labels, ("hard", "soft"))
        _require_numbers(self, AT_LEAST_1, "branching", "trees_per_file")
        if not self.thresholds or not all(0 <= x < 1 for x in self.thresholds):
            raise ValueError(f"thresholds must lie in [0, 1), at least one, not {self.thresholds}")
        _require_numbers(self, ABOVE_0, "beta")


TINY_ROLES = ("think :", "think again :", "think once more :")
"""System texts of the three roles in words that the built-in model knows."""


@dataclass(frozen=True)
class MALTConfig(RunConfig):
    """A run of MALT."""

    name: str = "malt-shopping"
    """Folder of the run below `runs`: letters, digits, `_`, `-` and `.`, no path."""
    steps: int = 18
    """Stages, three per round: grow trees, imitate, prefer. Tiny: six rounds; paper: one."""
    questions_per_step: int = 39
    """Trees per round. Tiny."""
    checkpoint_every: int = 1
    """Stages between checkpoints."""
    game: GameConfig = field(
        default_factory=lambda: GameConfig(
            protocol="pipeline", num_agents=3, num_turns=1, personas=TINY_ROLES
        )
    )
    eval: EvalConfig = field(default_factory=lambda: EvalConfig(passes=3))
    malt: MALTSettings = field(
        default_factory=lambda: MALTSettings(
            thresholds=(0.15, 0.2, 0.25, 0.3, 0.35, 0.4), imitation=FitConfig(epochs=1)
        )
    )


Joining = Literal["aligned", "cross"]
Comparison = Literal["mean", "leave_one_out", "standardised", "raw"]
Length = Literal["sum", "sequence", "token"]


@dataclass(frozen=True)
class JointGameConfig(GameConfig):
    """The game of joint answers: what agents write at once is joined, and paid as one."""

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
class MAGRPOSettings(OptimizerConfig):
    """Policy gradient without a critic, joint returns compared in groups (arXiv 2508.04652)."""

    learning_rate: float = 1e-3
    """Of the policies: the peak of the schedule. Tiny; library: 5e-6."""
    micro_episodes: int = 16
    """At most so many questions, with all their samples, go through the model at once; changes
    memory, not the result."""
    group_size: int = 8
    """G, samples of each agent at each node of the tree; at least 2. Tiny; library: 2 or 4."""
    joining: Joining = "aligned"
    """Joint actions of a node: the g-th samples with each other ("aligned", G of them; leaves
    G^T), or all combinations ("cross", G^A; leaves G^(A T))."""
    turn_gamma: float = 1.0
    """Discount per turn of the joint return, in [0, 1]. Paper: 1; library: 0.9."""
    comparison: Comparison = "mean"
    """Advantage of a joint action: its return minus the "mean" of its node (paper), minus the mean
    of the others ("leave_one_out"), the first over the standard deviation ("standardised", GRPO's),
    or the return itself ("raw")."""
    credit: Literal["mean", "sum"] = "mean"
    """With "cross", what a completion gets of the joint actions that hold it. Library: the sum,
    which grows as G^(A - 1)."""
    length: Length = "sum"
    """How log-probabilities of a completion's tokens count: their "sum" (paper), their mean
    ("sequence"), or the mean over all tokens of the batch ("token")."""
    ratio: bool = False
    """Weigh tokens by the ratio to the policy that sampled, as PPO does. Without it each batch
    allows one update. Paper: without."""
    clip_coef: float | None = None
    """With the ratio: half width of the band it is clipped to; None for no clip."""
    epochs: int = 1
    """Passes over each batch; more than one needs the ratio."""
    minibatches: int = 1
    """Optimiser steps per pass; more than one needs the ratio."""

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        _require_choice("joining", self.joining, get_args(Joining))
        _require_choice("comparison", self.comparison, get_args(Comparison))
        _require_choice("credit", self.credit, ("mean", "sum"))
        _require_choice("length", self.length, get_args(Length))
        _require_numbers(self, AT_LEAST_1, "epochs", "minibatches")
        if self.group_size < 2:
            raise ValueError(f"group_size must be at least 2, not {self.group_size}")
        _require_numbers(self, UNIT, "turn_gamma")
        _require_numbers(self, ABOVE_0_OR_NONE, "clip_coef")
        if not self.ratio and (self.clip_coef is not None or self.epochs * self.minibatches > 1):
            raise ValueError(
                "clip_coef, and more than one update per batch, need the ratio: set ratio, or "
                "leave clip_coef None and epochs and minibatches 1"
            )
        if self.credit == "sum" and self.joining == "aligned":
            raise ValueError("credit='sum' is for joining='cross': aligned completions have one")


@dataclass(frozen=True)
class MAGRPOConfig(RunConfig):
    """A run of MAGRPO."""

    name: str = "magrpo-receipts"
    """Folder of the run below `runs`: letters, digits, `_`, `-` and `.`, no path."""
    steps: int = 100
    """Rounds of play and update. Tiny: many small ones; each batch allows one update."""
    questions_per_step: int = 4
    """Trees per step. Tiny."""
    game: JointGameConfig = field(default_factory=JointGameConfig)
    magrpo: MAGRPOSettings = field(default_factory=lambda: MAGRPOSettings(joining="cross"))


@dataclass(frozen=True)
class IACSettings(OptimizerConfig):
    """Actor-critics at the level of turns, each agent with its own critic (arXiv 2508.04652)."""

    critic_learning_rate: float = 5e-3
    """Of the critics, same schedule. As MAPoRL's."""
    critic_coef: float = 0.5
    """Weight of the critic's loss. As MAPoRL's."""
    turn_gamma: float = 1.0
    """Discount per turn, in [0, 1]."""
    length: Length = "sum"
    """How log-probabilities of a message's tokens count, as in MAGRPO. Paper: their sum."""

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        _require_choice("length", self.length, get_args(Length))
        _require_numbers(self, UNIT, "turn_gamma")
        _require_numbers(self, NOT_NEGATIVE, "critic_learning_rate", "critic_coef")


@dataclass(frozen=True)
class IACConfig(RunConfig):
    """A run of independent actor-critics."""

    name: str = "iac-receipts"
    """Folder of the run below `runs`: letters, digits, `_`, `-` and `.`, no path."""
    steps: int = 100
    """Rounds of play and update. As MAGRPO's."""
    questions_per_step: int = 32
    """Debates per step: as many answers as MAGRPO's trees."""
    game: JointGameConfig = field(default_factory=JointGameConfig)
    iac: IACSettings = field(default_factory=IACSettings)


CONFIGS: dict[str, type[RunConfig]] = {
    "maporl": TrainConfig,
    "magrpo": MAGRPOConfig,
    "malt": MALTConfig,
    "iac": IACConfig,
}
"""The settings of each scheme: a published way to collaborate and to learn from it."""


_OWN: dict[str, type[RunConfig]] = {}
"""The settings of users' own schemes, by whole names, once `config_of` was asked for them."""

SCHEME_PARTS = ("settings", "check", "learner", "train")
"""What a user's own scheme has; see `schemes.Scheme`."""


def config_of(scheme: str) -> type[RunConfig]:
    """Return the class of a scheme's settings, of one's own too (module:name or file.py:name).

    Raises:
        ValueError: there is no such scheme, or it lacks a part; names the schemes there are.
    """
    if scheme not in CONFIGS and is_own_name(scheme):
        return _own_settings(whole_name(scheme))
    _require_choice("scheme", scheme, tuple(CONFIGS))
    return CONFIGS[scheme]


def _own_settings(name: str) -> type[RunConfig]:
    try:
        found = object_named(name)
    except ValueError as error:
        raise ValueError(f"scheme {error}") from error
    if missing := [part for part in SCHEME_PARTS if not hasattr(found, part)]:
        raise ValueError(
            f"scheme {name!r} has no {', '.join(missing)}: make it a maporl_agents.schemes.Scheme"
        )
    kind = found.settings
    own = isinstance(kind, type) and is_dataclass(kind) and issubclass(kind, RunConfig)
    if not own or kind in (RunConfig, *CONFIGS.values()):
        raise ValueError(
            f"the settings of scheme {name!r} must be a dataclass of its own, derived from "
            "RunConfig or from the settings of another scheme"
        )
    _OWN[name] = kind
    return _OWN[name]


def scheme_of(config: RunConfig) -> str:
    """Return the name of the scheme that settings belong to."""
    known = {**CONFIGS, **_OWN}
    return next(name for name, cls in known.items() if type(config) is cls)


def learning_rate_flags(settings: Any, group: str = "-") -> list[str]:
    """Return the flags of `maporl train` that set the rates of the policies of a run."""
    flags = [f"{group}.learning-rate".replace("-.", "--")] * isinstance(settings, OptimizerConfig)
    for one in fields(settings):
        if is_dataclass(inner := getattr(settings, one.name)):
            flags += learning_rate_flags(inner, f"{group}.{one.name}")
    return flags


def read_settings(data: dict[str, Any]) -> RunConfig:
    """Build the settings of a run from its JSON.

    A section of its own name tells its scheme, or "scheme" does, where that is the user's own.
    """
    scheme = data.get("scheme") or next((name for name in CONFIGS if name in data), "maporl")
    return from_dict(config_of(scheme), {k: v for k, v in data.items() if k != "scheme"})


C = TypeVar("C")


def from_dict(cls: type[C], data: dict[str, Any]) -> C:
    """Build a settings dataclass from what `dataclasses.asdict` gave, e.g. read back from JSON.

    Raises:
        ValueError: a field this version does not know; names it and the known ones.
    """
    hints = get_type_hints(cls)
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ValueError(f"unknown settings {unknown} in {cls.__name__}; known are {known}")
    return cls(**{name: _field(hints[name], value) for name, value in data.items()})


def _field(hint: Any, value: Any) -> Any:
    if is_dataclass(hint):
        return from_dict(hint, value)  # type: ignore[arg-type]
    return tuple(value) if isinstance(value, list) else value
