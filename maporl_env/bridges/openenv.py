"""The debate as an OpenEnv server: one learner among given partners, over HTTP and WebSocket.

    app = make_app(task="gsm8k", num_agents=2, partners=Endpoint("http://...", "my-model"))
    # uvicorn my_server:app --port 8000

    from openenv.core.generic_client import GenericEnvClient
    client = GenericEnvClient(base_url="http://127.0.0.1:8000").sync()
    result = client.reset(seed=0)
    result = client.step({"message": "I say 12."})          # result.reward, result.done

Needs the extra "openenv". TRL, AgileRL and verifiers take environments of this form. One step is
one message of the learner; each session has a debate of its own, and all share task, verifier and
partners, which must therefore be safe to call from several threads.
"""

from __future__ import annotations

import threading
from typing import Any

from maporl_env.bridges.single_agent import Partners, SingleAgentDebate
from maporl_env.missing_extra import missing_extra

try:
    from openenv.core.env_server.http_server import create_fastapi_app
    from openenv.core.env_server.interfaces import Environment
    from openenv.core.env_server.types import Action, Observation, State
except ImportError as error:
    raise ImportError(
        missing_extra("the debate as an OpenEnv server", "openenv", "openenv")
    ) from error
from pydantic import Field

MAX_SESSIONS = 64


class DebateAction(Action):
    """One message of the learner."""

    message: str = Field(description="The message; its last \\boxed{...} is the answer")


class DebateObservation(Observation):
    """What the learner reads before its next message, with the reward of the last one."""

    prompt: str = Field(description="The question and all messages that the learner may read")
    turn: int = Field(default=0, description="Complete turns of the debate")


class DebateState(State):
    """The debate so far: id of the question and the messages, without its gold answer."""

    question_id: str = ""
    messages: list[dict[str, Any]] = Field(default_factory=list)


class OpenEnvDebate(Environment[DebateAction, DebateObservation, DebateState]):
    """A debate that is stepped by its learner's messages.

    Args:
        partners: the other agents; see `single_agent.SingleAgentDebate`.
        learner: the agent index of the learner.
        **options: of `config.DebateConfig`.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, partners: Partners | None = None, learner: int = 0, **options: Any) -> None:
        super().__init__()
        self.env = SingleAgentDebate(partners, learner, **options)
        self._episode: str | None = None
        self._steps = 0
        self._lock = threading.Lock()

    def reset(
        self, seed: int | None = None, episode_id: str | None = None, **options: Any
    ) -> DebateObservation:
        """Start a debate; further options as `debate_v0.reset` takes them (`index`, `split`)."""
        with self._lock:
            prompt, info = self.env.reset(seed=seed, options=options)
            self._episode, self._steps = episode_id, 0
        return DebateObservation(prompt=str(prompt), turn=int(info["turn"]))

    def step(
        self, action: DebateAction, timeout_s: float | None = None, **options: Any
    ) -> DebateObservation:
        """Let the learner speak, then play up to its next message or the end."""
        with self._lock:
            prompt, reward, terminated, truncated, info = self.env.step(action.message)
            self._steps += 1
        return DebateObservation(
            prompt=str(prompt),
            turn=int(info["turn"]),
            reward=float(reward),
            done=bool(terminated or truncated),
        )

    @property
    def state(self) -> DebateState:
        """The messages so far."""
        debate = self.env.core.debate
        if not debate.started:
            return DebateState(episode_id=self._episode, step_count=self._steps)
        transcript = debate.transcript
        return DebateState(
            episode_id=self._episode,
            step_count=self._steps,
            question_id=transcript.question.id,
            messages=[
                {"turn": m.turn, "agent": m.agent, "text": m.text, "score": m.score}
                for m in transcript.messages
            ],
        )


def make_app(
    partners: Partners | None = None,
    learner: int = 0,
    *,
    max_sessions: int = MAX_SESSIONS,
    **options: Any,
) -> Any:
    """Return the FastAPI application of a server; settings are checked now.

    Args:
        partners: as for `OpenEnvDebate`.
        learner: likewise.
        max_sessions: sessions at the same time.
        **options: of `config.DebateConfig`.

    Raises:
        ValueError: options that make no debate.
    """
    OpenEnvDebate(partners, learner, **options)
    return create_fastapi_app(
        lambda: OpenEnvDebate(partners, learner, **options),
        DebateAction,
        DebateObservation,
        max_concurrent_envs=max_sessions,
        env_name="maporl-debate",
        state_cls=DebateState,
    )
