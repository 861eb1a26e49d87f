"""The environment benchmark: sealed cases, exact known answers, reports that refuse to mix."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maporl_env import tasks
from maporl_env.answers import extract_answer
from maporl_env.benchmark import (
    CASES,
    VERSION,
    Case,
    CaseResult,
    Report,
    choose_cases,
    difference_table,
    function_agents,
    listing,
    markdown_tables,
    named_agents,
    paired_difference,
    playing,
    read_report,
    results,
    score,
    score_case,
    scripted_agents,
    table_header,
    table_row,
    tables,
    write_tables,
)
from maporl_env.benchmark.__main__ import main
from maporl_env.benchmark.knowledge import (
    first_message,
    plausible_messages,
    right_message,
    wrong_messages,
)
from maporl_env.benchmark.players import MadePlayers
from maporl_env.benchmark.results import write_report
from maporl_env.benchmark.suite import seal
from maporl_env.types import Question
from maporl_env.verifiers import AnswerKey, NoisyKey
from maporl_env.voting import expected_accuracy

BY_NAME = {case.name: case for case in CASES}
LONE = BY_NAME["coins/self_correction/1x3"]


def small(name: str, questions: int = 40) -> Case:
    """A case of the suite with fewer questions."""
    return replace(BY_NAME[name], num_questions=questions)


def by_turn(result: CaseResult) -> list[float]:
    return [turn.team.mean for turn in result.turns]


# --- The suite ----------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_NAME)
def test_a_case_is_what_its_digest_says(name: str) -> None:
    BY_NAME[name].require_sealed()


@pytest.mark.parametrize(
    "change",
    [
        {"num_turns": 2},
        {"num_agents": 3},
        {"verdicts": False},
        {"num_questions": 499},
        {"seed": 1},
        {"protocol": "sequential"},
        {"task": "coins"},
    ],
)
def test_a_changed_case_is_refused(change: dict[str, Any]) -> None:
    changed = replace(BY_NAME["sharing/debate/2x3"], **change)
    with pytest.raises(ValueError, match="raise the suite's version"):
        changed.require_sealed()


def test_changed_words_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One word of the template, read only from the second turn on."""
    case = BY_NAME["sharing/debate/2x3"]
    task = tasks.load_task("sharing")
    other = replace(task, template=replace(task.template, own_verdict="\nown score {score:.1f}"))
    monkeypatch.setitem(tasks.TASKS, "sharing", lambda data=None: other)
    assert seal(case) != case.digest
    monkeypatch.undo()
    assert seal(case) == case.digest


def test_names_are_unique_and_all_protocols_are_played() -> None:
    assert len(BY_NAME) == len(CASES)
    protocols = {"debate", "sequential", "pipeline", "joint", "self_correction"}
    assert {case.protocol for case in CASES} == protocols
    assert {case.task for case in CASES} == set(tasks.BUILT_IN)
    assert all(case.name in listing() and case.digest in listing() for case in CASES)


@pytest.mark.parametrize("name", BY_NAME)
def test_no_question_is_one_that_is_trained_on(name: str) -> None:
    case = BY_NAME[name]
    asked = {question.id for question in case.questions()}
    trained_on = tasks.load_task(case.task).split("train")
    assert len(asked) == case.num_questions
    assert asked.isdisjoint(question.id for question in trained_on)
    shared = {case.cluster_of(q) for q in case.questions()}
    assert shared.isdisjoint(case.cluster_of(question) for question in trained_on)


@pytest.mark.parametrize(
    ("case", "ids", "other"),
    [
        ("shopping/debate/2x3", ["shopping/1-pen-2-hat", "shopping/3-hat-1-pen"], "1-pen-2-cup"),
        ("receipts/joint/2x1", ["receipts/1-pen-2-bed", "receipts/2-bed-2-pen"], "1-pen-2-bow"),
        ("sharing/debate/2x3", ["sharing/3-14", "sharing/14-3"], "3-15"),
        ("coins/debate/2x3", ["coins/1-2-3-9/5", "coins/1-2-3-9/12"], "1-2-3-8/5"),
    ],
)
def test_questions_that_share_what_they_are_about_are_a_cluster(
    case: str, ids: list[str], other: str
) -> None:
    first, second = (BY_NAME[case].cluster_of(Question(name, "", "1")) for name in ids)
    assert first == second
    stranger = Question(f"{case.split('/')[0]}/{other}", "", "1")
    assert BY_NAME[case].cluster_of(stranger) != first


