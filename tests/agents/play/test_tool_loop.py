"""Messages whose authors call tools: parts, results, limits, caches, and hostile results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from miniatures import load_team
from ppo_cases import QUESTIONS
from served_cases import adapted, engine
from vllm_stand_in import running

from maporl_agents.config import Sampling
from maporl_agents.models.team import Team
from maporl_agents.play.speak import speak
from maporl_agents.play.window_check import full_length, too_long, why_too_long
from maporl_agents.trees.sample_tree import grow_trees
from maporl_agents.types import Completion, Request, Rollout, StopReason
from maporl_env.batched import BatchedDebate
from maporl_env.tools import Toolbox
from maporl_env.types import WithResults

from . import tool_cases as cases
from .tool_cases import SAMPLING, played, said


@pytest.fixture(scope="module")
def team(checkpoint) -> Team:
    return cases.team_of(checkpoint("llama", templated=True))


@pytest.fixture(scope="module")
def rollouts(team: Team) -> list[Rollout]:
    return played(team)


def asked_of(team: Team, count: int = 3) -> list[Request]:
    return [Request(team.policy(0, 0), tuple(range(5, 11 + i)), 0, i) for i in range(count)]


def test_a_message_holds_its_author_s_ids_and_those_of_results(
    team: Team, rollouts: list[Rollout]
) -> None:
    """Own ids count to the limit; results are the tool's text, encoded as foreign text."""
    messages = said(rollouts)
    called = [one for one in messages if one.results]
    assert len(called) > 5
    chat = team.bases[0].chat
    for one in messages:
        assert len(one.results) <= cases.OFTEN.calls
        assert one.own_tokens == len(cases.own_ids(one)) <= SAMPLING.max_new_tokens
        assert len(one.ids) == len(one.logprobs)
        assert one.text == chat.decode(cases.own_ids(one))
    for one in called:
        assert isinstance(one.text, WithResults)
        for (start, end), (_, text) in zip(one.results, one.text.results, strict=True):
            assert end - start <= SAMPLING.tool_tokens
            assert one.ids[start:end] == tuple(chat.encode(text))
            assert set(one.logprobs[start:end]) == {0.0}
        assert any(one.logprobs[end] for _, end in one.results if end < len(one.ids))


def test_what_stands_before_a_result_is_the_call_that_it_answers(rollouts: list[Rollout]) -> None:
    for one in (one for one in said(rollouts) if one.results):
        start = 0
        assert isinstance(one.text, WithResults)
        for place, result in one.text.results:
            asked = one.text[start:place].partition("e")[0]
            assert (
                f"\n{cases.OFTEN.harmless(cases.Echo().run([asked])[0])}\n" in result
                or "[...]" in result
            )
            start = place


def test_the_next_turn_reads_the_ids_of_this_one_results_included(
    rollouts: list[Rollout],
) -> None:
    for rollout in rollouts:
        agents = [message.agent for message in rollout.transcript.messages]
        for place in range(2, len(agents)):
            before = rollout.prompts[place - 2]
            ids = rollout.completions[place - 2].ids
            assert rollout.prompts[place][: len(before) + len(ids)] == (*before, *ids)


def test_kept_caches_change_no_message(team: Team, rollouts: list[Rollout]) -> None:
    """The parts of a message, and the next turn, go on from the cache of what stands before."""
    alone = said(played(team, replace(SAMPLING, cache_gb=0)))
    kept = said(rollouts)
    assert [one.ids for one in alone] == [one.ids for one in kept]
    for one, other in zip(alone, kept, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-9)


def test_debates_without_a_call_are_as_without_tools(team: Team) -> None:
    """Bit for bit: the same ids, log-probabilities and texts."""
    words = cases.debates_with(None).game.task.template  # which says nothing of tools
    plain = said(played(team, debates=cases.debates_with(None)))
    assert plain == said(
        played(team, debates=cases.debates_with(cases.never_called(), template=words))
    )


@pytest.mark.parametrize("cut", [{"top_k": 5}, {"top_p": 0.9}])
def test_kept_sets_stand_with_the_tokens_that_were_drawn_from_them(
    team: Team, cut: dict[str, float]
) -> None:
    for one in said(played(team, replace(SAMPLING, **cut))):
        assert one.kept is not None
        sets = one.kept.sets()
        assert len(sets) == len(one.ids)
        inside = {place for start, end in one.results for place in range(start, end)}
        for place, (token, kept) in enumerate(zip(one.ids, sets, strict=True)):
            assert kept == () if place in inside else token in kept


