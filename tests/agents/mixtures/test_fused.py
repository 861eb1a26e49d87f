"""Fusion of teachers: which one is taken, what the loss tends to, and other vocabularies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from miniatures import completion, load_team, make_tokenizer, save_miniature, stir

from maporl_agents.config import OptimizerConfig
from maporl_agents.mixtures.fused import Expected, fuse, in_own_tokens, starts, teach
from maporl_agents.models.team import Team
from maporl_agents.tiny.random_model import save_random_model
from maporl_agents.types import TokenIds
from maporl_agents.update.batching import Row, batch_of
from maporl_agents.update.fusion import fusion_step
from maporl_agents.update.optimiser import PolicyLearner
from maporl_agents.update.token_logprobs import score_candidates, score_tokens, top_candidates

TEXTS: list[tuple[TokenIds, TokenIds]] = [((5, 6, 7), (9, 8, 10)), ((20, 21), (30, 31, 32, 33, 0))]


def rows_of(policy: str, texts=TEXTS) -> list[Row]:
    return [
        Row(prompt, completion(ids), policy, episode, 0, 0, 0.0)
        for episode, (prompt, ids) in enumerate(texts)
    ]


def a_team(folder: Path, seed: int, **settings: object) -> Team:
    team = load_team(folder, num_turns=1, **settings)
    stir(team, seed=seed)
    return team


# -- the choice of a teacher ----------------------------------------------------------------------


def expected(chance_of_token: list[float], other: int) -> Expected:
    """A teacher of one message: its chance of each token 7, and of another token."""
    probs = torch.tensor([[[p, 1 - p] for p in chance_of_token]])
    ids = torch.tensor([[[7, other]] * len(chance_of_token)])
    return Expected(ids, probs, -probs[..., 0].log())


FIRST, SECOND = expected([0.9, 0.2], 1), expected([0.5, 0.5], 2)
TOKENS, MASK = torch.tensor([[7, 7]]), torch.ones(1, 2, dtype=torch.bool)


def fused(fusion="min_ce", per="message", teachers=(FIRST, SECOND)) -> list[dict[int, float]]:
    """The fused distribution of each token, by id."""
    ids, weights = fuse(teachers, TOKENS, MASK, fusion=fusion, per=per)
    found = []
    for names, chances in zip(ids[0].tolist(), weights[0].tolist(), strict=True):
        table: dict[int, float] = {}
        for name, chance in zip(names, chances, strict=True):
            table[name] = table.get(name, 0.0) + chance
        found.append({name: chance for name, chance in table.items() if chance})
    return found


def test_the_lower_cross_entropy_of_the_message_wins() -> None:
    """-log(.9 x .2) = 1.71 is more than -log(.5 x .5) = 1.39."""
    assert fused() == [pytest.approx({7: 0.5, 2: 0.5})] * 2


def test_by_token_each_goes_to_the_teacher_that_expected_it_more() -> None:
    assert fused(per="token") == [
        pytest.approx({7: 0.9, 1: 0.1}),
        pytest.approx({7: 0.5, 2: 0.5}),
    ]


def test_an_average_weighs_by_the_probability_of_the_token() -> None:
    """exp(-cross-entropy) of one token is its probability: weights .9 / 1.4 and .5 / 1.4."""
    one = (0.9 * 0.9 + 0.5 * 0.5) / 1.4
    assert fused("avg_ce", "token")[0] == pytest.approx(
        {7: one, 1: 0.9 * 0.1 / 1.4, 2: 0.5 * 0.5 / 1.4}
    )


def test_where_no_teacher_speaks_the_token_is_the_target() -> None:
    silent = FIRST._replace(cost=torch.tensor([[torch.inf, 0.3]]))
    assert fused(teachers=(silent,))[0] == {7: 1.0}
    both = fused(per="token", teachers=(silent, SECOND))
    assert both == [pytest.approx({7: 0.5, 2: 0.5}), pytest.approx({7: 0.2, 1: 0.8})]


def test_weights_add_up_to_one_inside_the_mask() -> None:
    mask = torch.tensor([[True, False]])
    for fusion in ("min_ce", "avg_ce"):
        _, weights = fuse([FIRST, SECOND], TOKENS, mask, fusion=fusion)  # type: ignore[arg-type]
        torch.testing.assert_close(weights.sum(-1), torch.tensor([[1.0, 0.0]]))


@pytest.mark.parametrize(
    ("options", "complaint"), [({"fusion": "max"}, "min_ce, avg_ce"), ({"per": "word"}, "per")]
)
def test_wrong_ways_are_refused(options: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        fuse([FIRST], TOKENS, MASK, **options)  # type: ignore[arg-type]


def test_the_loss_is_least_at_the_share_of_the_token_and_the_rest_of_the_teacher() -> None:
    """Tabular: the optimum is share * onehot + (1 - share) * F."""
    target, share = torch.tensor([0.5, 0.3, 0.2]), 0.9
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.05)
    for _ in range(2000):
        logprobs = logits.log_softmax(0)
        loss = -share * logprobs[0] - (1 - share) * (target * logprobs).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    best = share * torch.tensor([1.0, 0.0, 0.0]) + (1 - share) * target
    torch.testing.assert_close(logits.softmax(0).float(), best, atol=1e-4, rtol=0)


# -- with models ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_candidates_are_scored_as_the_plain_model_does(checkpoint, tuning: str) -> None:
    team = a_team(checkpoint("llama"), 1, tuning=tuning)
    batch = batch_of(team, rows_of("agent_1"))
    ids, logprobs, of_tokens = top_candidates(team, batch, 4, temperature=1.0)
    for row, (prompt, text) in enumerate(TEXTS):
        whole = torch.tensor((*prompt, *text))
        base = team.base_of("agent_1")
        with torch.no_grad():
            plain = base.plain_logits(whole, "agent_1")[len(prompt) - 1 : -1].log_softmax(-1)
        best = plain.topk(4, dim=-1)
        assert torch.equal(ids[row, : len(text)], best.indices)
        torch.testing.assert_close(logprobs[row, : len(text)], best.values, atol=1e-5, rtol=1e-5)
        own = plain[torch.arange(len(text)), torch.tensor(text)]
        torch.testing.assert_close(of_tokens[row, : len(text)], own, atol=1e-5, rtol=1e-5)
    again = score_candidates(team, batch, ids, temperature=1.0)
    torch.testing.assert_close(again, logprobs, atol=1e-5, rtol=1e-5)
    assert not of_tokens[~batch.mask].any()


def test_scores_in_chunks_have_the_same_gradient(checkpoint, monkeypatch) -> None:
    gradients = []
    for chunk in (2**25, 1):
        monkeypatch.setattr("maporl_agents.update.read_out.CHUNK", chunk)
        team = a_team(checkpoint("llama"), 1, tuning="lora", double=True)
        batch = batch_of(team, rows_of("agent_0"))
        asked = batch.ids[..., None] + torch.tensor([0, 1, 2])
        found = score_candidates(team, batch, asked, temperature=0.7)
        (found * found).sum().backward()
        owned = team.trainable()["agent_0"].values()
        gradients.append(torch.cat([p.grad.flatten() for p in owned if p.grad is not None]))
    torch.testing.assert_close(*gradients, atol=1e-9, rtol=1e-9)


def test_a_share_of_one_is_imitation_and_a_share_of_nought_the_teacher_alone(checkpoint) -> None:
    student = a_team(checkpoint("llama"), 1, tuning="lora")
    teacher = a_team(checkpoint("llama"), 2, tuning="lora")
    messages = teach(student, rows_of("agent_0"), [(teacher, rows_of("agent_1"))], top=500)
    learner = PolicyLearner(student, OptimizerConfig(learning_rate=1e-3, warmup_steps=0), 10)
    with torch.no_grad():
        scores = score_tokens(student, messages.batch, temperature=1.0).logprobs
    nll = float(-scores.sum() / messages.batch.mask.sum())
    first = fusion_step(learner, messages, share=1.0, micro_tokens=99)
    assert first["loss"] == pytest.approx(nll, abs=1e-5)
    assert first["nll"] == pytest.approx(nll, abs=1e-5)
    with pytest.raises(ValueError, match="share of the given tokens"):
        fusion_step(learner, messages, share=1.5, micro_tokens=99)


def test_a_student_takes_over_what_its_teacher_expects(checkpoint) -> None:
    """With no share for the text, the cross-entropy falls to the teacher's entropy."""
    student = a_team(checkpoint("llama"), 1, tuning="full")
    teacher = a_team(checkpoint("llama"), 2, tuning="lora")
    messages = teach(student, rows_of("agent_0"), [(teacher, rows_of("agent_1"))], top=3)
    learner = PolicyLearner(student, OptimizerConfig(learning_rate=1e-2, warmup_steps=0), 200)
    before = {name: p.clone() for name, p in teacher.trainable()["agent_1"].items()}
    losses = [
        fusion_step(learner, messages, share=0.0, micro_tokens=99)["fused"] for _ in range(40)
    ]
    weights = messages.weights[messages.batch.mask]
    entropy = float(torch.special.entr(weights).sum(-1).mean())
    assert losses[0] > entropy + 1
    assert losses[-1] < entropy + 0.2
    assert all(torch.equal(before[n], p) for n, p in teacher.trainable()["agent_1"].items())


