"""The PettingZoo environment: official tests, seeds, options, rendering, bad input."""

from __future__ import annotations

import copy
import importlib
import pickle
import random
import subprocess
import sys
import time
import unicodedata
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pettingzoo
import pytest
from gymnasium.error import ResetNeeded
from pettingzoo.test import (
    api_test,
    max_cycles_test,
    parallel_api_test,
    parallel_seed_test,
    render_test,
    seed_test,
    state_test,
)
from pettingzoo.utils.conversions import aec_to_parallel, parallel_to_aec

from maporl_env import debate_v0
from maporl_env.observations.spaces import DebateText
from maporl_env.prompts import Template
from maporl_env.types import Question

FEW = [Question(f"few/{n}", f"What is {n} + {n}?", str(2 * n)) for n in range(20)]
GOLD = Question("gold", "What is the secret?", "918273645")
UNAVOIDABLE = {
    "Observation space for each agent probably should be gymnasium.spaces.box or "
    "gymnasium.spaces.discrete",
    "Action space for each agent probably should be gymnasium.spaces.box or "
    "gymnasium.spaces.discrete",
    "Observation is not a NumPy array",
}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"num_agents": 1, "num_turns": 1},
    {"num_agents": 4, "num_turns": 2, "stop": "consensus", "reward_mode": "score"},
    {"alpha": (1, 2), "beta": (0.5, 1), "reward_feedback": True, "history": "last"},
    {"protocol": "joint", "num_agents": 2},
]
SEQUENTIAL: list[dict[str, Any]] = [{"protocol": "sequential"}, {"protocol": "pipeline"}]


def converted(**options: Any) -> Any:
    return aec_to_parallel(debate_v0.env(**options))


def converted_back(**options: Any) -> Any:
    return parallel_to_aec(debate_v0.parallel_env(**options))


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# -- the official tests. `bombardment_test` takes the None of step() for an observation and cannot
# -- pass anywhere; `test_save_obs` is for pictures; `manual_control_test` for keyboards.


