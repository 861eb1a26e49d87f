"""What a central critic reads before a message: the joint history of a debate, as token ids.

No agent reads this text. It holds what every agent was told (private texts too) and every message
that was written before, in order, so that the value of a state is one number for the whole team
(MAPPO, Yu et al., arXiv 2103.01955; MAAC). What agents write at the same time as the message is no
part of it: a baseline may not depend on the action.
"""

from __future__ import annotations

from dataclasses import replace

from maporl_agents.models.bases import window_of
from maporl_agents.models.team import Team
from maporl_agents.text.hidden_reference import with_reference
from maporl_agents.types import Rollout, TokenBatch, TokenIds


def joint_histories(team: Team, rollout: Rollout) -> list[TokenIds]:
    """Return the joint history before each message; empty ones for a team without central critic.

    It consists of the first prompts of the agents that have spoken or speak now, equal ones once,
    and the messages of earlier rounds; before them, for a privileged critic, of the question's
    hidden reference. Where that and the message exceed the model's window, the
    oldest messages are left out.

    Raises:
        ValueError: the rollout does not say which messages were written at the same time.
    """
    if not team.central:
        return [()] * len(rollout.prompts)
    if len(rollout.rounds) != len(rollout.prompts):
        raise ValueError(
            "a central critic needs the round of each message (Rollout.rounds): play the debates "
            "with play.rollout.play"
        )
    window = window_of(team.bases[0].model)
    chat = team.bases[0].chat
    reference = rollout.transcript.question.hidden if team.privileged else ""
    if window is not None:
        window -= len(with_reference(chat, (), reference))
    return [
        with_reference(chat, _before(rollout, place, window), reference)
        for place in range(len(rollout.prompts))
    ]


def _before(rollout: Rollout, place: int, window: int | None) -> TokenIds:
    now = rollout.rounds[place]
    firsts: dict[str, TokenIds] = {}  # by agent: its first prompt
    earlier: list[TokenIds] = []
    for (message, prompt, completion, _), when in zip(
        rollout.spoken(), rollout.rounds, strict=True
    ):
        if when <= now:
            firsts.setdefault(message.agent, prompt)
        if when < now:
            earlier.append(completion.ids)
    told = [*dict.fromkeys(firsts.values())]
    if window is not None:
        room = window - len(rollout.completions[place].ids) - sum(map(len, told))
        while earlier and sum(map(len, earlier)) > room:
            earlier.pop(0)
    return tuple(token for part in (*told, *earlier) for token in part)


def central(batch: TokenBatch) -> TokenBatch:
    """Return the batch as the central critic reads it: every message behind its joint history."""
    if batch.joint_histories is None:
        raise ValueError("a central critic needs the joint histories of a batch")
    return replace(
        batch,
        prompts=batch.joint_histories,
        joint_histories=None,
        prompt_ids=None,  # type: ignore[arg-type]  # made anew
        ranks=None,  # type: ignore[arg-type]
    )