def test_passes_change_nothing(checkpoint) -> None:
    found = []
    for micro_tokens in (8, 10_000):
        student = a_team(checkpoint("llama"), 1, tuning="lora")
        teacher = a_team(checkpoint("llama"), 2, tuning="lora")
        messages = teach(student, rows_of("agent_0"), [(teacher, rows_of("agent_1"))], top=3)
        learner = PolicyLearner(student, OptimizerConfig(learning_rate=1e-3, warmup_steps=0), 10)
        found.append(fusion_step(learner, messages, share=0.5, micro_tokens=micro_tokens))
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_a_teacher_may_read_another_prompt(checkpoint) -> None:
    student = a_team(checkpoint("llama"), 1, tuning="lora")
    longer = [((11, 12, *prompt), ids) for prompt, ids in TEXTS]
    both = [
        teach(student, rows_of("agent_0"), [(student, rows_of("agent_1", texts))], top=3)
        for texts in (TEXTS, longer)
    ]
    assert both[0].batch.prompts == both[1].batch.prompts
    assert not torch.allclose(both[0].weights, both[1].weights)


def test_another_vocabulary_speaks_where_tokens_begin_together(checkpoint, tmp_path: Path) -> None:
    """A teacher with shorter tokens: each of the student's that begins where one of its does."""
    short = make_tokenizer(size=270)
    folder = save_miniature(tmp_path / "short", "llama", short)
    student, teacher = a_team(checkpoint("llama"), 1), a_team(folder, 2)
    pupil, chat = student.bases[0].chat, teacher.bases[0].chat
    text = "the sum of 3 and 4 is 7"
    ids = (*pupil.encode(text), pupil.end_id or 0)
    rows = [Row((5, 6), completion(ids, text=text), "agent_0", 0, 0, 0, 0.0)]
    own = [Row((5, 6), completion((0,)), "agent_0", 0, 0, 0, 0.0)]
    in_own = in_own_tokens(rows[0], pupil, chat)
    assert chat.decode(in_own.ids[:-1]) == text
    assert in_own.ids[-1] == chat.end_id
    assert len(in_own.ids) > len(ids)
    messages = teach(student, rows, [(teacher, own)], top=5)
    shared = set(starts(pupil, ids)) & set(starts(chat, in_own.ids))
    silent = messages.weights[0, :, -1]  # the token itself is the target
    assert [float(x) for x in silent] == [
        float(start not in shared) for start in starts(pupil, ids)
    ]
    torch.testing.assert_close(messages.weights.sum(-1), torch.ones(1, len(ids)))
    assert int(messages.ids.max()) < student.bases[0].vocab_size


