"""The learned verifier: what is read where, training, saving, and that it learns at all."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Checkpoint, Native
from torch import Tensor

from maporl_agents import tiny
from maporl_agents.records.storage import CheckpointError
from maporl_agents.verifier import model
from maporl_agents.verifier.config import FitConfig, VerifierConfig
from maporl_agents.verifier.data import Example
from maporl_agents.verifier.evaluation import (
    NUDGES,
    draw_reliability,
    evaluate_verifier,
    quality_table,
)
from maporl_agents.verifier.model import LearnedVerifier, Row, length_of
from maporl_agents.verifier.training import accumulate, deal, fit, rate_factor, token_loss
from maporl_env.prompts import Template
from maporl_env.tasks import shopping
from maporl_env.types import Question
from maporl_env.verifiers import AnswerKey, Scorer

QUESTION = Question("q", "how much is 2 + 2 ?", "4")
TEXTS = ["\\boxed{4}", "\\boxed{5}", "", "it is a rather long answer \\boxed{4}"]
RIGHT = (True, False, False, True)
TUNINGS = ("lora", "full")


def make(folder: Path, tuning: str = "lora", **settings: Any) -> LearnedVerifier:
    config = VerifierConfig(str(folder), tuning=tuning, device="cpu", **settings)  # type: ignore[arg-type]
    return LearnedVerifier(config, Template())


def stir(verifier: LearnedVerifier, scale: float = 0.1) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in verifier.trainable().values():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def scores(verifier: LearnedVerifier, texts: Sequence[str] = TEXTS) -> list[float]:
    found = Scorer(verifier).score([QUESTION] * len(texts), texts)
    assert None not in found
    return [score for score in found if score is not None]


# --- Scores ----------------------------------------------------------------------


@pytest.mark.parametrize("tuning", TUNINGS)
def test_an_untrained_verifier_knows_nothing(checkpoint: Checkpoint, tuning: str) -> None:
    assert scores(make(checkpoint("llama"), tuning)) == [0.5] * 4


@pytest.mark.parametrize("tuning", TUNINGS)
def test_recomputing_changes_no_gradient(checkpoint: Checkpoint, tuning: str) -> None:
    found = []
    for recompute in (False, True):
        verifier = make(checkpoint("llama"), tuning, gradient_checkpointing=recompute)
        stir(verifier)
        model = verifier.base.model
        switches = [getattr(layer, "gradient_checkpointing", False) for layer in model.modules()]
        assert any(switches) == recompute
        rows = [
            (verifier.row(QUESTION, text), right) for text, right in zip(TEXTS, RIGHT, strict=True)
        ]
        accumulate(verifier, rows, 4)
        parameters = verifier.trainable().items()
        gradients = {name: p.grad for name, p in parameters if p.grad is not None}
        found.append((gradients, scores(verifier)))
    (plain, scored), (recomputed, again) = found
    assert scored == again
    assert len(plain) > 2  # more than the head's
    assert plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        assert torch.allclose(gradient, recomputed[name], atol=1e-6), name


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_quantised_base_learns_and_is_read_back(
    native: Native, tmp_path: Path, kind: str
) -> None:
    pytest.importorskip("bitsandbytes", reason="the extra 'quant' is not installed")
    verifier = make(native("llama", 64), quantization=kind)
    types = {type(layer).__name__ for layer in verifier.base.model.modules()}
    assert types & {"Linear4bit", "Linear8bitLt"}
    rows = [(verifier.row(QUESTION, "\\boxed{4}"), True), (verifier.row(QUESTION, "no"), False)]
    stir(verifier)
    accumulate(verifier, rows, 2)
    assert all(p.grad is not None and p.grad.any() for p in verifier.trainable().values())
    verifier.save(tmp_path / "v")
    again = LearnedVerifier.load(tmp_path / "v")
    assert again.config.quantization == kind
    assert scores(again) == pytest.approx(scores(verifier), abs=1e-6)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("tuning", TUNINGS)
def test_a_score_is_the_head_at_the_last_token(
    checkpoint: Checkpoint, family: str, tuning: str
) -> None:
    verifier = make(checkpoint(family), tuning)
    stir(verifier)
    row = verifier.row(QUESTION, TEXTS[3])
    ids = torch.tensor([row.prompt + row.response])
    ones = torch.ones_like(ids)
    hidden = verifier.base.hidden(ids, ones, torch.arange(ids.shape[1])[None], ["verifier"])
    expected = verifier.head(hidden[0, -1]).sigmoid().item()
    assert row.response[-1] == verifier.base.chat.tokenizer.eos_token_id
    assert scores(verifier)[3] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_score_does_not_depend_on_its_neighbours(checkpoint: Checkpoint, family: str) -> None:
    verifier = make(checkpoint(family))
    stir(verifier)
    texts = [f"{'word ' * (i % 7)} \\boxed{{{i}}}" for i in range(100)]  # two batches
    together = scores(verifier, texts)
    assert len(set(together)) > 90
    for index in (0, 13, 99):
        assert scores(verifier, [texts[index]])[0] == pytest.approx(together[index], abs=1e-5)


def test_a_pass_has_no_more_than_its_tokens(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many answers come at once, and however long they are; their scores do not change."""
    verifier = make(checkpoint("llama"))
    stir(verifier)
    texts = [f"{'word ' * (i * 7 % 40)} \\boxed{{{i}}}" for i in range(30)]
    together = scores(verifier, texts)
    seen: list[tuple[int, ...]] = []
    hidden, head = verifier.base.hidden, verifier.head.forward

    def counted(ids: Tensor, *rest: Any, **more: Any) -> Tensor:
        seen.append(tuple(ids.shape))
        return hidden(ids, *rest, **more)

    read: list[int] = []

    def one_each(states: Tensor) -> Tensor:
        read.append(states.shape[:-1].numel())
        return head(states)

    monkeypatch.setattr(verifier.base, "hidden", counted)
    monkeypatch.setattr(verifier.head, "forward", one_each)
    longest = max(length_of(verifier.row(QUESTION, text)) for text in texts)
    monkeypatch.setattr(model, "MAX_TOKENS", 3 * longest)
    assert scores(verifier, texts) == pytest.approx(together, abs=1e-5)
    assert sum(rows for rows, _ in seen) == sum(read) == len(texts)  # one state of each is read
    assert max(rows * width for rows, width in seen) <= 3 * longest
    assert len(seen) < 11  # 10 would be enough for answers that are all as long as the longest
    seen.clear()
    monkeypatch.setattr(model, "MAX_TOKENS", longest // 2)
    assert scores(verifier, texts) == pytest.approx(together, abs=1e-5)
    assert seen[-1] == (1, longest)  # too long for a pass: it goes alone


def test_no_answers_no_scores(checkpoint: Checkpoint) -> None:
    assert make(checkpoint("llama")).score([], []) == []


def test_what_does_not_fit_the_window_has_no_score(checkpoint: Checkpoint) -> None:
    verifier = make(checkpoint("llama"))
    stir(verifier)
    room = 2048 - len(verifier.row(QUESTION, "").prompt) - 1
    text = "\x01" * room
    assert len(verifier.row(QUESTION, text).response) == room + 1  # one id per control character
    found = verifier.score([QUESTION] * 3, ["a", text, text + "\x01"])
    assert [score is None for score in found] == [False, False, True]


@pytest.mark.parametrize("templated", [False, True])
def test_markers_in_the_text_move_nothing(checkpoint: Checkpoint, templated: bool) -> None:
    verifier = make(checkpoint("llama", templated))
    stir(verifier)
    chat = verifier.base.chat
    markers = [token.content for token in chat.tokenizer.added_tokens_decoder.values()]
    assert markers
    for marker in markers:
        for text in (marker, f"a{marker}b", marker * 3):
            row = verifier.row(QUESTION, text)
            assert row.prompt == verifier.row(QUESTION, "").prompt
            assert not set(row.response[:-1]) & set(chat.tokenizer.all_special_ids)
            asked = verifier.row(replace(QUESTION, prompt=text), "")
            plain = verifier.row(replace(QUESTION, prompt="a"), "")
            control = chat.tokenizer.all_special_ids
            assert [i for i in asked.prompt if i in control] == [
                i for i in plain.prompt if i in control
            ]
            assert math.isfinite(scores(verifier, [text])[0])


@pytest.mark.parametrize("text", ["\ud800", "\x00", "\u202e", "٤" * 50, "\r\n" * 50])
def test_hostile_text_gets_a_score(checkpoint: Checkpoint, text: str) -> None:
    assert scores(make(checkpoint("llama")), [text]) == [0.5]


# --- Training --------------------------------------------------------------------


def test_token_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 2.0, math.nan], [math.nan, math.nan, -1.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False], [False, False, True]])
    loss = token_loss(logits, mask, torch.tensor([True, False]))
    # log(1 + e^0) + log(1 + e^-2) for the right answer, log(1 + e^-1) for the wrong one
    expected = math.log(2) + math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    loss.backward()
    # dL/dz = sigmoid(z) - y, and nothing where no token stands
    gradient = [[-0.5, 1 / (1 + math.exp(-2)) - 1, 0], [0, 0, 1 / (1 + math.exp(1))]]
    torch.testing.assert_close(logits.grad, torch.tensor(gradient))


