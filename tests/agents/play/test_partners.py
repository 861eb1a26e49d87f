"""Partners: agents of a run that are scripts, endpoints or functions, never models."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from miniatures import load_team, stir
from refusals import refused
from rich.console import Console
from small_runs import SMALL

from maporl_agents.config import Sampling, SelfPlayConfig, TeamConfig, TrainConfig
from maporl_agents.models.team import Team
from maporl_agents.play.partners import answered, partners_of, require_untrained
from maporl_agents.play.rollout import play
from maporl_agents.play.speak import requests
from maporl_agents.records import checkpoint_folder
from maporl_agents.studies.controls import Cast
from maporl_agents.training import experiment
from maporl_agents.training.resume import resume
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.services.http_json import RemoteUnavailable
from maporl_env.tasks import load_task
from maporl_env.types import Question

QUESTIONS = [Question(f"q/{n}", "how much ?", str(n)) for n in range(3)]
SAMPLING = Sampling(max_new_tokens=4)


@pytest.fixture
def team(checkpoint: Any) -> Team:
    team = load_team(checkpoint("llama"), num_agents=2, num_turns=3, train_agents=(0,))
    stir(team)
    return team


def debates(**options: Any) -> BatchedDebate:
    given: dict[str, Any] = {"task": QUESTIONS, "num_agents": 2, "num_turns": 3}
    return BatchedDebate(DebateConfig(**given | options), 3)


def test_a_partner_reads_its_agents_view_and_its_texts_are_the_messages(team: Team) -> None:
    calls: list[list[str]] = []

    def speak(views: Sequence[str]) -> list[str]:
        calls.append(list(views))
        return [f"call {len(calls)}: no words of the model {n}" for n in range(len(views))]

    alone = play(team, debates(), QUESTIONS, SAMPLING, seed=1)
    team.partners = {1: speak}
    rollouts = play(team, debates(), QUESTIONS, SAMPLING, seed=1)
    assert [len(call) for call in calls] == [3, 3, 3]
    for place, rollout in enumerate(rollouts):
        said = [m.text for m in rollout.transcript.messages if m.agent == "agent_1"]
        assert said == [f"call {turn}: no words of the model {place}" for turn in (1, 2, 3)]
        assert said[0] in calls[1][place]  # it reads itself
        assert rollout.transcript.messages[0].text in calls[1][place]
        # What the model says before it has read the partner is as without it.
        assert rollout.completions[0].ids == alone[place].completions[0].ids
    assert not any("call" in view for view in calls[0])


def test_a_partner_of_several_agents_gets_one_call(team: Team) -> None:
    calls: list[int] = []

    def speak(views: Sequence[str]) -> list[str]:
        calls.append(len(views))
        return ["x"] * len(views)

    team.partners = dict.fromkeys((0, 1), speak)
    play(team, debates(num_turns=1), QUESTIONS, SAMPLING, seed=1)
    assert calls == [6]


def test_a_cast_asks_the_partner_of_the_member(team: Team) -> None:
    team.partners = {1: lambda views: ["x"] * len(views)}
    swapped = Cast(team, (1, 0))
    assert swapped.partner_of(0) is team.partners[1]
    assert swapped.partner_of(1) is None


def test_what_is_no_list_of_texts_is_refused(team: Team) -> None:
    game = debates(num_turns=1)
    game.reset(QUESTIONS)
    for wrong in (["only one"], "a text", [1, 2, 3], None):
        team.partners = {1: lambda views, given=wrong: given}  # type: ignore[misc]
        asked = requests(team, game.prompts(), [()] * 6)
        with pytest.raises(ValueError, match="the partner of agent 1"):
            answered(team, asked)


def test_the_scripted_user_plays_in_a_team(team: Team) -> None:
    task = load_task("bills")
    asked = list(task.split("test")[:3])
    team.partners = partners_of(["1=bills"], 2)
    rollouts = play(team, debates(task=task, protocol="dialogue"), asked, SAMPLING, seed=1)
    for question, rollout in zip(asked, rollouts, strict=True):
        said = [m.text for m in rollout.transcript.messages if m.agent == "agent_1"]
        assert said == [question.hidden] * 2  # a random model has no line of the bill


# --- In a run ------------------------------------------------------------------------------

FAILING = """
import pathlib
from maporl_env.services.http_json import RemoteUnavailable