def test_cases_are_chosen_by_pattern() -> None:
    assert choose_cases() == CASES
    assert [case.task for case in choose_cases(["coins/*"])] == ["coins"] * 3
    assert choose_cases(["receipts/*", "shopping/pipeline/3x1"])[0].task == "shopping"
    with pytest.raises(ValueError, match=r"no case is called 'coin/\*': choose from shopping/"):
        choose_cases(["coin/*"])


# --- What scripted agents know ------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "plausible"), [("sharing", 3), ("coins", 4), ("shopping", 144), ("receipts", 144)]
)
def test_right_and_wrong_messages(task: str, plausible: int) -> None:
    for question in tasks.load_task(task).split("test")[:30]:
        texts, wrong = plausible_messages(question), wrong_messages(question)
        key = AnswerKey()
        assert len(set(texts)) == plausible
        assert right_message(question) in texts
        assert key.score([question], [right_message(question)]) == [1.0]
        assert key.score([question] * len(wrong), wrong) == [0.0] * len(wrong)
        right = sum(key.score([question] * len(texts), texts))
        assert len(wrong) == plausible - right  # a bill can come out right by two wrong prices


def test_the_deal_has_the_stated_accuracy_and_seats_are_independent() -> None:
    """500 draws of 1/2: four standard errors are 4 * sqrt(1/4 / 500) = .089."""
    questions = BY_NAME["coins/debate/2x3"].questions()
    right = [[first_message(q, seat) == right_message(q) for q in questions] for seat in range(5)]
    for dealt in right:
        assert abs(sum(dealt) / 500 - 0.5) < 0.09
    both = [a and b for a, b in zip(right[0], right[1], strict=True)]
    assert abs(sum(both) / 500 - 0.25) < 0.08  # 4 * sqrt(3/16 / 500) = .077
    assert all(first_message(q, 0, 1.0) == right_message(q) for q in questions)
    assert all(first_message(q, 0, 0.0) in wrong_messages(q) for q in questions)


def test_nothing_is_known_of_other_tasks() -> None:
    with pytest.raises(ValueError, match="'mine/1' is of no task of the suite"):
        first_message(Question("mine/1", "1 + 1 ?", "2"), 0)


# --- Known answers ------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_NAME)
def test_the_oracle_is_always_right(name: str) -> None:
    """Every score is 1, so every turn pays 1, and a debate of T turns pays T."""
    result = score_case(scripted_agents("oracle"), small(name, 20))
    assert by_turn(result) == [1.0] * BY_NAME[name].num_turns
    for turn in result.turns:
        assert turn.agents == (1.0,) * BY_NAME[name].num_agents
        assert turn.score is not None
        assert turn.score.mean == 1.0
        assert turn.invalid == 0
    assert result.reward.mean == pytest.approx(BY_NAME[name].num_turns)
    assert result.gain.mean == 0.0
    assert result.by_question == (1.0,) * 20
    assert result.tokens is None


@pytest.mark.parametrize("name", BY_NAME)
def test_keeping_changes_nothing_over_the_turns(name: str) -> None:
    case = small(name)
    result = score_case(scripted_agents("keep"), case)
    assert len(set(by_turn(result))) == 1
    assert len({turn.agents for turn in result.turns}) == 1
    assert (result.gain.mean, result.gain.half_width) == (0.0, 0.0)
    dealt = [
        [first_message(q, seat) == right_message(q) for q in case.questions()]
        for seat in range(case.num_agents)
    ]
    right = [
        sum(AnswerKey().score(case.questions(), [first_message(q, s) for q in case.questions()]))
        for s in range(case.num_agents)
    ]
    assert result.turns[0].agents == pytest.approx([total / 40 for total in right])
    assert [sum(seat) for seat in dealt] == right


def vote_of_deals(case: Case) -> list[float]:
    """The vote over dealt messages, question by question, in a plain loop."""
    votes = []
    for question in case.questions():
        texts = [first_message(question, seat) for seat in range(case.num_agents)]
        answers = [extract_answer(text, "number") for text in texts]
        votes.append(expected_accuracy(answers, int(question.answer)))
    return votes


