"""The built-in model: its tokenizer, its initialisation, what its pre-training takes loss on."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from maporl_agents.text.chat import Chat
from maporl_agents.tiny import MODELS, WEIGHTS, checkpoint
from maporl_agents.tiny.pretrain import PretrainConfig, batches, make_model, rate
from maporl_agents.tiny.tokenizer import make_tokenizer
from maporl_env.protocols import SimultaneousDebate
from maporl_env.tasks import shopping
from maporl_env.types import Message, Transcript


class TestTokenizer:
    def test_it_knows_every_word_of_the_task(self) -> None:
        tokenizer = make_tokenizer()
        task = shopping.load()
        protocol = SimultaneousDebate(template=shopping.TEMPLATE, reward_feedback=True)
        for question in task.split("test")[:50]:
            history = Transcript(question, ("agent_0", "agent_1"))
            for turn in range(2):
                text = shopping.solution((3, 3), (12, 12))
                history = history.publish(Message(turn, f"agent_{i}", text, 1.0) for i in range(2))
            for role, text in protocol.view("agent_0", history):
                assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"], (role, text)

    @pytest.mark.parametrize("model", MODELS)
    def test_it_numbers_the_words_as_the_shipped_models_do(self, model: str) -> None:
        for agent in range(len(MODELS[model])):
            shipped = AutoTokenizer.from_pretrained(checkpoint(agent, model))
            assert make_tokenizer(model).get_vocab() == shipped.get_vocab()

    def test_a_solution_comes_back_from_its_ids(self) -> None:
        chat = Chat(make_tokenizer())
        text = shopping.solution((3, 2), (6, 8))
        assert chat.decode((*chat.encode(text), chat.tokenizer.eos_token_id)) == text

    def test_no_text_becomes_a_control_token(self) -> None:
        chat = Chat(make_tokenizer())
        control = {chat.tokenizer.eos_token_id, chat.tokenizer.pad_token_id}
        for text in ("<eos>", "<pad> <eos>", "3<eos>4", " <eos> ", "<unk>"):
            assert not control & set(chat.encode(text))


class TestModel:
    def test_the_seed_alone_names_the_weights(self) -> None:
        tokenizer = make_tokenizer()
        before = torch.get_rng_state()
        first, second, other = (make_model(tokenizer, seed) for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), before)
        for name, weight in first.state_dict().items():
            assert torch.equal(weight, second.state_dict()[name])
        assert not torch.equal(first.lm_head.weight, other.lm_head.weight)

    def test_the_shipped_weights_are_small_and_fit_the_tokenizer(self) -> None:
        if not WEIGHTS.is_dir():
            pytest.skip("no weights yet: python -m maporl_agents.tiny.pretrain makes them")
        files = [checkpoint(seat) / "model.safetensors" for seat in (0, 1, 2)]
        assert files[0] == files[2] != files[1]
        assert sum(file.stat().st_size for file in files[:2]) < 2_000_000


class TestPretraining:
    def test_loss_is_taken_on_a_suffix_of_real_tokens_that_ends_a_message(self) -> None:
        tokenizer = make_tokenizer()
        states = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # noqa: NPY002
        data = batches(PretrainConfig(tokens_per_step=512), Chat(tokenizer), 0)
        for ids, labels in (group for _ in range(3) for group in next(data)):
            assert ids.shape == labels.shape
            for row, targets in zip(ids, labels, strict=True):
                real = int((row != tokenizer.pad_token_id).sum())
                learnt = (targets != -100).nonzero()[:, 0]
                assert torch.equal(row[learnt], targets[learnt])
                assert learnt[-1] == real - 1
                assert row[learnt[-1]] == tokenizer.eos_token_id
                assert learnt.tolist() == list(range(int(learnt[0]), real))
                assert learnt[0] > 0  # the question is given
        assert random.getstate() == states[0]
        assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), states[2])

    def test_the_rate_warms_up_stays_falls_and_cools_down(self) -> None:
        config = PretrainConfig(steps=1000, cool_down_steps=100)
        assert rate(config, 0) == pytest.approx(1 / 50)
        assert rate(config, 49) == rate(config, 399) == 1
        assert rate(config, 700) == pytest.approx(0.5)
        assert rate(config, 999) == pytest.approx(1 / 600)
        assert rate(config, 1000) == pytest.approx(0.3)
        assert rate(config, 1050) == pytest.approx(0.15)