@pytest.mark.parametrize("words_teach", [True, False])
def test_a_teachers_token_is_the_text_that_it_adds(tmp_path: Path, words_teach: bool) -> None:
    """Tokens that are words, with spaces between them, and tokens that hold the space before."""
    text = "3 * 6 = 18 , 2 * 8 = 16"
    save_random_model(tmp_path / "words", [text, "10 34"], seed=0)
    pieces = make_tokenizer(corpus=[f"{text} 10 34"] * 9, size=300)
    save_miniature(tmp_path / "pieces", "llama", pieces)
    words, other = (a_team(tmp_path / name, 1) for name in ("words", "pieces"))
    student, teacher = (other, words) if words_teach else (words, other)
    pupil, chat = student.bases[0].chat, teacher.bases[0].chat
    ids = (*pupil.encode(text), pupil.end_id or 0)
    assert pupil.decode(ids[:-1]) == text
    row = Row((5, 6), completion(ids, text=text), "agent_0", 0, 0, 0, 0.0)
    read = in_own_tokens(row, pupil, chat)
    found = teach(student, [row], [(teacher, [row._replace(completion=completion((0,)))])], top=40)
    begun = starts(chat, read.ids)
    for place, start in enumerate(starts(pupil, ids)[:-1]):
        before = read.ids[: begun.index(start)]
        vocabulary = range(teacher.bases[0].vocab_size)
        meant = [chat.decode((*before, token))[start:] for token in vocabulary]
        for token, weight in zip(found.ids[0, place], found.weights[0, place], strict=True):
            if weight > 0 and int(token) not in pupil.stop_ids:
                said = pupil.decode((*ids[:place], int(token)))[start:]
                if words_teach:
                    assert said.startswith(" ") == bool(place), (place, said)
                else:  # " 6" of a piece is the word 6, and nothing is an unknown word
                    assert said.strip() != "<unk>", place
                    said, meant = said.strip(), [one.strip() for one in meant]
                assert any(one.startswith(said) for one in meant), (place, said)


@pytest.mark.parametrize(
    ("teachers", "options", "complaint"),
    [(0, {}, "at least one message and one teacher"), (1, {"top": 0}, "top must be at least 1")],
)
def test_what_cannot_be_taught_is_refused(checkpoint, teachers, options, complaint) -> None:
    team = a_team(checkpoint("llama"), 1, tuning="lora")
    given = [(team, rows_of("agent_1"))] * teachers
    with pytest.raises(ValueError, match=complaint):
        teach(team, rows_of("agent_0"), given, **options)
    with pytest.raises(ValueError, match="1 rows for 2 messages"):
        teach(team, rows_of("agent_0"), [(team, rows_of("agent_1")[:1])])