def test_the_first_turn_is_the_vote_over_the_deal() -> None:
    case = small("coins/debate/5x2", 100)
    result = score_case(scripted_agents("keep"), case)
    assert result.by_question == pytest.approx(vote_of_deals(case))


def test_two_agents_have_no_majority_to_adopt() -> None:
    """They agree, or tie; a tie keeps the own answer."""
    case = small("sharing/debate/2x3")
    keep, majority = (score_case(scripted_agents(who), case) for who in ("keep", "majority"))
    assert majority.turns == keep.turns


def test_whoever_adopts_the_majority_of_five() -> None:
    """A loop: five dealt answers; who is not of a most common one takes the first such it reads."""
    case = small("coins/debate/5x2", 100)
    right = [0] * 5
    for question in case.questions():
        dealt = [extract_answer(first_message(question, seat), "number") for seat in range(5)]
        counts = Counter(dealt)
        top = {answer for answer in dealt if counts[answer] == max(counts.values())}
        for seat, own in enumerate(dealt):
            others = dealt[:seat] + dealt[seat + 1 :]
            said = own if own in top else next(answer for answer in others if answer in top)
            right[seat] += said == int(question.answer)
    result = score_case(scripted_agents("majority"), case)
    assert result.turns[1].agents == pytest.approx([total / 100 for total in right])
    # Ties apart, all five say the majority then: their mean accuracy rises towards the vote's.
    assert result.turns[1].accuracy.mean > result.turns[0].accuracy.mean + 0.1


def test_whoever_adopts_the_best_score() -> None:
    """A loop: of the two dealt answers the one the noisy judge likes better, else the own one.

    The vote of two is right with the mean of their accuracies: 1, 1/2 (a tie) or 0.
    """
    case = small("sharing/debate/2x3", 100)
    judge = NoisyKey()
    right, before = [0, 0], 0
    for question in case.questions():
        dealt = [first_message(question, seat) for seat in range(2)]
        shown = judge.score([question] * 2, dealt)
        before += sum(text == right_message(question) for text in dealt)
        for seat in range(2):
            better = 1 - seat if shown[1 - seat] > shown[seat] else seat
            right[seat] += dealt[better] == right_message(question)
    result = score_case(scripted_agents("best"), case)
    assert result.turns[1].agents == pytest.approx([total / 100 for total in right])
    assert result.turns[2].team == result.turns[1].team  # the same verdicts again
    assert result.gain.mean == pytest.approx((sum(right) - before) / 200)
    assert result.gain.mean > 0.1


def test_the_reward_is_the_mean_over_agents_of_the_sum_over_turns() -> None:
    """Definition 1 in a loop, gamma .3, for two agents who are right in different turns."""
    case = small("sharing/debate/2x3", 6)
    right = {0: (1, 1, 1), 1: (0, 0, 1), 2: (0, 1, 0)}  # by question and turn, of agent_0

    def is_right(number: int, turn: int, seat: int) -> bool:
        return bool(right[number % 3][turn]) if seat == 0 else turn == number // 3

    def make(_: Case, questions: Sequence[Question], seed: int) -> Any:
        def said(p: Any) -> str:
            first = is_right(p.debate, p.turn, p.seat)
            return first_message(questions[p.debate], p.seat, float(first))

        return lambda prompts: [said(prompt) for prompt in prompts]

    total, of_agent_0 = 0.0, 0.0
    for number in range(6):
        scores = [[float(is_right(number, turn, seat)) for seat in range(2)] for turn in range(3)]
        for turn in range(3):
            later = [0.3**k * sum(scores[turn + k]) / 2 for k in range(1, 3 - turn)]
            weights = sum(0.3**k for k in range(3 - turn))
            paid = [(scores[turn][seat] + sum(later)) / weights for seat in range(2)]
            total += sum(paid) / 2
            of_agent_0 += paid[0]
    result = score_case(MadePlayers("unequal", make), case)
    assert result.reward.mean == pytest.approx(total / 6)
    assert abs(of_agent_0 - total) > 0.5  # paying one agent alone would be seen


def test_a_pipeline_is_its_last_role() -> None:
    """The refiner takes the majority of three dealt answers, its own first; the others cannot."""
    case = small("shopping/pipeline/3x1", 100)
    right = 0
    for question in case.questions():
        dealt = [extract_answer(first_message(question, seat), "number") for seat in range(3)]
        common = dealt[0] if dealt[0] == dealt[1] else dealt[2]
        right += common == int(question.answer)
    result = score_case(scripted_agents("majority"), case)
    assert by_turn(result) == pytest.approx([right / 100])
    assert result.turns[0].score == result.turns[0].team  # its score is everybody's