@pytest.mark.parametrize("make", [debate_v0.env, debate_v0.raw_env, converted_back])
@pytest.mark.parametrize("options", SETTINGS)
def test_api_warns_of_text_and_of_nothing_else(
    make: Callable[..., Any], options: dict[str, Any]
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        api_test(make(**options), num_cycles=30)
    assert {str(warning.message) for warning in caught} == UNAVOIDABLE


@pytest.mark.parametrize("options", SEQUENTIAL)
def test_api_of_sequential_protocols(options: dict[str, Any]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        api_test(debate_v0.env(**options), num_cycles=30)
    assert {str(warning.message) for warning in caught} == UNAVOIDABLE


@pytest.mark.parametrize("make", [debate_v0.parallel_env, converted])
@pytest.mark.parametrize("options", SETTINGS)
def test_parallel_api(make: Callable[..., Any], options: dict[str, Any]) -> None:
    parallel_api_test(make(**options), num_cycles=30)


@pytest.mark.parametrize("options", SETTINGS)
def test_official_seed_and_state(options: dict[str, Any]) -> None:
    seed_test(lambda: debate_v0.env(**options), num_cycles=10)
    parallel_seed_test(lambda: debate_v0.parallel_env(**options), num_cycles=10)
    state_test(debate_v0.env(**options), debate_v0.parallel_env(**options))


def test_official_max_cycles_and_render(capsys: pytest.CaptureFixture[str]) -> None:
    max_cycles_test(debate_v0)
    render_test(debate_v0.env)
    assert "Question shopping/" in capsys.readouterr().out


# -- construction -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["maporl/debate-v0", "maporl/debate_v0", "maporl/debate"])
def test_made_by_name(name: str) -> None:
    aec = pettingzoo.make("aec", name, num_agents=2, max_cycles=4)
    parallel = pettingzoo.make("parallel", name, num_agents=2, max_cycles=4)
    assert aec.possible_agents == parallel.possible_agents == ["agent_0", "agent_1"]
    assert aec.max_cycles == parallel.max_cycles == 4


def test_importing_twice_is_silent_and_needs_no_torch() -> None:
    code = (
        "import warnings; warnings.simplefilter('error'); import sys, importlib, maporl_env;"
        "importlib.reload(maporl_env); from maporl_env import debate_v0, batched;"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    path = ":".join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("make", [debate_v0.env, debate_v0.raw_env, debate_v0.parallel_env])
@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ({"num_agent": 2}, TypeError, "unknown option 'num_agent': did you mean 'num_agents'"),
        ({"xyzzy": 2}, TypeError, "choose one of task, num_agents"),
        ({"reward_mode": "dense"}, ValueError, "terminal, score"),
        ({"observation": "pixels"}, ValueError, "unknown observation 'pixels': choose one of text"),
        ({"render_mode": "video"}, ValueError, "human, ansi"),
        ({"stop": "never"}, ValueError, "fixed, consensus"),
        ({"horizon": "far"}, ValueError, "discounted, last, current"),
        ({"share": "all"}, ValueError, "team, own"),
        ({"majority": "most"}, ValueError, "others, all"),
        ({"on_long": "cut"}, ValueError, "truncate, error"),
        ({"gamma": 1.5}, ValueError, "gamma must lie in"),
        ({"gamma": float("nan")}, ValueError, "gamma must lie in"),
        ({"alpha": 1}, ValueError, "alpha must be a pair"),
        ({"num_agents": 0}, ValueError, "num_agents must be at least 1"),
        ({"num_turns": 2.5}, ValueError, "num_turns must be an integer"),
        ({"max_cycles": 0}, ValueError, "max_cycles must be an integer"),
        ({"reward_feedback": "yes"}, ValueError, "True or False"),
        ({"verifier": "key"}, ValueError, "a verifier must be a callable"),
        ({"split": "dev"}, ValueError, "no split 'dev'; choose one of"),
        ({"task": "shoping"}, ValueError, "did you mean 'shopping'"),
    ],
)
def test_wrong_options_are_refused_with_the_right_ones(
    make: Callable[..., Any], options: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        make(**options)


def test_a_sequential_protocol_has_no_parallel_view_and_says_so_on_the_instance_only() -> None:
    assert not debate_v0.raw_env(protocol="sequential").metadata["is_parallelizable"]
    assert debate_v0.raw_env().metadata["is_parallelizable"]
    with pytest.raises(ValueError, match="no parallel view: use debate_v0"):
        debate_v0.parallel_env(protocol="pipeline")
    with pytest.raises(AssertionError):
        aec_to_parallel(debate_v0.env(protocol="sequential"))


def test_max_cycles_is_num_turns_and_may_be_set_between_debates() -> None:
    env = debate_v0.parallel_env(num_turns=5, max_cycles=2)
    assert env.max_cycles == 2
    env.max_cycles = 1
    env.reset(seed=0)
    infos = env.step(dict.fromkeys(env.agents, "x"))[4]
    assert env.agents == []
    assert infos["agent_0"]["turn_rewards"].shape == (1,)


# -- seeds and options --------------------------------------------------------------------------


def record(make: Callable[..., Any], seed: int) -> list[Any]:
    """Everything an environment says in three chained episodes of sampled messages."""
    env = make()
    said: list[Any] = []
    for episode in range(3):
        said.append(env.reset(seed=seed if episode == 0 else None))
        for place, agent in enumerate(env.possible_agents):
            env.action_space(agent).seed(seed + place)
        while env.agents:
            said.append(env.step({agent: env.action_space(agent).sample() for agent in env.agents}))
    return said


def test_whole_episodes_repeat_under_a_seed_and_leave_global_randomness_alone() -> None:
    python, numpy = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second, other = (record(debate_v0.parallel_env, seed) for seed in (3, 3, 4))
    assert repr(first) == repr(second) != repr(other)
    assert random.getstate() == python
    assert (np.random.get_state()[1] == numpy).all()  # noqa: NPY002


def test_chained_resets_draw_new_questions() -> None:
    env = debate_v0.parallel_env()
    env.reset(seed=0)
    drawn = set()
    for _ in range(10):
        env.reset()
        drawn.add(env.transcript.question.id)
    assert len(drawn) > 5


def test_episodes_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "from maporl_env import debate_v0; env = debate_v0.parallel_env()\n"
        "for seed in (5, None, None):\n"
        "    print(ascii(env.reset(seed=seed)))\n"
        "    while env.agents:\n"
        "        print(ascii(env.step({a: '\\\\boxed{3}' for a in env.agents})))\n"
    )
    path = ":".join(p for p in sys.path if p)
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1] != ""


