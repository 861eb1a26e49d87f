"""The learned verifier: what is read where, training, saving, and that it learns at all."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from miniatures import Checkpoint, Native
from torch import Tensor
from verifier_cases import QUESTION, TEXTS, TUNINGS, make, scores, stir

from maporl_agents.cli import main
from maporl_agents.records.storage import CheckpointError
from maporl_agents.verifier import model
from maporl_agents.verifier.config import FitConfig, VerifierConfig
from maporl_agents.verifier.model import LearnedVerifier, Row, length_of
from maporl_agents.verifier.training import accumulate
from maporl_env.prompts import Template

RIGHT = (True, False, False, True)


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
    monkeypatch.setattr(model, "MAX_TOKENS_ON_CPU", 3 * longest)
    assert scores(verifier, texts) == pytest.approx(together, abs=1e-5)
    assert sum(rows for rows, _ in seen) == sum(read) == len(texts)  # one state of each is read
    assert max(rows * width for rows, width in seen) <= 3 * longest
    assert len(seen) < 11  # 10 would be enough for answers that are all as long as the longest
    seen.clear()
    monkeypatch.setattr(model, "MAX_TOKENS_ON_CPU", longest // 2)
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


def test_settings_of_an_adapter_are_refused_where_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command that trains: a verifier that was made with them can still be read."""
    VerifierConfig(lora_rank=4, lora_alpha=8).require_acting()
    VerifierConfig(tuning="full", lora_rank=4)
    flags = ("--tuning", "full", "--lora-alpha", "8")
    with pytest.raises(SystemExit) as stop:
        main(["verifier", "train", str(tmp_path), str(tmp_path / "v"), *flags])
    assert stop.value.code == 2
    assert "lora_alpha=8 would do nothing: tuning='full' has no adapter" in capsys.readouterr().err