@pytest.mark.parametrize(
    ("name", "chance"), [("sharing/debate/2x3", 1 / 3), ("coins/debate/2x3", 1 / 4)]
)
def test_random_agents_are_at_chance(name: str, chance: float) -> None:
    """500 questions, two agents: four standard errors of 1,000 draws are below .06."""
    result = score_case(scripted_agents("random"), BY_NAME[name])
    for turn in result.turns:
        assert abs(turn.accuracy.mean - chance) < 0.06


def test_joint_bills_are_scored_by_agreement() -> None:
    """The score of equal right bills is 1; who keeps to a dealt bill agrees where both are right.

    Both right 1/4; else two bills with evenly drawn prices rarely agree.
    """
    result = score_case(scripted_agents("keep"), BY_NAME["receipts/joint/2x1"])
    assert result.turns[0].score is not None
    assert 0.25 < result.turns[0].score.mean < 0.42
    assert result.turns[0].team.mean == result.turns[0].agents[1]  # the last total of the text


def test_lengths_are_in_words() -> None:
    r"""`\boxed{ 7 }` is three words; three turns of it."""
    result = score_case(function_agents("seven", lambda p: [r"\boxed{ 7 }"] * len(p)), LONE)
    assert [turn.words for turn in result.turns] == [3.0] * 3
    assert result.words == 3.0


# --- Anyone's agents ----------------------------------------------------------------