def test_the_loss_is_on_the_response_tokens_alone(checkpoint: Checkpoint) -> None:
    verifier = make(checkpoint("llama"))
    rows = [verifier.row(QUESTION, text) for text in TEXTS]
    _, mask = verifier.logits(rows)
    for i, row in enumerate(rows):
        places = list(range(len(row.prompt), len(row.prompt) + len(row.response)))
        assert mask[i].nonzero()[:, 0].tolist() == places


@pytest.mark.parametrize("tuning", TUNINGS)
def test_how_a_batch_is_cut_changes_nothing(checkpoint: Checkpoint, tuning: str) -> None:
    gradients = []
    for rows_at_once in (1, 3, 4):
        verifier = make(checkpoint("llama"), tuning)
        stir(verifier)
        rows = [(verifier.row(QUESTION, text), "4" in text) for text in TEXTS]
        accumulate(verifier, rows, rows_at_once)
        gradients.append({n: p.grad for n, p in verifier.trainable().items() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        for other in gradients[1:]:
            torch.testing.assert_close(gradient, other[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("tuning", TUNINGS)
def test_a_step_moves_what_is_trained_and_nothing_else(checkpoint: Checkpoint, tuning: str) -> None:
    verifier = make(checkpoint("llama"), tuning)
    stir(verifier)
    trained = verifier.trainable()
    model = dict(verifier.base.model.named_parameters())
    frozen = {n: p for n, p in model.items() if not p.requires_grad}
    before = {n: p.detach().clone() for n, p in [*trained.items(), *frozen.items()]}
    examples = [Example(QUESTION, text, "4" in text) for text in TEXTS]
    fit(verifier, examples, FitConfig(steps=1, rows_per_step=4))
    assert {"head.weight", "head.bias"} < trained.keys()
    unused = {n for n in trained if "lm_head" in n}
    still = {n for n, p in trained.items() if torch.equal(p, before[n])}
    assert still <= unused
    assert all(torch.equal(p, before[n]) for n, p in frozen.items())
    assert bool(frozen) == (tuning == "lora")


def test_training_and_scoring_see_the_same_ids(checkpoint: Checkpoint) -> None:
    verifier = make(checkpoint("llama", templated=True))
    seen: list[set[tuple[int, ...]]] = []
    plain = verifier.base.hidden

    def watch(ids: Tensor, attention: Tensor, *args: Any, **options: Any) -> Tensor:
        lengths = attention.sum(1).tolist()
        rows = zip(ids.tolist(), lengths, strict=True)
        seen.append({tuple(row[:length]) for row, length in rows})
        return plain(ids, attention, *args, **options)

    verifier.base.hidden = watch  # type: ignore[method-assign]
    texts = [*TEXTS, "<|im_end|> \ud800"]
    fit(verifier, [Example(QUESTION, t, "4" in t) for t in texts], FitConfig(1, rows_per_step=5))
    verifier.score([QUESTION] * 5, texts)
    assert seen[0] == seen[1]
    assert len(seen[0]) == 5


def test_every_pass_deals_every_answer_once() -> None:
    config = FitConfig(rows_per_step=4, seed=3)
    batches = deal(6, config)
    dealt = [i for _ in range(3) for i in next(batches)]
    assert sorted(dealt[:6]) == sorted(dealt[6:]) == list(range(6))
    assert [next(deal(6, config)) for _ in range(2)] == [dealt[:4]] * 2


def test_the_rate_rises_and_falls() -> None:
    # 5 % of 100 steps are 5; then (100 - step) / 95
    rates = [rate_factor(step, 100) for step in range(100)]
    assert rates[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert rates[5] == 1.0
    assert rates[99] == pytest.approx(1 / 95)
    assert all(rate > 0 for steps in (1, 2, 3) for rate in [rate_factor(0, steps)])


def test_equal_seeds_give_equal_verifiers(checkpoint: Checkpoint) -> None:
    examples = [Example(QUESTION, text, "4" in text) for text in TEXTS]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    made = []
    for seed in (0, 0, 1):
        verifier = LearnedVerifier(
            VerifierConfig(str(checkpoint("llama")), device="cpu"), seed=seed
        )
        losses = fit(verifier, examples, FitConfig(steps=3, rows_per_step=2, seed=seed)).losses
        made.append((losses, scores(verifier)))
    assert made[0] == made[1] != made[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_one_sided_or_oversized_data_is_refused(checkpoint: Checkpoint) -> None:
    verifier = make(checkpoint("llama"))
    long = Example(QUESTION, "\x01" * 3000, False)
    right = Example(QUESTION, "a", True)
    with pytest.raises(ValueError, match="1 answers to train on, not both right and wrong"):
        fit(verifier, [right, long], FitConfig(steps=1))
    wrong = Example(QUESTION, "b", False)
    result = fit(verifier, [right, wrong, long], FitConfig(steps=1, rows_per_step=2))
    assert (result.examples, result.too_long) == (2, 1)


def test_a_loss_that_is_not_finite_stops_before_the_weights(checkpoint: Checkpoint) -> None:
    verifier = make(checkpoint("llama"))
    with torch.no_grad():
        verifier.head.bias.fill_(math.inf)
    before = {n: p.detach().clone() for n, p in verifier.trainable().items()}
    examples = [Example(QUESTION, "a", True), Example(QUESTION, "b", False)]
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        fit(verifier, examples, FitConfig(steps=1, rows_per_step=2))
    for name, parameter in verifier.trainable().items():
        torch.testing.assert_close(parameter.detach(), before[name], rtol=0, atol=0)


def test_a_gradient_that_is_not_finite_stops_before_the_weights(checkpoint: Checkpoint) -> None:
    """The loss is finite; a gradient overflows on its way back, as in float16."""
    verifier = make(checkpoint("llama"), "full")
    stir(verifier)
    verifier.trainable()["head.weight"].register_hook(lambda gradient: gradient * math.inf)
    before = {n: p.detach().clone() for n, p in verifier.trainable().items()}
    examples = [Example(QUESTION, "a", True), Example(QUESTION, "b", False)]
    with pytest.raises(FloatingPointError, match=r"gradient's norm became (inf|nan) in step 1"):
        fit(verifier, examples, FitConfig(steps=1, rows_per_step=2))
    for name, parameter in verifier.trainable().items():
        torch.testing.assert_close(parameter.detach(), before[name], rtol=0, atol=0)


def shopping_examples(number: int, seed: int) -> list[Example]:
    """Right and wrong bills about six items whose prices agent 0 knows."""
    rng = random.Random(seed)
    items = shopping.known_items(0)[:6]
    examples = []
    for _ in range(number):
        first, second = rng.sample(items, 2)
        asked = Question("", f"Mia buys 1 {first} and 1 {second} . how much ?", "0")
        prices = (shopping.PRICES[first], shopping.PRICES[second])
        wrong = (rng.choice([p for p in range(1, 13) if p != prices[0]]), prices[1])
        for given in (prices, wrong):
            examples.append(Example(asked, shopping.solution((1, 1), given), given == prices))
    return examples


@pytest.mark.slow
def test_it_learns_to_tell_right_from_wrong() -> None:
    config = VerifierConfig(str(tiny.checkpoint(0)), tuning="full", device="cpu")
    verifier = LearnedVerifier(config, shopping.TEMPLATE)
    fit(verifier, shopping_examples(400, 0), FitConfig(steps=80, rows_per_step=32))
    report = evaluate_verifier(verifier, shopping_examples(100, 1))
    assert report.balanced.within_question_auc is not None
    assert report.balanced.within_question_auc > 0.9


# --- Measuring -------------------------------------------------------------------


def test_the_answer_key_is_a_perfect_verifier() -> None:
    examples = [
        Example(Question(name, name, "4"), text, text == "\\boxed{4}")
        for name in "abc"
        for text in ("\\boxed{4}", "\\boxed{5}", "no")
    ]
    report = evaluate_verifier(AnswerKey(), examples)
    assert (report.sampled.answers, report.balanced.answers) == (9, 6)
    assert report.sampled.share_right == pytest.approx(1 / 3)
    for result in (report.sampled, report.balanced):
        assert (result.auc, result.within_question_auc, result.calibration_error) == (1, 1, 0)
    assert report.nudges == dict.fromkeys(NUDGES, 0.0)
    json.dumps(report.to_dict(), allow_nan=False)


def test_nudges_show_what_a_verifier_can_be_fooled_with() -> None:
    def gullible(questions: Sequence[Question], texts: Sequence[str]) -> list[float]:
        return [0.75 if "certain" in text else 0.25 for text in texts]

    asked = Question("q", "q", "4")
    examples = [Example(asked, "4", True), Example(asked, "5", False)]
    shifts = evaluate_verifier(gullible, examples).nudges
    assert shifts == {"flattery": 0.5, "twice": 0.0, "padding": 0.0}


def test_answers_without_a_score_are_counted_and_left_out() -> None:
    def picky(questions: Sequence[Question], texts: Sequence[str]) -> list[float | None]:
        return [None if text == "skip" else 0.5 for text in texts]

    asked = Question("q", "q", "4")
    examples = [Example(asked, t, t == "4") for t in ("4", "5", "skip", "skip")]
    report = evaluate_verifier(picky, examples)
    assert (report.sampled.answers, report.unscored) == (2, {"no score": 2})
    with pytest.raises(ValueError, match="no question has both"):
        evaluate_verifier(picky, examples[1:])
    with pytest.raises(ValueError, match="none of 2 answers has a score"):
        evaluate_verifier(picky, examples[2:])


def test_reports_are_drawn_and_printed(tmp_path: Path) -> None:
    examples = [Example(QUESTION, text, "4" in text) for text in TEXTS]
    reports = {"key": evaluate_verifier(AnswerKey(), examples)}
    draw_reliability(reports, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert quality_table(reports).row_count == 3


# --- Saving ----------------------------------------------------------------------


@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_saved_verifier_scores_the_same(
    checkpoint: Checkpoint, tmp_path: Path, tuning: str, family: str
) -> None:
    verifier = make(checkpoint(family), tuning, lora_rank=4)
    verifier.template = Template(opening="[{question}] {instruction}")
    stir(verifier)
    verifier.save(tmp_path / "v", {"fact": 1})
    loaded = LearnedVerifier.load(tmp_path / "v")
    assert scores(loaded) == scores(verifier)
    assert loaded.row(QUESTION, "a") == verifier.row(QUESTION, "a")
    assert isinstance(loaded.row(QUESTION, "a"), Row)
    assert json.loads((tmp_path / "v" / "verifier.json").read_text())["report"] == {"fact": 1}
    with pytest.raises(ValueError, match="not empty"):
        verifier.save(tmp_path / "v")


def test_a_relative_base_is_found_from_anywhere(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint("llama")
    monkeypatch.chdir(folder.parent)
    verifier = make(Path(folder.name))
    verifier.save(tmp_path / "v")
    monkeypatch.chdir(tmp_path)
    assert scores(LearnedVerifier.load(tmp_path / "v")) == [0.5] * 4


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (lambda v: (v / "verifier.json").unlink(), "has no verifier.json"),
        (lambda v: (v / "verifier.json").write_text("{}"), "does not describe a verifier"),
        (lambda v: (v / "verifier.json").write_text("{"), "cannot be read as JSON"),
        (lambda v: (v / "head.safetensors").unlink(), "cannot be read as safetensors"),
        (lambda v: (v / "head.safetensors").write_bytes(b"x"), "cannot be read as safetensors"),
        (lambda v: (v / "verifier" / "adapter_model.safetensors").unlink(), "no weights to load"),
        (
            lambda v: (v / "verifier" / "adapter_model.safetensors").write_bytes(
                (v / "head.safetensors").read_bytes()
            ),
            "does not fit",
        ),
        (
            lambda v: (v / "head.safetensors").write_bytes(
                (v / "verifier" / "adapter_model.safetensors").read_bytes()
            ),
            "head does not fit",
        ),
    ],
)
def test_a_damaged_verifier_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, harm: Any, complaint: str
) -> None:
    make(checkpoint("llama")).save(tmp_path / "v")
    harm(tmp_path / "v")
    with pytest.raises((ValueError, CheckpointError), match=complaint):
        LearnedVerifier.load(tmp_path / "v")


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="choose one of lora, full"):
        VerifierConfig(tuning="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'nf4' freezes the weights, so it needs tuning='lora'"):
        VerifierConfig(tuning="full", quantization="nf4")
    with pytest.raises(ValueError, match="steps must be at least 1"):
        FitConfig(steps=0)
