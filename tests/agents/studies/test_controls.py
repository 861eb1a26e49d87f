"""Controls take away exactly what they say and leave the rest as it was."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from miniatures import load_team, make_transcript

from maporl_agents.config import GameConfig, Sampling
from maporl_agents.measure.evaluate import evaluate
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.studies import controls
from maporl_agents.studies.controls import (
    Cast,
    Measure,
    ShuffledVerdicts,
    SwappedPeers,
    best_of,
    in_rotation,
    measure,
    size_without_single,
    with_peers_of,
    with_shuffled_verdicts,
)
from maporl_agents.training.make_game import debates_of, questions_of
from maporl_env.types import Question
from maporl_env.verifiers import AnswerKey, Scorer

GAME = GameConfig()
SHORT = Sampling(max_new_tokens=2)
QUESTIONS = questions_of(GAME, "test")[:5]


class TestCast:
    def test_members_take_seats_in_rotation_with_their_own_policies(self, checkpoint) -> None:
        team = load_team(checkpoint("llama"), sharing="turn")
        four = in_rotation(team, 4)
        assert [four.policy(seat, 1) for seat in range(4)] == [
            team.policy(0, 1),
            team.policy(1, 1),
            team.policy(0, 1),
            team.policy(1, 1),
        ]
        assert four.bases is team.bases

    def test_everybody_can_speak_with_the_policy_of_one_turn(self, checkpoint) -> None:
        team = load_team(checkpoint("llama"), sharing="turn")
        last = in_rotation(team, 2, turn=2)
        assert [last.policy(1, turn) for turn in range(3)] == [team.policy(1, 2)] * 3

    def test_the_team_itself_stays_as_it_was(self, checkpoint) -> None:
        team = load_team(checkpoint("llama"), sharing="agent")
        Cast(team, (1, 1, 1))
        assert [team.policy(seat, 0) for seat in range(2)] == ["agent_0", "agent_1"]

    def test_frozen_turns_stay_frozen_in_other_seats(self, checkpoint) -> None:
        team = load_team(checkpoint("llama"), sharing="one", train_turns=">=2")
        cast = in_rotation(team, 3)
        assert [cast.policy(2, turn) for turn in range(3)] == [
            team.policy(0, turn) for turn in range(3)
        ]
        assert cast.policy(2, 0) != cast.policy(2, 1)


class TestShuffledVerdicts:
    def test_the_same_scores_in_another_order(self) -> None:
        question = Question("q", "how much ?", "1", "number")
        texts = [f"\\boxed{{ {i % 2} }}" for i in range(40)]  # every other one is right
        given = [float(i % 2) for i in range(40)]
        shuffled = ShuffledVerdicts(Scorer(AnswerKey()), seed=3)
        first, second = (shuffled.score([question] * 40, texts) for _ in range(2))
        assert sorted(first) == sorted(second) == sorted(given)
        assert first != given
        assert first != second
        again = ShuffledVerdicts(Scorer(AnswerKey()), seed=3)
        assert again.score([question] * 40, texts) == first

    def test_only_what_is_shown_is_shuffled(self, checkpoint) -> None:
        game = replace(GAME, reward_feedback=True, num_turns=1)
        debates = with_shuffled_verdicts(debates_of(game, 8), seed=0)
        asked = questions_of(game, "test")[:8]
        debates.reset(asked)
        answers = [q.answer if i < 4 else "0" for i, q in enumerate(asked)]
        debates.step([f"\\boxed{{ {answer} }}" for answer in answers for _ in range(2)])
        messages = [m for t in debates.transcripts for m in t.messages]
        assert [m.score for m in messages] == [1.0] * 8 + [0.0] * 8
        assert Counter(m.feedback for m in messages) == {1.0: 8, 0.0: 8}
        assert [m.feedback for m in messages] != [m.score for m in messages]

    def test_a_game_without_verdicts_cannot_be_controlled_so(self) -> None:
        with pytest.raises(ValueError, match="no verdicts to shuffle"):
            with_shuffled_verdicts(debates_of(GAME, 2), seed=0)


class TestSwappedPeers:
    def started(self) -> SwappedPeers:
        debates = SwappedPeers(debates_of(GAME, 3).game, 3)
        debates.reset(QUESTIONS[:3])
        debates.step([f"said {debate} {seat}" for debate in range(3) for seat in range(2)])
        return debates

    def test_own_messages_stay_and_peers_are_those_of_the_next_question(self) -> None:
        debates = self.started()
        for prompt in debates.prompts():
            next_debate, other_seat = (prompt.debate + 1) % 3, 1 - prompt.agent_index
            assert ("own", f"said {prompt.debate} {prompt.agent_index}") in prompt.view
            assert f"said {next_debate} {other_seat}" in prompt.text
            assert f"said {prompt.debate} {other_seat}" not in prompt.text
            assert QUESTIONS[prompt.debate].prompt in prompt.text
            assert QUESTIONS[next_debate].prompt not in prompt.text

    def test_the_first_turn_is_untouched(self) -> None:
        plain = debates_of(GAME, 3)
        plain.reset(QUESTIONS[:3])
        swapped = SwappedPeers(plain.game, 3)
        swapped.reset(QUESTIONS[:3])
        assert swapped.prompts() == plain.prompts()

    def test_one_question_has_nobody_to_swap_with(self) -> None:
        debates = SwappedPeers(debates_of(GAME, 3).game, 3)
        with pytest.raises(ValueError, match="at least two"):
            debates.reset(QUESTIONS[:1])

    @pytest.mark.parametrize(
        ("number", "limit", "size"),
        [
            (5, 250, 5),
            (400, 250, 250),  # as always: 250 + 150
            (251, 250, 249),  # 249 + 2 instead of 250 + 1
            (7, 3, 7),  # 3 + 3 + 1 and 2 + 2 + 2 + 1: nothing fits
            (5, 2, 5),
            (1, 250, 1),
        ],
    )
    def test_no_batch_holds_a_single_question(self, number: int, limit: int, size: int) -> None:
        assert size_without_single(number, limit) == size

    def test_one_question_more_than_a_batch_is_measured(
        self, checkpoint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(controls, "EVAL_BATCH", 4)
        team = load_team(checkpoint("llama"))
        what = Measure("peers_shuffled")
        results = measure(what, team, GAME, QUESTIONS, SHORT, seed=1)  # 3 + 2, not 4 + 1
        assert [r.num_questions for r in results.values()] == [5, 5]

    def test_debates_that_end_at_different_turns_are_refused(self) -> None:
        debates = SwappedPeers(debates_of(replace(GAME, stop="consensus"), 2).game, 2)
        debates.reset(QUESTIONS[:2])
        debates.step(["\\boxed{ 1 }", "\\boxed{ 1 }", "\\boxed{ 1 }", "\\boxed{ 2 }"])
        debates.step(["\\boxed{ 1 }", "\\boxed{ 2 }"])
        with pytest.raises(ValueError, match="fixed"):
            debates.prompts()

    def test_splicing_keeps_the_order_of_messages(self) -> None:
        own = make_transcript([["a0", "b0"], ["a1", "b1"]])
        other = make_transcript([["c0", "d0"], ["c1", "d1"]])
        spliced = with_peers_of(own, other, "agent_0")
        assert [m.text for m in spliced.messages] == ["a0", "d0", "a1", "d1"]
        assert spliced.question == own.question


class TestBestOf:
    def test_ties_among_the_best_count_in_equal_parts(self) -> None:
        right, wrong = "\\boxed{ 5 }", "\\boxed{ 4 }"
        tied = make_transcript([[right, wrong, wrong]], scores=[[0.5, 0.5, 0.0]])  # 1 of 2
        fooled = make_transcript([[right, wrong]], scores=[[0.0, 1.0]])  # 0
        found = make_transcript([[wrong, right]], scores=[[0.0, 1.0]])  # 1
        unscored = make_transcript([[right, right]], scores=[[None, None]])  # 0
        close = make_transcript([[wrong, right, right]], scores=[[1.0, 0.9, 0.5]])  # 0
        below = make_transcript([[wrong, right]], scores=[[-0.1, -0.2]])  # 0
        worthless = make_transcript([[right, wrong]], scores=[[0.0, 0.0]])  # 1 of 2
        for transcripts, expected in (
            ([tied], 0.5),
            ([fooled], 0.0),
            ([found], 1.0),
            ([unscored], 0.0),
            ([close], 0.0),
            ([below], 0.0),
            ([worthless], 0.5),
            ([found, fooled], 0.5),
        ):
            stats = best_of(transcripts)
            assert stats.vote == expected
            assert stats.accuracy == (expected,)
        # two questions, 1 and 0: variance over n - 1 is 1/2, half width 1.96 sqrt(1/2 / 2)
        assert best_of([found, fooled]).vote_interval == pytest.approx(1.96 * 0.5)


class TestMeasure:
    def run(self, checkpoint, kind: str, game: GameConfig = GAME, **size: object):
        team = load_team(checkpoint("llama"))
        return measure(Measure(kind, **size), team, game, QUESTIONS, SHORT, seed=1)  # type: ignore[arg-type]

    def test_a_debate_is_the_plain_evaluation(self, checkpoint) -> None:
        results = self.run(checkpoint, "debate")
        team = load_team(checkpoint("llama"))
        for name, greedy in (("sampled", False), ("greedy", True)):
            plain = evaluate(team, debates_of(GAME, 5), QUESTIONS, SHORT, seed=1, greedy=greedy)
            assert results[name] == plain

    @pytest.mark.parametrize(
        ("kind", "turns", "answers"),
        [
            ("alone", 1, 10),  # 5 questions x 2 members x 1 turn
            ("self_refinement", 3, 15),  # 5 questions x 1 member x 3 turns
            ("peers_shuffled", 3, 30),
            ("best_of_n", 1, 30),  # 6 samples each
        ],
    )
    def test_kinds_play_as_many_messages_as_they_say(
        self, checkpoint, kind: str, turns: int, answers: int
    ) -> None:
        for result in self.run(checkpoint, kind).values():
            assert len(result.turns) == turns
            assert sum(len(t.messages) for t in result.transcripts) == answers
            assert sorted(t.question.id for t in result.transcripts) == sorted(
                q.id for q in QUESTIONS
            )

    @pytest.mark.parametrize(
        "kind", ["alone", "self_refinement", "peers_shuffled", "best_of_n", "self_consistency"]
    )
    def test_every_member_is_told_what_it_is_told_in_the_debate(
        self, checkpoint, kind: str
    ) -> None:
        """Also where a member plays alone, or several times: with its own private text."""
        game = replace(GAME, task="notes", num_turns=2)
        asked = questions_of(game, "test")[:5]
        by_id = {question.id: question.private for question in asked}
        team = load_team(checkpoint("llama"))
        results = measure(Measure(kind), team, game, asked, SHORT, seed=1)  # type: ignore[arg-type]
        for transcript in results["sampled"].transcripts:
            told, private = transcript.question.private, by_id[transcript.question.id]
            if kind == "self_refinement":
                assert told == (private[list(by_id).index(transcript.question.id) % 2],)
            else:
                assert told == tuple(private[seat % 2] for seat in range(len(transcript.agents)))

    def test_alone_everybody_speaks_as_in_its_last_turn(self, checkpoint, monkeypatch) -> None:
        asked: list[set[str]] = []

        def spied(team: Team, *args: object, **options: object):
            asked.append({team.policy(seat, 0) for seat in range(2)})
            return evaluate(team, *args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr("maporl_agents.studies.controls.evaluate", spied)
        team = load_team(checkpoint("llama"), sharing="turn")
        measure(Measure("alone"), team, GAME, QUESTIONS, SHORT, seed=1)
        assert asked == [{"agent_0_turn_2", "agent_1_turn_2"}] * 2

    def test_only_what_varies_is_sampled_alone(self, checkpoint) -> None:
        assert set(self.run(checkpoint, "best_of_n")) == {"sampled"}
        assert set(self.run(checkpoint, "alone")) == {"sampled", "greedy"}

    def test_shuffled_verdicts_change_later_turns_only(self, checkpoint) -> None:
        game = replace(GAME, reward_feedback=True)
        team = load_team(checkpoint("llama"))
        fixed = Scorer(lambda questions, texts: [i / len(texts) for i in range(len(texts))])
        plain = debates_of(game, 5)
        plain.game = replace(plain.game, scorer=fixed)  # verdicts that differ between messages
        shuffled = with_shuffled_verdicts(plain, seed=1)
        one, other = (play(team, d, QUESTIONS, SHORT, seed=1) for d in (plain, shuffled))
        assert [r.prompts[:2] for r in one] == [r.prompts[:2] for r in other]
        assert [r.prompts[2:] for r in one] != [r.prompts[2:] for r in other]

    def test_more_agents_and_turns_at_test_time(self, checkpoint) -> None:
        [result, _] = self.run(checkpoint, "debate", agents=3, turns=4).values()
        assert all(len(t.agents) == 3 and t.turn == 4 for t in result.transcripts)

    def test_equal_tokens_means_equally_many_messages_if_all_cost_the_same(
        self, checkpoint
    ) -> None:
        team = load_team(checkpoint("llama"))
        one_token = Sampling(max_new_tokens=1)
        number = controls.samples_for_tokens(team, GAME, QUESTIONS, one_token, seed=1)
        assert number == GAME.num_agents * GAME.num_turns

    def test_self_refinement_reads_nobody_else(self, checkpoint) -> None:
        team = load_team(checkpoint("llama"))
        result = controls.self_refinement(team, GAME, QUESTIONS, SHORT, seed=1)
        assert all(t.agents == ("agent_0",) for t in result.transcripts)
        assert result.num_questions == 5

    def test_unknown_kinds_and_sizes_are_refused_by_name(self) -> None:
        with pytest.raises(ValueError, match="peers_shuffled"):
            Measure("shuffle")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="agents"):
            Measure(agents=0)