def test_a_function_reads_what_agents_read() -> None:
    """It answers with the first coin that it reads, in all debates of a batch at once."""
    calls = []

    def first_coin(prompts: Sequence[str]) -> list[str]:
        calls.append(len(prompts))
        return [rf"\boxed{{ {p.split(' two of ')[1].split()[0]} }}" for p in prompts]

    case = replace(LONE, num_questions=150)
    result = score_case(function_agents("first coin", first_coin), case)
    assert calls == [100] * 3 + [50] * 3
    right = sum(q.prompt.split(" two of ")[1].split()[0] == q.answer for q in case.questions())
    assert by_turn(result) == pytest.approx([right / 150] * 3)


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda prompts: [][0], "turn 1: they failed with IndexError: list index out of range"),
        (lambda prompts: ["x"], "1 texts for 40 prompts"),
        (lambda prompts: "x" * len(prompts), "expected a list of texts, not str"),
        (lambda prompts: None, "expected a list of texts, not NoneType"),
        (lambda prompts: [None] * len(prompts), "expected texts, but one is NoneType"),
        (lambda prompts: (p for p in prompts), "expected a list of texts, not generator"),
    ],
)
def test_players_that_fail_are_named(function: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        score_case(function_agents("mine", function), replace(LONE, num_questions=40))
    assert str(caught.value).startswith("agents 'mine', case coins/self_correction/1x3, turn 1: ")


def test_hostile_messages_are_only_wrong(tmp_path: Path) -> None:
    text = "\ud800 | ``` \\boxed{" + "{" * 1000 + "\n| --- |\n<!-- benchmark:end --> \x1b[2J \x00"
    players = function_agents(text, lambda prompts: [text] * len(prompts))
    result = score_case(players, small("coins/debate/5x2", 3))
    assert by_turn(result) == [0.0, 0.0]
    assert [turn.invalid for turn in result.turns] == [1.0, 1.0]


def test_functions_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "speakers_of_mine.py").write_text(
        "def speak(prompts):\n    return ['?'] * len(prompts)\nword = 'no function'\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    players = named_agents("speakers_of_mine:speak")
    assert by_turn(score_case(players, replace(LONE, num_questions=3))) == [0.0] * 3
    about = {"kind": "function", "function": "speakers_of_mine:speak"}
    assert players.about == {**about, "fingerprint": players.about["fingerprint"]}
    with pytest.raises(ValueError, match=r"agents .speakers_of_mine:word. is not a function"):
        named_agents("speakers_of_mine:word")
    with pytest.raises(ValueError, match=r"cannot be found .*no attribute 'speek'"):
        named_agents("speakers_of_mine:speek")
    with pytest.raises(ValueError, match=r"cannot be found .*No module named 'no_such'"):
        named_agents("no_such:speak")
    with pytest.raises(ValueError, match="no agents 'majorty': choose one of keep, majority"):
        named_agents("majorty")


@pytest.mark.parametrize(("name", "accuracy"), [("magic", 0.5), ("keep", 1.1), ("keep", -0.1)])
def test_scripted_agents_have_names_and_probabilities(name: str, accuracy: float) -> None:
    with pytest.raises(ValueError, match=r"no scripted agents|accuracy is a probability"):
        scripted_agents(name, accuracy)


# --- Reports ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keep() -> Report:
    return score(scripted_agents("keep"), [LONE])


@pytest.fixture(scope="module")
def best() -> Report:
    return score(scripted_agents("best"), [LONE])


def test_a_report_survives_json(keep: Report, tmp_path: Path) -> None:
    assert Report.from_json(keep.to_json()) == keep
    write_report(tmp_path / "deep" / "keep.json", keep)
    assert read_report(tmp_path / "deep" / "keep.json") == keep
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["keep.json"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"version": "maporl-bench-v0"}, "results of maporl-bench-v0 .* do not compare"),
        ({"schema": 0}, r"\(layout 0\), which do not compare"),
        ({"cases": {"coins/self_correction/1x3": {}}}, "is damaged"),
        ({"cases": 3}, "is damaged"),
        ({"surprise": 1}, "is damaged"),
    ],
)
def test_other_versions_and_damage_are_refused(
    keep: Report, tmp_path: Path, change: dict[str, Any], match: str
) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({**json.loads(keep.to_json()), **change}))
    with pytest.raises(ValueError, match=match) as caught:
        read_report(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', "3", "[" * 100_000])
def test_other_files_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no result of the benchmark"):
        Report.from_json(text)


def test_versions_and_changed_cases_do_not_mix(keep: Report, best: Report) -> None:
    old = replace(best, version="maporl-bench-v0")
    name = LONE.name
    changed = replace(best, cases={name: replace(best.cases[name], digest="0" * 16)})
    for other, match in ((old, "versions of the suite do not mix"), (changed, "another case")):
        with pytest.raises(ValueError, match=match):
            markdown_tables([keep, other])
        with pytest.raises(ValueError, match=match):
            paired_difference(keep, other, name)
        with pytest.raises(ValueError, match=match):
            table_row(other)


def test_differences_are_paired(keep: Report) -> None:
    """An oracle is better by 1 - x on each question: mean 1 - mean, the same half width."""
    oracle = score(scripted_agents("oracle"), [LONE])
    found, own = paired_difference(oracle, keep, LONE.name), keep.cases[LONE.name].turns[-1].team
    assert found.mean == pytest.approx(1 - own.mean)
    assert found.half_width == pytest.approx(own.half_width)
    assert paired_difference(keep, keep, LONE.name).half_width == 0.0
    with pytest.raises(ValueError, match="'keep' has no result of case 'coins/debate/2x3'"):
        paired_difference(keep, oracle, "coins/debate/2x3")


def test_a_mean_needs_all_cases(keep: Report) -> None:
    assert keep.mean is None
    result = keep.cases[LONE.name]
    whole = replace(keep, cases={case.name: replace(result, digest=case.digest) for case in CASES})
    assert whole.mean == pytest.approx(result.turns[-1].team.mean)


class Counting:
    """Players that count their speakers, and fail at a chosen one."""

    def __init__(self, fail_at: int = 0) -> None:
        self.name, self.about = "counting", {"kind": "test"}
        self.count, self.fail_at = 0, fail_at

    def refusal(self, case: Case) -> str:
        return "they do not pool" if case.num_agents == 5 else ""

    def speaker(self, case: Case, questions: Sequence[Question], seed: int) -> Any:
        self.count += 1
        if self.count == self.fail_at:
            raise ValueError("cut")
        return lambda prompts: [r"\boxed{ 1 }"] * len(prompts)


def test_a_cut_benchmark_goes_on(tmp_path: Path) -> None:
    """Two cases of five batches each; the second is cut in its third batch and played again."""
    out, cases = tmp_path / "out.json", choose_cases(["coins/*"])
    cut = Counting(fail_at=8)
    with pytest.raises(ValueError, match="cut"):
        score(cut, cases, out=out)
    assert list(read_report(out).cases) == ["coins/debate/2x3"]
    again = Counting()
    report = score(again, cases, out=out)
    assert again.count == 5
    assert list(report.cases) == ["coins/debate/2x3", "coins/self_correction/1x3"]
    assert report.refused == {"coins/debate/5x2": "they do not pool"}
    assert read_report(out) == report
    whole = score(Counting(), cases)
    assert {name: replace(case, seconds=0) for name, case in report.cases.items()} == {
        name: replace(case, seconds=0) for name, case in whole.cases.items()
    }
    once_more = Counting()
    assert score(once_more, cases, out=out) == report
    assert once_more.count == 0
    assert score(once_more, [LONE], out=out, overwrite=True).cases.keys() == {LONE.name}
    assert once_more.count == 5


def test_results_of_others_are_not_gone_on_with(keep: Report, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    write_report(out, keep)
    before = out.read_bytes()
    with pytest.raises(ValueError, match=r"holds results of 'keep' .* not of 'counting'"):
        score(Counting(), [LONE], out=out)
    with pytest.raises(ValueError, match="holds results of 'keep'"):
        score(scripted_agents("keep", 0.6), [LONE], out=out)
    assert out.read_bytes() == before


def spoken(path: Path, answer: str) -> Any:
    """A function of a module that says one thing, read from its file anew."""
    path.write_text(f"def speak(prompts):\n    return ['{answer}'] * len(prompts)\n")
    made: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), made)
    return made["speak"]


