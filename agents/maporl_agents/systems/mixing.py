"""Systems of the bench whose members mix their distributions while they write."""

from __future__ import annotations

from collections.abc import Sequence

from maporl_agents.config import Sampling
from maporl_agents.mixtures.collab import Collab, Proposal, Rollouts
from maporl_agents.mixtures.product_of_experts import ProductOfExperts
from maporl_agents.models.team import Team
from maporl_agents.play.speak import Engine
from maporl_agents.systems.playing import BATCH, MEMBERS, Cast, TeamCast
from maporl_agents.systems.tasks import scores_by
from maporl_agents.types import Request
from maporl_env.types import Question


def experts(team: Team) -> tuple[str, ...]:
    """Return the policies of the members of an untrained team."""
    return tuple(team.policy(agent, 0) for agent in range(MEMBERS))


def team_of(cast: Cast) -> Team:
    """Return the team of a cast; TypeError for an endpoint, which `System.refusal` keeps away."""
    if not isinstance(cast, TeamCast):
        raise TypeError("this system needs the models themselves")
    return cast.team


def product(cast: Cast, questions: Sequence[Question]) -> Engine:
    """Return the product of the members as an engine."""
    return ProductOfExperts(experts(team_of(cast)))


class CountedCollab:
    """Collab whose rollouts the verifier of the task scores; counts their tokens at most.

    Args:
        cast: the members.
        questions: of the debates that are played.

    Attributes:
        tokens: of rollouts so far.
    """

    def __init__(self, cast: Cast, questions: Sequence[Question]) -> None:
        self.tokens = 0
        self._questions = questions
        self._verifier = cast.task.scorer()
        self._engine = Collab(experts(team_of(cast)), self._value, proposals=2)

    def __call__(self, team: Team, asked: Sequence[Request], sampling: Sampling, seed: int):  # type: ignore[no-untyped-def]
        """Return one completion per request."""
        return self._engine(team, asked, sampling, seed)

    def _value(
        self, team: Team, proposed: Sequence[Proposal], sampling: Sampling, seed: int
    ) -> list[float]:
        self.tokens += sum(max(0, sampling.max_new_tokens - len(one.ids)) for one in proposed)
        greedy = sampling.greedy()
        return Rollouts(self._scores)(team, proposed, greedy, seed)

    def _scores(self, asked: Sequence[Request], texts: Sequence[str]) -> list[float | None]:
        assert self._verifier is not None  # which `System.refusal` requires
        about = [self._questions[request.debate % BATCH] for request in asked]
        return scores_by(self._verifier, about, texts)
