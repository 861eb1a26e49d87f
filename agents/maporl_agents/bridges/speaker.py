r"""A local model or trained run as a function `prompts -> texts`, e.g. as partner of a learner.

batch = play([Person(), [r"\boxed{7}"], load_speaker("tiny")], num_turns=2)
env = gymnasium.make("maporl/Debate-v0", num_agents=2, partners=load_speaker("runs/maporl"))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from maporl_agents.bridges.bench_players import is_run, model_sampling, require_model
from maporl_agents.config import Sampling, TeamConfig
from maporl_agents.models.caches.kept_caches import KeptCaches
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.play.speak import requests, speak
from maporl_agents.seeding import seed_of
from maporl_agents.training.experiment import load_team
from maporl_agents.types import TokenIds
from maporl_env.batched import Prompt
from maporl_env.types import View

REMEMBERED = 4096
"""Conversations that a speaker can go on with."""


class _Talk(NamedTuple):
    """A conversation: its texts, and the token ids of the agent's own messages."""

    view: View
    own: tuple[TokenIds, ...]


class LocalSpeaker:
    """One agent of a team as a function of prompts.

    A prompt that goes on from an earlier one and the message to it, as those of debates do, is read
    as that conversation, the message as the ids that were sampled, and answered by the policy of
    its turn; any other as one user's message, the first of a debate.

    Args:
        team: holds the policy.
        sampling: how messages are sampled.
        seat: index of the agent.
        seed: names the sampling noise.

    Raises:
        ValueError: the team has no such agent.
    """

    def __init__(self, team: Team, sampling: Sampling, *, seat: int, seed: int) -> None:
        self.team, self.sampling, self.seat, self.seed = team, sampling, seat, seed
        team.base_of(team.policy(seat, 0))
        self._calls = 0
        self._talks: dict[str, _Talk] = {}
        self._kept = KeptCaches(team.bases, sampling.cache_gb)

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """Return one message per prompt.

        Raises:
            ValueError: a prompt that is empty, or too long for the model's window.
        """
        talks = [self._talk(prompt) for prompt in prompts]
        read = [
            Prompt(place, f"agent_{self.seat}", self.seat, len(talk.own), talk.view, prompt)
            for place, (prompt, talk) in enumerate(zip(prompts, talks, strict=True))
        ]
        asked = requests(self.team, read, [talk.own for talk in talks])
        stream = seed_of(self.seed, "speaker", self._calls)
        said = speak(self.team, asked, self.sampling, stream, kept=self._kept)
        self._calls += 1
        for prompt, talk, one in zip(prompts, talks, said, strict=True):
            view: View = (*talk.view, ("own", one.text))
            self._talks[prompt + one.text] = _Talk(view, (*talk.own, one.ids))
        for old in list(self._talks)[:-REMEMBERED]:
            del self._talks[old]
        return [one.text for one in said]

    def _talk(self, prompt: str) -> _Talk:
        """Return a prompt as a conversation, as far as it goes on from one that is remembered."""
        known = (text for text in self._talks if prompt.startswith(text) and text != prompt)
        before = max(known, key=len, default="")
        talk = self._talks.get(before, _Talk((), ()))
        return _Talk((*talk.view, ("user", prompt[len(before) :])), talk.own)


def load_speaker(
    name: str,
    *,
    seat: int = 0,
    temperature: float | None = None,
    max_new_tokens: int = 0,
    seed: int = 0,
) -> LocalSpeaker:
    """Return a trained run or a model as a function `prompts -> texts`.

    Args:
        name: the folder of a run, a built-in model, or the folder or hub name of one.
        seat: index of the agent of a run; for "tiny", the half of the prices it knows.
        temperature: None takes a run's own, else 1. 0 is greedy.
        max_new_tokens: for each message; 0 takes a run's own, else 32 for built-in models and 300
            for others.
        seed: names the sampling noise: the same calls in the same order give the same texts.

    Raises:
        ValueError: there is nothing of that name, or no such agent.
    """
    if seat < 0:
        raise ValueError(f"seat counts from 0, it cannot be {seat}")
    if is_run(Path(name)):
        config, team = load_team(Path(name))
        sampling = config.sampling
    else:
        require_model(name)
        only = TeamConfig(model=(name,), tuning="none")
        team = make_team(only, num_agents=seat + 1, num_turns=1, seed=0)
        sampling = model_sampling(name)
    if temperature is not None:
        sampling = replace(sampling, temperature=temperature)
    if max_new_tokens:
        sampling = sampling.limited_to(max_new_tokens)
    return LocalSpeaker(team, sampling, seat=seat, seed=seed)