def test_results_of_an_edited_function_are_not_gone_on_with(tmp_path: Path) -> None:
    """The name is the same; the file is not. The same file goes on, whoever wraps its function."""
    out, module = tmp_path / "out.json", tmp_path / "mine.py"
    first = score(function_agents("mine", spoken(module, "1")), [LONE], out=out)
    again = function_agents("mine", functools.partial(spoken(module, "1")))
    assert score(again, [LONE], out=out) == first
    with pytest.raises(ValueError, match=r"'mine' \(\{'fingerprint': '[0-9a-f]{16}'\}\), not of"):
        score(function_agents("mine", spoken(module, "22")), [LONE], out=out)
    assert function_agents("mine", eval("lambda prompts: prompts")).about == {"kind": "function"}
    one, other = Caller(), Caller()
    assert function_agents("a", one).about == function_agents("a", other).about
    assert function_agents("a", one).about["fingerprint"]


class Caller:
    """An object that can be called."""

    def __call__(self, prompts: Sequence[str]) -> Sequence[str]:
        return prompts


def test_what_is_said_of_the_file_in_the_end(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out.json"
    command = ["--agents", "oracle", "--out", str(out), "--cases", LONE.name]
    endings = []
    for more in ([], [], ["coins/debate/5x2"], ["--overwrite"]):
        assert main([*command, *more]) == 0
        endings.append(capsys.readouterr().out.strip().splitlines()[-1])
    assert endings[0] == endings[3] == f"wrote {out}"
    assert endings[1].startswith(f"nothing was left to play: {out} held these results, begun 20")
    assert endings[2] == f"wrote {out} (cases in it from before: 1)"


def test_who_can_play_nothing_says_why() -> None:
    with pytest.raises(ValueError, match="'counting' can play none of the cases: they do not pool"):
        score(Counting(), [BY_NAME["coins/debate/5x2"]])


# --- Tables -------------------------------------------------------------------------


def test_a_row_has_a_cell_for_every_case(keep: Report) -> None:
    row = [cell.strip() for cell in table_row(keep).strip("|").split("|")]
    head = [cell.strip() for cell in table_header().splitlines()[0].strip("|").split("|")]
    assert len(row) == len(head) == 4 + len(CASES)
    team = keep.cases[LONE.name].turns[-1].team
    cell = f"{team.mean:.3f} ±{team.half_width:.3f}".replace("0.", ".")
    assert dict(zip(head, row, strict=True)) == {
        "agents": "keep",
        "mean": "–",
        **{case.name: "n/a" for case in CASES},
        LONE.name: cell,
        "words": "3.0",
        "tokens": "–",
    }


def test_a_name_breaks_no_table_and_no_page(keep: Report, tmp_path: Path) -> None:
    hostile = replace(keep, name=f"a|b\n{tables.END}", machine={"platform": tables.BEGIN})
    assert table_row(hostile).startswith("| a\\|b &lt;!-- benchmark:end --> | – |")
    page = tmp_path / "page.md"
    page.write_text(f"{tables.BEGIN}\n{tables.END}\nafter")
    write_tables(page, [hostile])
    write_tables(page, [keep])
    assert page.read_text() == f"{tables.BEGIN}\n{markdown_tables([keep])}\n{tables.END}\nafter"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, ".000"), (0.5, ".500"), (1.0, "1.000"), (-0.25, "-.250"), (10.05, "10.050")],
)
def test_short_numbers(value: float, text: str) -> None:
    assert tables._short(value) == text


