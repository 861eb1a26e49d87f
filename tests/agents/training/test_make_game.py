"""From the settings of a run to its debate."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from miniatures import load_team

from maporl_agents.algorithms.maporl import train_step
from maporl_agents.config import GameConfig, PPOConfig, Sampling, TrainConfig, from_dict
from maporl_agents.training import experiment
from maporl_agents.training.make_game import debate_config, debates_of, make_verifier, questions_of
from maporl_agents.update.optimiser import PPOLearner
from maporl_env.batched import DebateConfig
from maporl_env.penalties import Penalties
from maporl_env.prompts import Template
from maporl_env.types import Question
from maporl_env.verifiers import MathVerifier, NoisyKey, NumericTolerance

GAME = GameConfig(num_turns=2)
TEXTS = [["Agent text", "x"], ["\\boxed{1}", "\\boxed{2}"]]


def rewards_of(game: GameConfig) -> list[list[float]]:
    """Rewards of one fixed debate."""
    debates = debates_of(game, 1)
    debates.reset(questions=questions_of(game, "train")[:1])
    for turn in TEXTS:
        debates.step(turn)
    return [list(map(float, row)) for row in debates.turn_rewards()[0]]


OF_TOOLS = {"tool_calls", "tool_chars", "tool_seconds", "tool_results"}
"""Settings that stand together in the environment's `tools`."""


def test_limits_of_tools_pass_through() -> None:
    limits = {"tool_calls": 2, "tool_chars": 90, "tool_seconds": 1.5, "tool_results": "hidden"}
    tools = debate_config(GameConfig(tools=("python",), **limits)).tools  # type: ignore[arg-type]
    assert tools is not None
    [python] = tools.tools
    assert (tools.calls, tools.chars, python.seconds, tools.shown) == (2, 90, 1.5, False)  # type: ignore[attr-defined]


def test_every_field_is_an_option_of_the_environment() -> None:
    """By the same name, so that a setting cannot be lost on the way."""
    of_training = {"train_split", "long_questions", "env"} | OF_TOOLS
    settings = {f.name for f in fields(GameConfig)} - of_training
    assert settings <= {f.name for f in fields(DebateConfig)}


def test_values_pass_through() -> None:
    penalties = Penalties(no_answer=0.5)
    game = GameConfig(
        num_agents=3,
        num_turns=4,
        protocol="sequential",
        history="last",
        token_budget=900,
        personas=("a", "b", "c"),
        verifier_timeout=2.0,
        gamma=0.3,
        horizon="last",
        share="own",
        alpha=(1.0, 2.0),
        beta=(3.0, 4.0),
        majority="all",
        penalties=penalties,
        reward_feedback=True,
        stop="consensus",
    )
    given, wanted = asdict(debate_config(game)), asdict(game)
    for name in wanted.keys() - {
        *OF_TOOLS,
        "tools",
        "train_split",
        "accept",
        "long_questions",
        "env",
        "data",
        "template",
        "verifier",
        "feedback_verifier",
        "protocol_options",
    }:
        assert given[name] == wanted[name], name
    config = TrainConfig(game=game)
    assert from_dict(TrainConfig, json.loads(json.dumps(asdict(config)))) == config


def test_penalties_are_paid_by_their_own_message() -> None:
    """The first turn of the debate above has no box: each message there costs 0.5."""
    without = rewards_of(GAME)
    fined = rewards_of(replace(GAME, penalties=Penalties(no_answer=0.5)))
    assert fined[0] == pytest.approx([x - 0.5 for x in without[0]])
    assert fined[1] == without[1]