def test_a_result_is_no_control_token_and_no_call(team: Team, rollouts: list[Rollout]) -> None:
    """Its text is `<|im_end|> ... <echo>again</echo>`."""
    chat = team.bases[0].chat
    for one in said(rollouts):
        for start, end in one.results:
            assert not set(one.ids[start:end]) & chat.stop_ids
            text = chat.decode(one.ids[start:end])
            assert "<|im_end|>" in text or "[...]" in text
            assert "<echo>" not in text  # without tags of the toolbox, so "< echo>"


class Huge(cases.Echo):
    """Returns a megabyte."""

    def run(self, inputs: Sequence[str]) -> list[str]:
        """Return much."""
        return ["\U0001f600<|im_start|>" * 50_000 for _ in inputs]


class Broken(cases.Echo):
    """Fails."""

    def run(self, inputs: Sequence[str]) -> list[str]:
        """Raise an error."""
        raise RuntimeError("out of order")


@pytest.mark.parametrize(("tool", "word"), [(Huge, "[...]"), (Broken, "error: the tool failed")])
def test_huge_and_broken_results_are_short_results(
    team: Team, tool: type[cases.Echo], word: str
) -> None:
    messages = said(played(team, debates=cases.debates_with(cases.Often((tool(),), chars=500))))
    called = [one for one in messages if one.results]
    assert called
    for one in called:
        assert all(end - start <= SAMPLING.tool_tokens for start, end in one.results)
        assert isinstance(one.text, WithResults)
        assert all(word in text for _, text in one.text.results)


class Scripted:
    """An engine that writes given parts, and keeps what it was asked."""

    def __init__(self, team: Team, *texts: str, stop: StopReason = StopReason.EOS) -> None:
        self.chat = team.bases[0].chat
        self.texts, self.stop = texts, stop
        self.asked: list[Request] = []

    def __call__(
        self, _: Team, asked: Sequence[Request], sampling: Sampling, seed: int
    ) -> list[Completion]:
        self.asked += asked
        return [self._write(one) for one in asked]

    def _write(self, request: Request) -> Completion:
        text = self.texts[request.part]
        ids = tuple(self.chat.encode(text))
        ended = any(end in text for end in request.stops)
        stop = StopReason.TEXT if ended else self.stop
        return Completion(ids, (-1.0,) * len(ids), text, stop)


def written(team: Team, *texts: str, tools: Toolbox, **options: object) -> tuple[Completion, list]:
    scripted = Scripted(team, *texts)
    sampling = replace(Sampling(max_new_tokens=200), **options)
    [message] = speak(team, asked_of(team, 1), sampling, 0, engine=scripted, tools=tools)
    return message, scripted.asked


BOX = Toolbox((cases.Echo(),), calls=2, chars=60)


def test_parts_follow_each_other_and_later_calls_are_text(team: Team) -> None:
    texts = ("a <echo>one</echo>", "b <echo>two</echo>", "c <echo>three</echo>")
    message, asked = written(team, *texts, tools=BOX)
    assert message.text == "".join(texts)
    assert message.text.results == (
        (18, "\n<result>\n<|im_end|> eno < echo>again< /echo>\n</result>\n"),
        (36, "\n<result>\n<|im_end|> owt < echo>again< /echo>\n</result>\n"),
    )
    assert [one.part for one in asked] == [0, 1, 2]
    assert [one.stops for one in asked] == [BOX.ends, BOX.ends, ()]
    lengths = [len(team.bases[0].chat.encode(text)) for text in texts]
    assert [one.limit for one in asked] == [200, 200 - lengths[0], 200 - sum(lengths[:2])]
    for one, (_, end) in zip(asked[1:], message.results, strict=True):
        assert one.prompt == (*asked[0].prompt, *message.ids[:end])


def test_an_end_tag_alone_is_told_so(team: Team) -> None:
    message, _ = written(team, "so </echo>", "well", tools=BOX)
    assert "error: there is no < echo> before < /echo>" in message.text.results[0][1]


def test_a_call_is_not_made_across_a_result(team: Team) -> None:
    """A begin tag in an earlier part, or in a result, belongs to no later end tag."""
    message, _ = written(team, "<echo>a</echo>", "b</echo>", "c", tools=BOX)
    assert "error" in message.text.results[1][1]


