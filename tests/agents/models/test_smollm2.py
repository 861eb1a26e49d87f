"""SmolLM2-135M-Instruct as `maporl fetch` brings it: its tokenizer, its English, its adapters.

The ids are those of the original tokenizer.json, seen in public tests of other implementations.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from maporl_agents.bridges.speaker import load_speaker
from maporl_agents.config import TeamConfig
from maporl_agents.models.loading import load_model, make_team

pytestmark = pytest.mark.real

KNOWN = {
    "Hello, world!": [19556, 28, 905, 17],
    "The year 2026 had 365 days.": [
        *(504, 713, 216, 34, 32, 34, 38, 761, 216, 35, 38, 37, 2009, 30),
    ],
    "I'm here, they're not  ": [57, 5248, 1535, 28, 502, 2316, 441, 256],
    "naïve café 東京 🙂": [3546, 46494, 37366, 17097, 247, 126, 16736, 122, 47526],
    "   leading and trailing   ": [256, 2899, 284, 35079, 333],
    "x\n\n\ny": [104, 1116, 198, 105],
    "int main() { return 0; }": [591, 1085, 1000, 1662, 1003, 216, 32, 43, 4029],
    "<|im_start|>user\nHi<|im_end|>": [1, 4093, 198, 26843, 2],
}
DIGITS = {"x\n\n1. y": [104, 1116, 33, 30, 329], "a  5": [81, 256, 37]}
"""Digits are cut off first, so what stands before them is one piece: "\\n\\n" is 1116, "  " 256."""

CAPITAL = "What is the capital of France?"
ASKED = [
    *(1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411),
    *(407, 19712, 8182, 2, 198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198),
    *(1, 520, 9531, 198),
]
"""The question in the model's own chat format, after its default system message."""


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(smollm2)


def test_the_tokenizer_is_the_original(tokenizer: PreTrainedTokenizerBase) -> None:
    for text, ids in {**KNOWN, **DIGITS}.items():
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids) == text
    assert len(tokenizer) == 49_152
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == ("<|im_start|>", 1)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<|im_end|>", 2)
    assert (tokenizer.unk_token, tokenizer.unk_token_id) == ("<|endoftext|>", 0)
    assert tokenizer.model_max_length == 8192
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>"} <= special
    assert len(special) == 17
    assert tokenizer.decode([1, 26843, 2], skip_special_tokens=True) == "Hi"


def test_its_chat_is_chatml_with_a_system_message(
    smollm2: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    talk = [{"role": "user", "content": CAPITAL}]
    text = tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        f"<|im_end|>\n<|im_start|>user\n{CAPITAL}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.encode(text) == ASKED
    generation = json.loads((smollm2 / "generation_config.json").read_text())
    assert [generation[f"{role}_token_id"] for role in ("bos", "eos", "pad")] == [1, 2, 2]


def test_it_answers_in_english(smollm2: Path) -> None:
    """Through the check on loading, and as every agent speaks."""
    speaker = load_speaker("smollm2-135m", temperature=0, max_new_tokens=16)
    paris, sky = speaker([CAPITAL, "What colour is the sky on a clear day? One word."])
    assert "The capital of France is Paris" in paris
    assert "blue" in sky.lower()


def test_its_log_probabilities_are_those_of_english(smollm2: Path) -> None:
    model, chat = load_model(str(smollm2), TeamConfig(device="cpu", tuning="none"))
    ids = torch.tensor([chat.encode("The sun rises in the east and sets in the west.")])
    with torch.no_grad():
        log_probs = model(ids).logits[0, :-1].log_softmax(-1)
    mean = log_probs.gather(-1, ids[0, 1:, None]).mean().item()
    assert -3.0 < mean < -1.0, "a damaged weight or another order of rows is far below"


def test_two_agents_share_it_with_adapters(smollm2: Path) -> None:
    """The check on loading compares fresh adapters with peft's own pass."""
    config = TeamConfig(model=("smollm2-135m",), tuning="lora", device="cpu")
    team = make_team(config, num_agents=2, num_turns=2, seed=0)
    assert len(team.bases) == 1
    assert str(team.bases[0].model.dtype) == "torch.float32"