def test_reward_variants_reach_the_debate() -> None:
    """Agent 0 is right in turn 2 and nobody else ever is; gamma 1."""
    right = str(questions_of(GAME, "train")[0].answer)
    texts = [["?", "?"], [f"\\boxed{{{right}}}", "?"]]

    def first_turn(**options: object) -> list[float]:
        game = replace(GAME, **options)  # type: ignore[arg-type]
        debates = debates_of(game, 1)
        debates.reset(questions=questions_of(game, "train")[:1])
        for turn in texts:
            debates.step(turn)
        return [float(x) for x in debates.turn_rewards()[0][0]]

    assert first_turn() == pytest.approx([0.25, 0.25])  # (0 + mean(1, 0)) / 2
    assert first_turn(share="own") == pytest.approx([0.5, 0.0])
    assert first_turn(horizon="current") == pytest.approx([0.0, 0.0])
    assert first_turn(horizon="last", share="own") == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize(
    "options",
    [
        {"history": "last"},
        {"history": "none"},
        {"token_budget": 60},
        {"protocol": "sequential"},
        {"protocol": "pipeline", "num_agents": 3},
        {"protocol": "joint"},
        {"protocol": "self_correction", "num_agents": 1},
        {"stop": "consensus"},
        {"reward_feedback": True, "feedback_verifier": "noisy_key:0.8"},
        {"personas": ("You are careful.", "You are quick.")},
    ],
    ids=str,
)
def test_each_can_be_trained_on(checkpoint, options: dict[str, object]) -> None:
    """One step on hopeless models: sampler and scorer agree, and updates are made."""
    game = replace(GAME, num_turns=3, **options)  # type: ignore[arg-type]
    team = load_team(checkpoint("llama"), num_agents=game.num_agents, num_turns=3)
    learner = PPOLearner(team, PPOConfig(), steps=2)
    questions = questions_of(game, "train")[:3]
    sampling = Sampling(max_new_tokens=4)
    rollouts, metrics = train_step(
        learner, debates_of(game, 3), questions, TrainConfig(sampling=sampling), seed=0
    )
    assert len(rollouts) == 3
    assert metrics["updates"] == 3
    assert metrics["sampler_mismatch"] < 1e-4


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"protocol": "quarrel"}, "unknown protocol 'quarrel': choose one of debate"),
            ({"history": "some"}, "unknown history 'some'"),
            ({"horizon": "never"}, "never"),
            ({"share": "half"}, "half"),
            ({"verifier": "oracle"}, "unknown verifier 'oracle': choose one of key"),
            ({"feedback_verifier": "oracle"}, "unknown verifier 'oracle'"),
            ({"template": "no/such.json"}, r"there is no template file 'no/such\.json'"),
            ({"protocol": "self_correction"}, "for one agent, not 2"),
            ({"protocol": "joint", "stop": "consensus"}, "has no option 'stop'"),
        ],
        ids=str,
    )
    def test_before_any_model_is_loaded(self, options: dict[str, object], match: str) -> None:
        with pytest.raises(ValueError, match=match):
            experiment.build(TrainConfig(game=replace(GAME, **options)))  # type: ignore[arg-type]

    def test_verifiers_by_name(self) -> None:
        assert isinstance(make_verifier("noisy_key:0.7"), NoisyKey)
        with pytest.raises(ValueError, match=r"'often' .* number, as in noisy_key:0\.9"):
            make_verifier("noisy_key:often")
        loose, usual = make_verifier("tolerance:0.01"), make_verifier("tolerance")
        question = Question("q", "p", "100")
        for verifier, scores in ((loose, [1.0, 0.0]), (usual, [0.0, 0.0])):
            assert isinstance(verifier, NumericTolerance)
            assert verifier.score([question] * 2, [r"\boxed{101}", r"\boxed{102}"]) == scores
        with pytest.raises(ValueError, match=r"'1e-' is not a number, as in tolerance:1e-6"):
            make_verifier("tolerance:1e-")
        with pytest.raises(ValueError, match=r"relative must be a finite number >= 0, not -1"):
            make_verifier("tolerance:-1")

    def test_answers_in_latex(self) -> None:
        pytest.importorskip("math_verify")
        verifier = make_verifier("math:20")
        assert isinstance(verifier, MathVerifier)
        assert verifier.seconds == 20
        with pytest.raises(ValueError, match=r"'slow' is not a number, as in math:5"):
            make_verifier("math:slow")


class TestTemplate:
    def test_words_of_a_file_are_used(self, tmp_path: Path) -> None:
        path = tmp_path / "words.json"
        path.write_text(json.dumps({"cue": "\nNow turn {turn}, speak:\n"}))
        config = debate_config(replace(GAME, template=str(path)))
        assert config.template == Template(cue="\nNow turn {turn}, speak:\n")
        debates = debates_of(replace(GAME, template=str(path)), 1)
        debates.reset(questions=questions_of(GAME, "train")[:1])
        assert debates.prompts()[0].text.endswith("\nNow turn 1, speak:\n")

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("[1, 2]", "must be a JSON object of texts"),
            ('{"cue": 3}', "must be a JSON object of texts"),
            ('{"clue": "x"}', r"unknown fields \['clue'\]; known: \['instruction'"),
            ("{", "cannot read the template"),
            ('{"cue": ' + "[" * 100_000, "cannot read the template"),
            ('{"cue": ' + "7" * 5_000 + "}", "cannot read the template"),
            ('{"cue": "{gold}"}', r"'cue' uses \['gold'\]"),
        ],
    )
    def test_files_that_are_none(self, tmp_path: Path, text: str, match: str) -> None:
        path = tmp_path / "words.json"
        path.write_text(text)
        with pytest.raises(ValueError, match=match):
            debate_config(replace(GAME, template=str(path)))


def test_another_environment_makes_no_debate() -> None:
    with pytest.raises(ValueError, match=r"game\.env=games\.py:make is another environment"):
        debate_config(GameConfig(env="games.py:make"))
