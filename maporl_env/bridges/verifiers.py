"""The debate as a multi-agent environment of verifiers 0.4: agents are roles, messages traces.

    pip install 'maporl[verifiers]' ./environments/maporl_debate
    vf-eval maporl-debate -n 20 --model my-model --client.base-url http://127.0.0.1:8000/v1

`environments/maporl_debate` is the package that verifiers finds by the name `maporl-debate`; it
only exports the three classes below. Roles are `agent_0` to `agent_7`, of which the first
`num_agents` play. Each may have a model, a client and sampling settings of its own
(`--env.agent-1.model`).

A message is one run of its agent: the prompt is what the agent reads, as chat messages, exactly as
`maporl train` shows it, and the trace's reward is the message's reward (`rewards.influence_rewards`
and what else the options say). So a trainer gives each message the credit that MAPoRL gives it.
A message without a reward (its verifier failed, or the protocol pays nothing for it) is marked
untrainable. A failed model call fails the episode, which can be retried; it is never a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from maporl_env.answers import gold
from maporl_env.config import DebateConfig
from maporl_env.debate import Debate
from maporl_env.missing_extra import missing_extra
from maporl_env.prompts import chat
from maporl_env.tasks import load_task
from maporl_env.types import AgentID, Question
from maporl_env.user_functions import object_named
from maporl_env.voting import expected_accuracy

try:
    import verifiers.v1 as vf
    from openai import AsyncOpenAI
    from verifiers.v1.dialects.chat import message_to_wire
except ImportError as error:
    what = "the debate as an environment of verifiers (0.4, with Python 3.11 or later)"
    raise ImportError(missing_extra(what, "verifiers", "verifiers")) from error
from pydantic import Field, SerializeAsAny

MAX_AGENTS = 8
"""Roles of an environment; verifiers wants each declared by name."""

__all__ = ["DebateEnv", "DebateHarness", "DebateTaskset"]


class DebateData(vf.TaskData):
    """One question, as `types.Question.to_dict` writes it; its text alone is the prompt."""

    question: dict[str, Any]


class DebateTask(vf.Task[DebateData]):
    """A question to debate. Rewards come from the debate, not from the task."""


class DebateTasksetConfig(vf.TasksetConfig):
    """Which questions are debated."""

    questions: str = "shopping"
    """A task by its name, a JSONL file, or module:name; see `tasks.load_task`."""
    data: str | None = None
    """The file or folder of a task that needs one."""
    split: str | None = None
    """train, validation or test; the task's own default if left out."""


class DebateTaskset(vf.Taskset[DebateTask, DebateTasksetConfig]):
    """The questions of a task."""

    def load(self) -> Iterable[DebateTask]:
        """Yield the questions of the split, in its order."""
        task = load_task(self.config.questions, self.config.data)
        for question in task.split(self.config.split or task.default_split):
            data = DebateData(
                id=question.id, prompt=question.prompt, question=dict(question.to_dict())
            )
            yield DebateTask(data, self.config.task)


class DebateHarnessConfig(vf.HarnessConfig):
    """The program of a role: one request for one message."""

    id: str = "maporl-debate"


class DebateHarness(vf.Harness[DebateHarnessConfig]):
    """Ask the model once, in this process; nothing is installed and no code is run."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        """Send the prompt to the model; sampling settings are verifiers' to add."""
        system, prompt = self.resolve_prompt(data)
        if isinstance(prompt, str):
            prompt = [vf.UserMessage(content=prompt)]
        messages = [message_to_wire(message) for message in prompt or ()]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        async with AsyncOpenAI(base_url=endpoint, api_key=secret) as client:
            await client.chat.completions.create(model=ctx.model, messages=messages)
        return vf.ProgramResult(exit_code=0, stdout="", stderr="")


def _role() -> Any:
    """Return the default of a role: on this machine, without a sandbox."""
    return vf.AgentConfig(runtime=vf.SubprocessConfig())


class DebateEnvConfig(vf.EnvConfig):
    """A debate: its questions, its agents and its rules."""

    taskset: SerializeAsAny[vf.TasksetConfig] = DebateTasksetConfig()
    num_agents: int = 2
    """A, from 1 to 8: the roles agent_0 to agent_{A-1} play."""
    num_turns: int = 2
    """T >= 1."""
    protocol: str = "debate"
    """A name of `protocols.PROTOCOLS`, or module:name."""
    verifier: str | None = None
    """module:name or file.py:name of a verifier; the task's own if left out."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further options of `config.DebateConfig`, such as gamma or alpha."""
    agent_0: vf.AgentConfig = _role()
    agent_1: vf.AgentConfig = _role()
    agent_2: vf.AgentConfig = _role()
    agent_3: vf.AgentConfig = _role()
    agent_4: vf.AgentConfig = _role()
    agent_5: vf.AgentConfig = _role()
    agent_6: vf.AgentConfig = _role()
    agent_7: vf.AgentConfig = _role()