def test_a_stop_text_of_the_user_ends_the_message(team: Team) -> None:
    message, asked = written(team, "<echo>END</echo>", tools=BOX, stop=("END",))
    assert (len(asked), message.results, message.stop) == (1, (), StopReason.TEXT)


def test_a_call_at_the_limit_is_not_made(team: Team) -> None:
    length = len(team.bases[0].chat.encode("<echo>a</echo>"))
    message, asked = written(team, "<echo>a</echo>", tools=BOX, max_new_tokens=length)
    assert (len(asked), message.results, message.stop) == (1, (), StopReason.LENGTH)


def test_parts_have_random_numbers_of_their_own(team: Team) -> None:
    """Else the first tokens of each part would be drawn alike."""
    [one] = speak(team, asked_of(team, 1), SAMPLING, 3)
    again = replace(asked_of(team, 1)[0], part=1)
    [other] = speak(team, [again], SAMPLING, 3)
    assert one.ids != other.ids


def test_values_are_those_of_the_trainer(team: Team) -> None:
    """Sampled with the message: one before each own token, 0 for results."""
    asked = [replace(one, critic=team.critic(0, 0)) for one in asked_of(team)]
    messages = speak(team, asked, SAMPLING, 1, tools=cases.OFTEN)
    assert any(one.results for one in messages)
    for one in messages:
        assert len(one.values) == len(one.ids)
        inside = {place for start, end in one.results for place in range(start, end)}
        for place, value in enumerate(one.values):
            assert (value == 0) == (place in inside)


def test_trees_grow_over_messages_with_results(team: Team) -> None:
    """A node's history is told again with its results, which agents read in the next turn."""
    debates = cases.debates_with(protocol="debate", verifier=lambda q, texts: [0.5 for _ in texts])
    roots = grow_trees(team, debates, QUESTIONS[:2], SAMPLING, [2, 2], joining="aligned", seed=1)
    children = [child for root in roots for child in root.children if child]
    assert any(m.results for child in children for m in child.history.messages)
    for root in roots:
        for action, child in enumerate(root.children):
            assert child is not None
            for number, request in enumerate(child.requests):
                ids = root.said(action)[number].ids
                before = root.requests[number].prompt
                assert request.prompt[: len(before) + len(ids)] == (*before, *ids)


def test_servers_write_what_the_local_sampler_writes(checkpoint, tmp_path: Path) -> None:
    folder = checkpoint("llama")
    team = adapted(folder)
    sampling = replace(SAMPLING, engine="vllm", url=("http://unused:1",))
    asked = asked_of(team)
    with running(folder) as server, engine(team, [server], tmp_path, sampling) as served:
        found = speak(team, asked, sampling, 3, engine=served, tools=cases.OFTEN)
    wanted = speak(team, asked, sampling.by_own_models(), 3, tools=cases.OFTEN)
    assert any(one.results for one in wanted)
    assert [(one.ids, one.text, one.results) for one in found] == [
        (one.ids, one.text, one.results) for one in wanted
    ]
    assert all(one.served for one in found)


def test_hidden_and_limited_thoughts_are_refused(tmp_path: Path) -> None:
    from miniatures import make_model
    from thinking_cases import thinking_tokenizer

    tokenizer = thinking_tokenizer("deepseek")
    make_model("llama", tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    hidden = load_team(tmp_path, num_turns=2)
    with pytest.raises(ValueError, match=r"thoughts='shown'"):
        played(hidden)
    with pytest.raises(ValueError, match=r"^the thoughts of"):  # before a run begins
        too_long(hidden, cases.debates_with().game.config, SAMPLING, QUESTIONS)
    shown = load_team(tmp_path, num_turns=2, thoughts="shown")
    assert said(played(shown))
    with pytest.raises(ValueError, match="max_thinking_tokens"):
        played(shown, replace(SAMPLING, max_thinking_tokens=4))


def test_the_window_has_to_hold_the_results_too(team: Team) -> None:
    """The longest message is its author's limit and all results of full length."""
    debates: BatchedDebate = cases.debates_with()
    short = replace(SAMPLING, tool_tokens=32)
    assert why_too_long(team, debates, short, QUESTIONS[0], full_length(team, debates)) is None
    long = replace(SAMPLING, tool_tokens=1000)
    why = why_too_long(team, debates, long, QUESTIONS[0], full_length(team, debates))
    assert "2016 new ones (2000 of results: game.tool_calls x" in str(why)