@pytest.mark.parametrize(
    ("options", "prompt", "answer"),
    [
        ({"question": GOLD}, GOLD.prompt, GOLD.answer),
        ({"question": {"prompt": "1 + 1?", "answer": 2}}, "1 + 1?", "2"),
        ({"question": "1 + 1?", "answer": 2}, "1 + 1?", "2"),
        ({"question": GOLD, "answer": "7"}, GOLD.prompt, "7"),
        ({"question": {"prompt": "p", "answer": "neutral", "kind": "nli"}}, "p", "neutral"),
    ],
)
def test_a_pinned_question(options: dict[str, Any], prompt: str, answer: str) -> None:
    env = debate_v0.env()
    env.reset(options={**options, "unknown": object()})
    assert (env.unwrapped.transcript.question.prompt, env.unwrapped.transcript.question.answer) == (
        prompt,
        answer,
    )


def test_index_split_and_template_options() -> None:
    env = debate_v0.parallel_env()
    for split in ("train", "test"):
        env.reset(options={"split": split, "index": 5})
        assert env.transcript.question == env.game.task.split(split)[5]
    env.reset(options={"question": 3})
    assert env.transcript.question == env.game.questions[3]
    observations, _ = env.reset(options={"template": Template(cue="\nSpeak!\n")})
    assert observations["agent_0"].endswith("Speak!\n")
    assert not env.reset()[0]["agent_0"].endswith("Speak!\n")


@pytest.mark.parametrize(
    "options",
    [
        {"index": 10**9},
        {"index": -1},
        {"split": "dev"},
        {"question": {"prompt": "no answer"}},
        {"question": {"prompt": "p", "answer": "1", "hint": "x"}},
        {"question": "p", "answer": "not a number"},
        {"question": 1.5},
        {"answer": "4"},
        {"template": "speak"},
    ],
)
def test_a_wrong_reset_option_changes_nothing(options: dict[str, Any]) -> None:
    env = debate_v0.raw_env(FEW)
    env.reset(seed=1)
    env.step("first")
    before = pickle.dumps(env)
    with pytest.raises(ValueError):  # noqa: PT011 (the sentences are tested where they are made)
        env.reset(seed=9, options=options)
    assert pickle.dumps(env) == before


# -- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [None, 3, b"x", ["x"], np.array(["x"])])
def test_a_wrong_action_changes_nothing(action: Any) -> None:
    env = debate_v0.env(FEW)
    env.reset(seed=0)
    env.step("first")
    before = pickle.dumps(env.unwrapped)
    with pytest.raises(ValueError, match="agent_1 must be a string"):
        env.step(action)
    assert pickle.dumps(env.unwrapped) == before


@pytest.mark.parametrize(
    "actions",
    [
        {},
        {"agent_0": "a"},
        {"agent_0": "a", "agent_1": "b", "agent_2": "c", "agent_3": "d"},
        {"agent_0": "a", "agent_1": "b", "agent_9": "c"},
        {"agent_0": "a", "agent_1": None, "agent_2": "c"},
        {"agent_0": "a", "agent_1": "b", "agent_2": 7},
        ["a", "b", "c"],
        None,
    ],
)
def test_a_wrong_action_dict_changes_nothing(actions: Any) -> None:
    env = debate_v0.parallel_env(FEW)
    env.reset(seed=0)
    before = pickle.dumps(env)
    with pytest.raises(ValueError, match=r"actions must be a dict|must be a string"):
        env.step(actions)
    assert pickle.dumps(env) == before