class DebateEnv(vf.Env[DebateEnvConfig]):
    """One debate per episode, one trace per message.

    All episodes share the task and the verifier, which must be safe to call from several threads.

    Raises:
        ValueError: options that make no debate, or more agents than there are roles.
    """

    def __init__(self, config: DebateEnvConfig) -> None:
        super().__init__(config)
        if not 1 <= config.num_agents <= MAX_AGENTS:
            raise ValueError(f"num_agents must be from 1 to {MAX_AGENTS}, not {config.num_agents}")
        self.game = DebateConfig.of(**_options(config)).load()

    async def run(self, task: DebateTask, agents: vf.Agents) -> None:
        """Play the debate of one question and reward its messages."""
        debate = self.game.debate()
        debate.reset(Question.from_dict(task.data.question))
        said: list[tuple[int, AgentID, vf.Trace]] = []
        while not debate.over:
            if debate.awaits_scores:
                await asyncio.to_thread(self._score, debate)
                continue
            turn, speakers = debate.played, debate.speakers
            async with asyncio.TaskGroup() as together:
                asked = {
                    agent: together.create_task(self._ask(agents, agent, debate, task))
                    for agent in speakers
                }
            for agent in speakers:
                trace = asked[agent].result()
                debate.post(agent, _text_of(trace))
                said.append((turn, agent, trace))
        self._record(debate, said)

    async def _ask(
        self, agents: vf.Agents, agent: AgentID, debate: Debate, task: DebateTask
    ) -> vf.Trace:
        """Return the trace of one message; RuntimeError where there is none."""
        prompt = chat(debate.view(agent))
        data = vf.TaskData(idx=task.data.idx, id=task.data.id, prompt=prompt)
        trace = await getattr(agents, agent).run(vf.Task(data))
        if not trace.ok:
            why = trace.last_error.message if trace.last_error else trace.stop_condition
            raise RuntimeError(f"no message of {agent} in turn {debate.played}: {why}")
        return trace

    def _score(self, debate: Debate) -> None:
        """Score the complete turn."""
        responses = debate.due()
        questions = [debate.question] * len(responses)
        debate.settle(*(self.game.score(questions, responses) if responses else ([], None)))

    def _record(self, debate: Debate, said: Iterable[tuple[int, AgentID, vf.Trace]]) -> None:
        """Write each message's reward, and what is measured, on its trace."""
        rewards, scored = debate.rewards(), debate.scored()
        scores = {(m.turn, m.agent): m.score for m in debate.transcript.messages}
        asked = debate.question
        vote = expected_accuracy(debate.outcome(), gold(asked.answer, asked.kind))
        for turn, agent, trace in said:
            seat = debate.seats[agent]
            trace.agent.trainable = bool(scored[turn, seat])
            trace.record_reward("message", float(rewards[turn, seat]))
            trace.record_metric("turn", turn)
            if (score := scores.get((turn, agent))) is not None:
                trace.record_metric("verifier_score", score)
            trace.record_metric("vote", vote)


def _options(config: DebateEnvConfig) -> Mapping[str, Any]:
    """Return the options of a debate.

    Raises:
        ValueError: an option that the config has a name of its own for.
    """
    rows = config.taskset
    if not isinstance(rows, DebateTasksetConfig):
        raise ValueError(f"the debate takes its own taskset, not {rows.id!r}: set no --env.id")
    named = {
        "task": rows.questions,
        "data": rows.data,
        "split": rows.split,
        "num_agents": config.num_agents,
        "num_turns": config.num_turns,
        "protocol": config.protocol,
        "verifier": None if config.verifier is None else object_named(config.verifier),
    }
    if twice := sorted(named.keys() & config.options.keys()):
        raise ValueError(f"options has {', '.join(twice)}: set it beside options")
    return {**named, **config.options}


def _text_of(trace: vf.Trace) -> str:
    """Return the text of the message as it was sampled, spaces included."""
    return trace.assistant_messages[-1].content or ""