HERE = pathlib.Path(__file__).parent

def speak(views):
    failed = HERE / "failed"
    if not failed.exists() and any((HERE / "run" / "checkpoints").glob("*")):
        failed.touch()
        raise RemoteUnavailable("http://127.0.0.1:9/v1 does not answer")
    return ["so four"] * len(views)
"""


@pytest.mark.thorough
def test_a_partner_that_fails_is_a_fault_and_the_run_goes_on_from_its_checkpoint(
    tmp_path: Path,
) -> None:
    """No message stands in for the one that did not come; steps that were done are kept."""
    file = tmp_path / "partner.py"
    file.write_text(FAILING, encoding="utf-8")
    team = TeamConfig(partners=(f"1={file}:speak",), train_agents=(0,))
    config = replace(SMALL, team=team, eval=replace(SMALL.eval, use="last", greedy=False))
    console = Console(file=io.StringIO())
    with pytest.raises(RemoteUnavailable, match="does not answer"):
        experiment.run(config, tmp_path / "run", console)
    step = checkpoint_folder.latest(tmp_path / "run" / "checkpoints")
    assert step is not None
    resume(tmp_path / "run", console)
    assert (tmp_path / "run" / "results.json").exists()


# --- Bad input -----------------------------------------------------------------------------


@refused(
    (("bills",), "partners are written AGENT=NAME, such as 1=bills, not 'bills'"),
    (("x=bills",), "partners are written AGENT=NAME"),
    (("-1=bills",), "partners are written AGENT=NAME"),
    (("1=",), "partners are written AGENT=NAME"),
    (("1=bills", "1=backend"), "partners names agent 1 twice"),
)
def test_how_partners_are_written(given: tuple[str, ...]) -> None:
    TeamConfig(partners=given)


@refused(
    ("2=bills", "names agent 2, and there are 2, counted from 0"),
    ("1=bill", "unknown partner 'bill': choose one of bills, prices, backend"),
    ("1=endpoint:http://127.0.0.1:9/v1", "is written endpoint:http://host:port/v1,model=NAME"),
    ("1=no_such_module_here:speak", "no_such_module_here"),
)
def test_partners_that_there_are_not(name: str) -> None:
    partners_of([name], 2)


def test_an_endpoint_that_is_not_there_raises(team: Team) -> None:
    made = partners_of(["1=endpoint:http://127.0.0.1:9/v1,model=nobody"], 2)
    endpoint: Any = made[1]
    endpoint.service.retries = 0
    team.partners = made
    with pytest.raises(RemoteUnavailable, match=r"127\.0\.0\.1:9"):
        play(team, debates(num_turns=1), QUESTIONS, SAMPLING, seed=1)


def test_a_partner_is_not_trained() -> None:
    words = r"agent 1 is played by bills \(team.partners\) and cannot be trained: set --team.train"
    with pytest.raises(ValueError, match=words):
        require_untrained(TeamConfig(partners=("1=bills",)), 2)
    require_untrained(TeamConfig(partners=("1=bills",), train_agents=(0,)), 2)
    with pytest.raises(ValueError, match="agent 1 is played by bills"):
        experiment.build(TrainConfig(team=TeamConfig(partners=("1=bills",))))


def test_where_partners_have_nothing_to_say() -> None:
    build: Callable[..., Any] = experiment.build
    team = TeamConfig(partners=("1=bills",), train_agents=(0,))
    with pytest.raises(ValueError, match=r"team\.partners"):
        build(TrainConfig(team=team, self_play=SelfPlayConfig(game="takeaway")))