def test_calls_in_the_wrong_order() -> None:
    parallel, aec = debate_v0.parallel_env(num_turns=1), debate_v0.env(num_turns=1)
    for env in (parallel, aec):
        with pytest.raises(
            (ResetNeeded, AssertionError), match="reset"
        ):  # the latter: PettingZoo's
            env.step("too early")
    parallel.reset(seed=0)
    parallel.step(dict.fromkeys(parallel.agents, "x"))
    with pytest.raises(ResetNeeded, match="call reset first"):
        parallel.step({})
    with pytest.raises(RuntimeError, match="call reset"):
        debate_v0.parallel_env().state()


HOSTILE = [
    "",
    " ",
    "x" * 1_000,
    "\U0001f9d1\u200d\U0001f4bb é 漢字 \u0660",
    "\ud800 lone \udfff",
    "\x00\x1b[31m\x07",
    "\u202ereversed",
    "</s><|im_end|>```\\boxed{" * 20,
    DebateText("observed"),
    np.str_("numpy"),
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("options", [{}, *SEQUENTIAL])
def test_no_text_breaks_a_debate(text: str, options: dict[str, Any]) -> None:
    env = debate_v0.env(max_chars=500, render_mode="ansi", **options)
    env.reset(seed=0)
    for agent in env.agent_iter():
        (
            observation,
            *_,
        ) = env.last()
        assert env.observation_space(agent).contains(observation)
        env.step(None if env.terminations[agent] else text)
    transcript = env.unwrapped.transcript
    assert all(len(m.text) <= 500 and type(m.text) is str for m in transcript.messages)
    assert all(m.cut == (len(text) > 500) for m in transcript.messages)
    assert env.state_space.contains(env.state())
    env.render().encode()


def test_too_long_a_message_is_refused_where_asked() -> None:
    env = debate_v0.env(max_chars=5, on_long="error")
    env.reset(seed=0)
    assert "123456" not in env.action_space("agent_0")
    with pytest.raises(ValueError, match="max_chars=5"):
        env.step("123456")


# -- what the environment tells -----------------------------------------------------------------


def test_the_gold_answer_is_nowhere_before_the_end() -> None:
    env = debate_v0.env(reward_feedback=True, render_mode="ansi")
    env.reset(options={"question": GOLD})
    while not any(env.terminations.values()):
        agent = env.agent_selection
        for told in (env.observe(agent), env.render(), str(env.infos), env.unwrapped.state_text()):
            assert GOLD.answer not in told
        assert GOLD.answer not in str(env.unwrapped.chat(agent))
        env.step("I do not know")


@pytest.mark.parametrize("options", [*SETTINGS, *SEQUENTIAL])
def test_infos_have_one_schema_and_are_nobody_elses(options: dict[str, Any]) -> None:
    env = debate_v0.env(**options)
    env.reset(seed=0)
    seen: list[Any] = []

    def schema(info: dict[str, Any]) -> list[Any]:
        return [(key, np.asarray(value).dtype, np.shape(value)) for key, value in info.items()]

    expected = schema(env.infos["agent_0"])
    assert [key for key, *_ in expected] == [
        "turn", "verifier_score", "verifier_score_ready", "turn_rewards", "turn_rewards_ready",
    ]  # fmt: skip
    while env.agents:
        for info in env.infos.values():
            assert schema(info) == expected
            assert np.isfinite(info["turn_rewards"]).all()
            if not env.terminations[env.agent_selection]:  # taking leave tells nothing new
                assert all(info is not other for other in seen)
                seen.append(info)
        before = pickle.dumps(env.unwrapped.debate)
        env.infos[env.agent_selection]["turn_rewards"][:] = 99
        assert pickle.dumps(env.unwrapped.debate) == before
        dead = env.terminations[env.agent_selection]
        env.step(None if dead else "\\boxed{1}")


def test_infos_tell_turn_score_and_the_table_at_the_end() -> None:
    env = debate_v0.parallel_env(num_agents=2, num_turns=2, gamma=0.5)
    _, infos = env.reset(options={"question": Question("q", "2 + 2?", "4")})
    assert infos["agent_0"]["turn"] == 0
    assert not infos["agent_0"]["verifier_score_ready"]
    infos = env.step({"agent_0": "\\boxed{4}", "agent_1": "\\boxed{5}"})[4]
    assert [infos[a]["verifier_score"] for a in env.agents] == [1, 0]
    assert infos["agent_0"]["verifier_score_ready"]
    assert infos["agent_0"]["turn_rewards"].tolist() == [0, 0]
    assert not infos["agent_0"]["turn_rewards_ready"]
    infos = env.step({"agent_0": "\\boxed{4}", "agent_1": "\\boxed{5}"})[4]
    # (1 + 0.5 * 0.5) / 1.5 and (0 + 0.5 * 0.5) / 1.5
    assert infos["agent_0"]["turn_rewards"] == pytest.approx([1.25 / 1.5, 1])
    assert infos["agent_1"]["turn_rewards"] == pytest.approx([0.25 / 1.5, 0])
    assert infos["agent_1"]["turn"] == 2
    assert infos["agent_1"]["turn_rewards_ready"]


def test_a_verifier_fault_is_told_and_counted() -> None:
    env = debate_v0.parallel_env(
        num_agents=2, num_turns=1, verifier=lambda questions, texts: [float("nan"), 0.5]
    )
    env.reset(seed=0)
    _, rewards, terminations, _, infos = env.step({"agent_0": "a", "agent_1": "b"})
    assert [infos[a]["verifier_score_ready"] for a in infos] == [False, True]
    assert rewards == {"agent_0": 0.0, "agent_1": 0.5}
    assert env.faults == {"not a number": 1}
    assert all(terminations.values())


def test_score_mode_pays_each_turn_its_score() -> None:
    env = debate_v0.parallel_env(num_agents=2, num_turns=2, reward_mode="score")
    env.reset(options={"question": Question("q", "2 + 2?", "4")})
    assert env.step({"agent_0": "\\boxed{4}", "agent_1": "x"})[1] == {"agent_0": 1, "agent_1": 0}
    assert env.step({"agent_0": "y", "agent_1": "\\boxed{4}"})[1] == {"agent_0": 0, "agent_1": 1}


@pytest.mark.parametrize("mode", ["terminal", "score"])
def test_truncation_from_outside(mode: str) -> None:
    options = {"num_agents": 2, "reward_mode": mode}
    parallel, aec = debate_v0.parallel_env(**options), debate_v0.env(**options)
    pinned = {"question": Question("q", "2 + 2?", "4")}
    parallel.reset(options=pinned)
    parallel.step(dict.fromkeys(parallel.agents, "\\boxed{4}"))
    _, rewards, terminations, truncations, _ = parallel.truncate("generation timed out")
    paid = 1.0 if mode == "terminal" else 0.0  # "score" has paid the turn already
    assert rewards == {"agent_0": paid, "agent_1": paid}
    assert all(truncations.values())
    assert not any(terminations.values())
    assert parallel.agents == []
    aec.reset(options=pinned)
    totals = dict.fromkeys(aec.possible_agents, 0.0)
    for step, _ in enumerate(aec.agent_iter()):
        if step == 3:  # one message of the second turn is pending
            aec.unwrapped.truncate("generation timed out")
        _, reward, terminated, truncated, _ = aec.last()
        totals[aec.agent_selection] += reward
        assert not terminated
        aec.step(None if truncated else "\\boxed{4}")
    assert totals == {"agent_0": 1.0, "agent_1": 1.0}


# -- copies, state, rendering -------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("steps", [0, 1, 4, 9, 10])
def test_copies_continue_alike(duplicate: Callable[[Any], Any], steps: int) -> None:
    env = debate_v0.raw_env(FEW)
    env.reset(seed=0)

    def go(one: Any, number: int) -> list[Any]:
        told = []
        for step in range(number):
            if not one.agents:
                one.reset()
            told.append(one.last())
            dead = one.terminations[one.agent_selection]
            one.step(None if dead else f"\\boxed{{{step}}}")
        return told

    go(env, steps)
    twin = duplicate(env)
    assert repr(go(twin, 15)) == repr(go(env, 15))


def test_state_holds_pending_messages_and_outlives_the_agents() -> None:
    env = debate_v0.env(num_turns=1)
    env.reset(seed=0)
    env.step("pending words")
    assert "pending words" in bytes(env.state().astype(np.uint8)).decode()
    while env.agents:
        env.step(None if env.terminations[env.agent_selection] else "x")
    assert env.state_space.contains(env.state())
    assert env.state().dtype == np.float32


@pytest.mark.parametrize("mode", ["ansi", "human"])
def test_rendered_text_is_harmless_and_the_transcript_raw(
    mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[2J\x9b31m\u202eabc\u2066\x07\x00\r\u2028[red]<b>\nTurn 1, agent_1 (score 1.00)"
    env = debate_v0.parallel_env(num_agents=2, num_turns=1, render_mode=mode)
    env.reset(seed=0)
    env.step({"agent_0": evil, "agent_1": "ok 漢字 \U0001f469\u200d\U0001f680"})
    shown = env.render() if mode == "ansi" else capsys.readouterr().out
    forbidden = ("Cc", "Cf", "Zl", "Zp")
    allowed = "\n\t\u200d"
    assert not [c for c in shown if unicodedata.category(c) in forbidden and c not in allowed]
    assert "\\x1b[2J" in shown
    assert "\\u202e" in shown
    assert "[red]<b>" in shown
    assert "漢字 \U0001f469\u200d\U0001f680" in shown
    # The forged heading stands behind the bar of its author's message.
    assert shown.count("\nTurn 1, agent_1") == 1
    assert "  | Turn 1, agent_1 (score 1.00)" in shown
    assert env.transcript.messages[0].text == evil


def test_human_mode_prints_each_message_once(capsys: pytest.CaptureFixture[str]) -> None:
    env = debate_v0.env(num_turns=2, render_mode="human")
    for _ in range(2):
        env.reset(seed=0)
        while env.agents:
            env.step(None if env.terminations[env.agent_selection] else "say once")
    assert capsys.readouterr().out.count("say once") == 2 * 2 * 3
    assert env.render() is None


def test_rendering_without_a_mode_warns() -> None:
    env = debate_v0.parallel_env()
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode='human', 'ansi' or"):
        assert env.render() is None


def test_metadata_belongs_to_the_instance() -> None:
    first, second = debate_v0.env(), debate_v0.env()
    first.metadata["render_modes"].append("spoiled")
    assert "spoiled" not in second.metadata["render_modes"]
    assert second.metadata["name"] == "debate_v0"
    assert str(second.unwrapped) == "debate_v0"


def test_the_module_docstring_is_the_rule_sheet() -> None:
    sheet = importlib.import_module("maporl_env.debate_v0").__doc__
    assert sheet is not None
    for part in ("## Rules", "## Observation", "## Rewards", "## Version history", "* v0"):
        assert part in sheet


def cpu_seconds(*works: Callable[[], object]) -> list[float]:
    """The least processor time of each work in 60 short runs, by turns.

    Short, so that some run is undisturbed on a busy machine; by turns, so that a slow spell of it
    hits all of them.
    """
    least = [float("inf")] * len(works)
    for _ in range(60):
        for place, work in enumerate(works):
            start = time.process_time()
            work()
            least[place] = min(least[place], time.process_time() - start)
    return least


def test_speed_floor_of_the_wrapped_environment() -> None:
    """A message costs at most what 250 small dictionaries cost to build.

    That is 5,000 messages a second where a dictionary takes 0.8 microseconds. Measured: 80 to 100.
    """
    env = debate_v0.env(FEW)

    def play() -> None:
        for seed in range(3):
            env.reset(seed=seed)
            while env.agents:
                done = env.last()[2]
                env.step(None if done else "\\boxed{12}")

    def build() -> None:
        for n in range(3 * 9 * 250):
            dict(zip("abcdefgh", (n, n, n, n, n, n, n, n), strict=True))

    playing, building = cpu_seconds(play, build)
    assert playing < building
