"""Controls: measurements of a team alone, with shuffled verdicts or peers, best of N, and others.

A rise over turns is collaboration only if it depends on the other agents. So the same policies are
measured alone, with shuffled verdicts, and with the peers' messages of another question. Two more
controls spend the same number of samples or tokens without a debate: the best of N samples, and a
vote among N.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Literal, get_args

from maporl_agents.config import GameConfig, Sampling
from maporl_agents.measure.debate_stats import right
from maporl_agents.measure.evaluate import Evaluation, TurnStats, evaluate, turn_stats
from maporl_agents.measure.vote_of_passes import as_one, vote_of_passes
from maporl_agents.models.team import Team
from maporl_agents.seeding import seed_of
from maporl_agents.training.experiment import EVAL_BATCH
from maporl_agents.training.make_game import debates_of, make_game
from maporl_env.batched import BatchedDebate, Prompt
from maporl_env.prompts import render
from maporl_env.tasks import load_task
from maporl_env.types import Question, Transcript
from maporl_env.verifiers import Scorer

Kind = Literal[
    "debate",
    "alone",
    "self_refinement",
    "verdicts_shuffled",
    "peers_shuffled",
    "best_of_n",
    "self_consistency",
    "team",
]
SAMPLED_ONLY = ("best_of_n", "self_consistency")
"""Kinds whose samples would all be equal if they were greedy."""
PILOT_QUESTIONS = 100
"""Number of debates from which the mean tokens of a debate are estimated."""


@dataclass(frozen=True)
class Measure:
    """A measurement of a team.

    - "debate": the game as it is.
    - "alone": every member answers once, unseen, by the policy of its last turn.
    - "self_refinement": one member at a time debates with itself (A = 1) over all turns.
    - "verdicts_shuffled": shown verdicts are dealt out at random among the messages of a turn.
    - "peers_shuffled": the peers' messages are taken from the debate of another question.
    - "best_of_n": N first answers, of which the verifier picks the best.
    - "self_consistency": a vote among N first answers, N such that the tokens equal a debate's.
    - "team": the game as it is, and every agent's answer is the one its protocol rewards: in a
      debate its own, else the joint answer, or that of the pipeline's last role.
    """

    kind: Kind = "debate"
    task: str | None = None
    """Questions of another task; None for those of the game."""
    agents: int | None = None
    """Number of agents, played by the members in rotation; None for the game's number."""
    turns: int | None = None
    """Number of turns; None for the game's number."""
    passes: int | None = None
    """With "team": the number of games per question, whose answers vote; None for one, no vote."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(
                f"unknown kind of measure {self.kind!r}; choose one of {', '.join(get_args(Kind))}"
            )
        if self.passes is not None and self.kind != "team":
            raise ValueError(f"passes of a measure vote with kind 'team', not {self.kind!r}")
        for name in ("agents", "turns", "passes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} of a measure must be at least 1, not {value}")

    @property
    def decodings(self) -> tuple[str, ...]:
        """Decodings to measure: "sampled", and "greedy" unless it needs samples that differ."""
        alike = self.kind in SAMPLED_ONLY or self.passes is not None
        return ("sampled",) if alike else ("sampled", "greedy")

    def game_of(self, game: GameConfig) -> GameConfig:
        """Return the game that is played for this measure, before the kind changes it."""
        return replace(
            game,
            task=self.task or game.task,
            num_agents=self.agents or game.num_agents,
            num_turns=self.turns or game.num_turns,
        )


class Cast(Team):
    """The models of a team as other agents; shares all weights with the team it is made from.

    Args:
        team: the members.
        members: `members[i]` is the member of the team that plays agent i.
        turn: the turn whose policies answer in all turns; None for each turn's own.
    """

    def __init__(self, team: Team, members: Sequence[int], *, turn: int | None = None) -> None:
        vars(self).update(vars(team))
        self.members = tuple(members)
        self.always = turn

    @property
    def speakers(self) -> int:
        """Number of agents of the cast."""
        return len(self.members)

    def policy(self, agent: int, turn: int) -> str:
        """Return the policy of the member that plays agent `agent`."""
        return super().policy(self.members[agent], turn if self.always is None else self.always)

    def partner_of(self, agent: int) -> Callable[[Sequence[str]], Sequence[str]] | None:
        """Return the partner of the member that plays agent `agent`."""
        return super().partner_of(self.members[agent])


def in_rotation(team: Team, num_agents: int, *, turn: int | None = None) -> Team:
    """Return a cast of `num_agents` agents: members 0, 1, ..., A - 1, 0, 1, ..."""
    return Cast(team, tuple(islice(cycle(range(team.num_agents)), num_agents)), turn=turn)


class ShuffledVerdicts:
    """A verifier whose scores are dealt out at random among the messages of a call.

    The number of messages with a good score stays; which messages have it is random.

    Args:
        scorer: gives the scores.
        seed: seed of the random stream that shuffles call after call.
    """

    def __init__(self, scorer: Scorer, seed: int) -> None:
        self._scorer = scorer
        self._rng = random.Random(seed)

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float | None]:
        """Return the scores of the call in a random order."""
        scores = self._scorer.score(questions, responses)
        self._rng.shuffle(scores)
        return scores


class SwappedPeers(BatchedDebate):
    """Debates in which each agent reads its own messages and the peers of the next question.

    The peers are those of the next debate of the batch, for the last debate those of the first;
    agent i there is read as agent i here. All debates must stand at the same turn, so `stop` must
    be "fixed".
    """

    def reset(
        self, questions: Sequence[Question] | None = None, *, seed: int | None = None
    ) -> None:
        """Start new debates; ValueError with fewer than two, which cannot be swapped."""
        super().reset(questions, seed=seed)
        if len(self.debates) < 2:
            raise ValueError("peers are swapped between questions: ask at least two at a time")

    def prompts(self) -> list[Prompt]:
        """Return the prompts of a turn, peers swapped."""
        transcripts = self.transcripts
        if len({transcript.turn for transcript in transcripts}) > 1:
            raise ValueError("peers are swapped turn by turn: play with stop='fixed'")
        return [self._swapped(prompt, transcripts) for prompt in super().prompts()]

    def _swapped(self, prompt: Prompt, transcripts: Sequence[Transcript]) -> Prompt:
        own, other = (transcripts[(prompt.debate + i) % len(transcripts)] for i in (0, 1))
        debate = self.debates[prompt.debate]
        view = debate.view_after(prompt.agent, with_peers_of(own, other, prompt.agent))
        return prompt._replace(view=view, text=render(view))


def with_peers_of(own: Transcript, other: Transcript, agent: str) -> Transcript:
    """Return a debate in which all messages but those of `agent` come from another one."""
    messages = tuple(
        mine if mine.agent == agent else theirs
        for mine, theirs in zip(own.messages, other.messages, strict=True)
    )
    return Transcript(own.question, own.agents, messages, own.ends)


def measure(
    what: Measure,
    team: Team,
    game: GameConfig,
    questions: Sequence[Question],
    sampling: Sampling,
    *,
    seed: int,
) -> dict[str, Evaluation]:
    """Carry out a measurement in each of its decodings.

    Args:
        what: kind and size of the measurement.
        team: the members.
        game: the game of the team; `what` may change its task, agents and turns.
        questions: the questions to ask.
        sampling: how messages are drawn.
        seed: names the noise.

    Raises:
        ValueError: the game cannot be measured that way, e.g. it shows no verdicts to shuffle.
    """
    asked = team, what.game_of(game), questions
    rules = {"sampled": sampling, "greedy": sampling.greedy()}
    return {decoding: _measure(what, asked, rules[decoding], seed) for decoding in what.decodings}


def _measure(
    what: Measure,
    asked: tuple[Team, GameConfig, Sequence[Question]],
    sampling: Sampling,
    seed: int,
) -> Evaluation:
    """Carry out a measurement in one decoding."""
    team, game, questions = asked
    players = in_rotation(team, game.num_agents)
    debates = debates_of(game, min(EVAL_BATCH, len(questions)))
    match what.kind:
        case "debate":
            return evaluate(players, debates, questions, sampling, seed=seed)
        case "team" if what.passes is not None:
            return vote_of_passes(
                players, debates, questions, sampling, passes=what.passes, seed=seed
            )
        case "team":
            return as_one(
                debates.game.protocol, evaluate(players, debates, questions, sampling, seed=seed)
            )
        case "alone":
            players = in_rotation(team, game.num_agents, turn=team.num_turns - 1)
            once = debates_of(replace(game, num_turns=1), debates.batch_size)
            return evaluate(players, once, questions, sampling, seed=seed)
        case "self_refinement":
            return self_refinement(team, game, questions, sampling, seed=seed)
        case "verdicts_shuffled":
            return evaluate(
                players, with_shuffled_verdicts(debates, seed), questions, sampling, seed=seed
            )
        case "peers_shuffled":
            swapped = SwappedPeers(debates.game, size_without_single(len(questions), EVAL_BATCH))
            return evaluate(players, swapped, questions, sampling, seed=seed)
        case "best_of_n":
            number = game.num_agents * game.num_turns
            drawn = independent(team, game, number, questions, sampling, seed=seed)
            return replace(drawn, turns=(best_of(drawn.transcripts),))
        case "self_consistency":
            number = samples_for_tokens(team, game, questions, sampling, seed=seed)
            return independent(team, game, number, questions, sampling, seed=seed)


def size_without_single(number: int, limit: int) -> int:
    """Return the largest batch size up to `limit` that leaves no single question to the last.

    All questions at once where there is none: an odd number of them and a limit of two or three.
    """
    sizes = (size for size in range(min(limit, number), 1, -1) if number % size != 1)
    return next(sizes, number)


def with_shuffled_verdicts(debates: BatchedDebate, seed: int) -> BatchedDebate:
    """Return the debates with shuffled verdicts; ValueError if the game shows none."""
    if not debates.game.config.reward_feedback:
        raise ValueError("no verdicts to shuffle: this game shows none (reward_feedback is off)")
    game = debates.game
    shown = game.scorer if game.feedback is None else game.feedback
    shuffled = Scorer(ShuffledVerdicts(shown, seed_of(seed, "shuffled verdicts")))
    return BatchedDebate(replace(game, feedback=shuffled), debates.batch_size)


def self_refinement(
    team: Team, game: GameConfig, questions: Sequence[Question], sampling: Sampling, *, seed: int
) -> Evaluation:
    """Measure each member in debates with itself, on its share of the questions."""
    parts = [
        evaluate(
            Cast(team, (member,)),
            *_told_as(game, (member,), part),
            sampling,
            seed=seed_of(seed, "self", member),
        )
        for member in range(team.num_agents)
        if (part := questions[member :: team.num_agents])
    ]
    transcripts = tuple(transcript for part in parts for transcript in part.transcripts)
    return Evaluation(
        turns=turn_stats(transcripts),
        num_questions=len(questions),
        num_tokens=sum(part.num_tokens for part in parts),
        transcripts=transcripts,
    )


def independent(
    team: Team,
    game: GameConfig,
    number: int,
    questions: Sequence[Question],
    sampling: Sampling,
    *,
    seed: int,
) -> Evaluation:
    """Sample `number` first answers per question in one turn, members in rotation."""
    members = [agent % team.num_agents for agent in range(number)]
    debates, asked = _told_as(replace(game, num_turns=1), members, questions)
    return evaluate(in_rotation(team, number), debates, asked, sampling, seed=seed)


def _told_as(
    game: GameConfig, members: Sequence[int], questions: Sequence[Question]
) -> tuple[BatchedDebate, list[Question]]:
    """Return debates and questions in which the i-th agent is told what member `members[i]` is."""
    asked = [question.dealt_to(members) for question in questions]
    task = load_task(game.task, game.data or None)
    splits = {"asked": asked}
    if game.shots:  # examples are told to the same members
        splits["train"] = [one.dealt_to(members) for one in task.split("train")]
    task = replace(task, splits=splits)
    loaded = make_game(replace(game, num_agents=len(members)), task)
    return loaded.debates(min(EVAL_BATCH, len(asked))), asked


def samples_for_tokens(
    team: Team, game: GameConfig, questions: Sequence[Question], sampling: Sampling, *, seed: int
) -> int:
    """Return the number of first answers that take as many tokens as a debate, at least 1."""
    pilot = questions[:PILOT_QUESTIONS]
    players = in_rotation(team, game.num_agents)
    debate = evaluate(players, debates_of(game, len(pilot)), pilot, sampling, seed=seed)
    firsts = independent(team, game, game.num_agents, pilot, sampling, seed=seed)
    return max(1, round(debate.num_tokens / (firsts.num_tokens / game.num_agents)))


def best_of(transcripts: Sequence[Transcript]) -> TurnStats:
    """Return the accuracy of the first answer with the best verdict; ties count in equal parts.

    The verdicts are those that a debate would show. Both entries, `vote` and the only `accuracy`,
    are the expected accuracy of that choice. A question without any verdict counts as wrong.
    """
    picked = [_expected_of_best(transcript) for transcript in transcripts]
    mean = sum(picked) / len(picked)
    variance = sum((x - mean) ** 2 for x in picked) / max(len(picked) - 1, 1)
    [spread] = turn_stats(transcripts)
    return replace(
        spread,
        accuracy=(mean,),
        vote=mean,
        vote_interval=1.96 * (variance / len(picked)) ** 0.5,
    )


def _expected_of_best(transcript: Transcript) -> float:
    question = transcript.question
    scored = [(m.feedback, m) for m in transcript.of_turn(0) if m.feedback is not None]
    if not scored:
        return 0.0
    top = max(score for score, _ in scored)
    best = [right(message, question) for score, message in scored if score == top]
    return sum(best) / len(best)
