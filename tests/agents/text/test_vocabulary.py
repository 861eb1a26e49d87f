"""Ids with gaps, markers without an embedding, and files that are overruled by a class."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from miniatures import CHAT_TEMPLATE, SENTENCES, make_model, make_tokenizer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from maporl_agents.config import Sampling, TeamConfig
from maporl_agents.models.loading import load_model, make_team
from maporl_agents.play.local_engine import sample
from maporl_agents.text.tokenizer_files import load_tokenizer
from maporl_agents.update.token_logprobs import read_out

CPU = TeamConfig(device="cpu")
ROWS = len(make_tokenizer(template=CHAT_TEMPLATE))


def folder_of(tokenizer: PreTrainedTokenizerFast, folder: Path, *, rows: int = ROWS) -> Path:
    """Write a model of so many embeddings, and a tokenizer."""
    model = make_model("llama", make_tokenizer(), padded_vocabulary=rows - len(make_tokenizer()))
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class TestGaps:
    """The number of tokens is not the largest id."""

    GAP = 30

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A tokenizer whose control tokens stand behind a gap, the EOS token the last."""
        tokenizer = make_tokenizer()
        folder = folder_of(tokenizer, tmp_path, rows=len(tokenizer) + self.GAP + 9)
        file = folder / "tokenizer.json"
        content = json.loads(file.read_text())
        [end] = content["added_tokens"]
        end["id"] = content["model"]["vocab"][end["content"]] = len(tokenizer) + self.GAP
        file.write_text(json.dumps(content))
        return folder

    def test_ids_beyond_the_count_are_sampled_and_gaps_are_not(self, folder: Path) -> None:
        team = make_team(
            TeamConfig(model=(str(folder),), tuning="none", device="cpu"),
            num_agents=1,
            num_turns=1,
            seed=0,
        )
        [base] = team.bases
        end = base.chat.tokenizer.eos_token_id
        assert base.vocab_size == end + 1
        prompts = [(5, 6, 7)] * 64
        policies = [team.policy(0, 0)] * 64
        with torch.no_grad():
            base.model.lm_head.weight.mul_(0.02)  # type: ignore[operator]
        done = sample(team, prompts, policies, Sampling(max_new_tokens=30, temperature=2.0), 0)
        drawn = {i for one in done for i in one.ids}
        known = set(base.chat.tokenizer.get_vocab().values())
        assert end in drawn
        assert drawn <= known
        with torch.no_grad():
            logits = base.model(input_ids=torch.tensor([prompts[0]])).logits[0, -1]
            states = base.hidden(*(torch.ones(1, 2, dtype=torch.long),) * 3, policies[:1])[0]
        expected = (logits[sorted(known)] / 2).log_softmax(-1)[sorted(known).index(done[0].ids[0])]
        assert done[0].logprobs[0] == pytest.approx(float(expected), abs=1e-5)
        for temperature in (1e-3, 1.0, 100.0):
            _, entropy = read_out(base, states, torch.tensor([5, 6]), temperature)
            assert entropy.isfinite().all()


class TestMarkersWithoutEmbedding:
    """As Gemma 3 1B's <image_soft_token>: known to the tokenizer alone."""

    def tokenizer(self, *more: str, **special: str) -> PreTrainedTokenizerFast:
        tokenizer = make_tokenizer(template=CHAT_TEMPLATE)
        tokenizer.add_tokens([AddedToken(text, special=True) for text in more])
        tokenizer.add_special_tokens(special)
        return tokenizer

    def test_one_that_nothing_uses_is_kept_out_of_prompts_and_samples(self, tmp_path: Path) -> None:
        folder = folder_of(self.tokenizer("<image_soft_token>"), tmp_path)
        _, chat = load_model(str(folder), CPU)
        assert chat.vocabulary.size == ROWS
        assert dict(chat.vocabulary.unread) == {ROWS: "<image_soft_token>"}
        ids = chat.prompt_ids((("user", "what is <image_soft_token>?"),))
        assert max(ids) < ROWS
        assert "<image_soft_token>" in chat.decode(ids)

    def test_one_that_pads_is_replaced(self, tmp_path: Path) -> None:
        folder = folder_of(self.tokenizer(pad_token="[PAD]"), tmp_path)
        _, chat = load_model(str(folder), CPU)
        assert chat.tokenizer.pad_token_id == ROWS
        assert chat.pad_id == chat.tokenizer.eos_token_id

    def test_one_that_ends_a_text_is_refused(self, tmp_path: Path) -> None:
        folder = folder_of(self.tokenizer(eos_token="<end>"), tmp_path)
        with pytest.raises(ValueError, match=r"no embedding for the EOS token .*eos_token"):
            load_model(str(folder), CPU)

    def test_one_that_the_template_writes_is_refused(self, tmp_path: Path) -> None:
        tokenizer = self.tokenizer("<turn>")
        tokenizer.chat_template = "<turn>" + CHAT_TEMPLATE
        with pytest.raises(ValueError, match=r"template .* writes '<turn>'.*repair"):
            load_model(str(folder_of(tokenizer, tmp_path)), CPU)


TEXT = "In 2024 there were 1234567 pens (12345).\n\nSo x=(a+b)\n  and 31415926"


def own_rules() -> Tokenizer:
    """A tokenizer that cuts digits by threes, which is no family's class."""
    backend = Tokenizer(models.BPE())
    cuts = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(cuts), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, show_progress=False, initial_alphabet=alphabet)
    backend.train_from_iterator([TEXT, *SENTENCES] * 5, trainer)
    backend.add_special_tokens(["<|endoftext|>"])
    return backend


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("llama", "GPT2Tokenizer"),
        ("llama", "LlamaTokenizerFast"),
        ("qwen2", "Qwen2Tokenizer"),
        ("qwen2", None),
        ("gpt_neox", "GPTNeoXTokenizerFast"),
        ("starcoder2", "GPT2Tokenizer"),
        ("phi", "CodeGenTokenizer"),
        ("cohere2", None),
        ("gemma2", None),
    ],
)
def test_text_is_cut_as_the_file_says(family: str, kind: str | None, tmp_path: Path) -> None:
    """And not by the rules of the class that the settings or the family name."""
    backend = own_rules()
    eos = {"eos_token": "<|endoftext|>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **eos).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(eos | ({"tokenizer_class": kind} if kind else {}))
    )
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family, "vocab_size": 800}))
    tokenizer = load_tokenizer(str(tmp_path))
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert ids == backend.encode(TEXT).ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == TEXT
    assert tokenizer.eos_token == "<|endoftext|>"
    assert len(tokenizer) == backend.get_vocab_size()


def test_a_class_that_agrees_with_the_file_is_kept(tmp_path: Path) -> None:
    """With what it knows by itself, as GPT-2's EOS token in files that do not name it."""
    backend = make_tokenizer()
    backend.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 1024}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 400}))
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.eos_token == "<|endoftext|>"
    assert tokenizer(TEXT)["input_ids"] == backend(TEXT)["input_ids"]