def test_tables_go_between_the_markers_of_a_page(
    keep: Report, best: Report, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    write_tables(page, [keep, best])
    text = page.read_text()
    assert text.startswith(f"before\n{tables.BEGIN}\nTeam accuracy in the last turn, {VERSION}:")
    assert text.endswith(f"\n{tables.END}\nafter\n")
    assert "old" not in text
    write_tables(page, [keep, best])
    assert page.read_text() == text


@pytest.mark.parametrize(
    "text", ["", tables.BEGIN, f"{tables.END}\n{tables.BEGIN}", f"{tables.BEGIN}{tables.END}" * 2]
)
def test_a_page_without_markers_is_left_alone(keep: Report, tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="once each"):
        write_tables(page, [keep])
    assert page.read_text() == text


def test_a_table_needs_different_names(keep: Report) -> None:
    with pytest.raises(ValueError, match="different names"):
        markdown_tables([keep, keep])
    with pytest.raises(ValueError, match="different names"):
        markdown_tables([])


# --- The command --------------------------------------------------------------------


def test_one_command_scores_and_writes(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "oracle.json"
    assert main(["--agents", "oracle", "--cases", LONE.name, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert table_row(read_report(out)) in printed.out
    assert "1.000 ±.000" in printed.out
    assert f"{LONE.name:28}  500 / 500" in printed.err
    page = tmp_path / "page.md"
    page.write_text(f"{tables.BEGIN}\n{tables.END}\n")
    assert main(["--table", str(out), "--docs", str(page)]) == 0
    assert table_row(read_report(out)) in page.read_text()


def test_the_command_compares_by_question(
    keep: Report, best: Report, tmp_path: Path, capsys: Any
) -> None:
    """Without torch, as the rules for comparing ask it of everybody."""
    for report in (keep, best):
        write_report(tmp_path / f"{report.name}.json", report)
    files = [str(tmp_path / f"{name}.json") for name in ("best", "keep")]
    assert main(["--table", files[0], "--against", files[1]]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == difference_table(best, keep)
    page = tmp_path / "page.md"
    page.write_text(f"{tables.BEGIN}\n{tables.END}\n")
    assert main(["--table", *files, "--against", files[1], "--docs", str(page)]) == 2
    assert "leave one out" in capsys.readouterr().err
    assert page.read_text() == f"{tables.BEGIN}\n{tables.END}\n"
    assert main(["--agents", "keep", "--against", files[1]]) == 2
    assert "add --table FILE" in capsys.readouterr().err


def test_names_with_commas_stay_apart(keep: Report) -> None:
    first, second = (replace(keep, name=name) for name in ("tiny, untrained", "tiny, MALT"))
    assert markdown_tables([first, second]).endswith(": tiny, untrained; tiny, MALT.")


def test_the_command_lists_and_explains(capsys: Any) -> None:
    assert main(["--list"]) == 0
    assert capsys.readouterr().out.strip() == listing()
    assert main([]) == 0
    assert "adopts the most common answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--agents", "nobody"], "no agents 'nobody'"),
        (["--agents", "keep", "--cases", "x"], "no case is called 'x'"),
        (["--table", "/no/such.json"], "No such file"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], match: str, capsys: Any) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert match in error
    assert error.startswith("maporl bench: ")
    assert error.count("\n") == 1


def test_control_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def interrupted(*_: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("maporl_env.benchmark.__main__.named_agents", interrupted)
    assert main(["--agents", "keep"]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_results_name_the_machine_and_the_day(keep: Report) -> None:
    assert keep.machine["cores"] >= 1
    assert keep.machine["numpy"] == results.machine()["numpy"]
    assert len(keep.date) == 10
    assert keep.date in markdown_tables([keep])
    assert playing.BATCH == 100  # part of the version: samplers' noise may depend on it
