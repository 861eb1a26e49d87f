"""The parts of the comparisons on which their ratios rest."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from maporl_env.tasks import load_task
from maporl_env.types import Question

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for name in [
        name
        for name in sys.modules
        if name.split(".")[0] in ("compared", "bench", "notes", "adapter_bytes")
    ]:
        del sys.modules[name]


def test_special_words_of_the_random_model_are_never_drawn(tmp_path: Path) -> None:
    from compared.material import SPECIAL, Shape, prompts, save_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = save_model(tmp_path / "model", Shape(64, 96, 2, 2, 1, 256))
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = prompts(3, 20, vocabulary=200)
    ids = tokenizer(texts, return_tensors="pt")["input_ids"]
    assert ids.shape == (3, 20)
    assert tokenizer.batch_decode(ids) == texts
    with torch.no_grad():
        logprobs = model(ids).logits.log_softmax(-1)
    assert logprobs[..., : len(SPECIAL)].max() < -15
    assert logprobs[..., len(SPECIAL) :].min() > -15


@pytest.mark.thorough
def test_our_side_reads_and_writes_the_lengths_that_were_asked_for(tmp_path: Path) -> None:
    from compared.games import Trainer, Work, settings
    from compared.material import Shape, save_model

    folder = str(save_model(tmp_path / "model", Shape(64, 96, 2, 2, 1, 1088)))
    for scheme in ("ppo", "magrpo"):
        work = Work(scheme, folder, agents=2, rows=4, prompt=12, tokens=3, minibatches=2, epochs=1)
        trainer = Trainer(settings(work, tmp_path / scheme))
        rollouts, metrics = trainer.train_step()
        assert len(rollouts) == 2
        assert {len(prompt) for one in rollouts for prompt in one.prompts} == {12}
        assert {len(done.ids) for one in rollouts for done in one.completions} == {3}
        assert metrics["unscored_messages"] == 0
        assert trainer.own_bytes() > 0


@pytest.mark.thorough
def test_a_debate_reads_anew_what_an_append_only_one_reads_once(tmp_path: Path) -> None:
    from compared.engine import asked, least, played, stepped
    from compared.games import Trainer, Work, settings
    from compared.material import Shape, save_model

    folder = str(save_model(tmp_path / "model", Shape(64, 96, 2, 2, 1, 1088)))
    work = Work("ppo", folder, agents=3, rows=3, turns=3, prompt=20, tokens=10)
    rollouts = played(Trainer(settings(work, tmp_path / "game")))
    assert least(rollouts) == 3 * (20 + 21 + 21)  # a message's last id, and two messages of others
    assert sum(map(len, rollouts[0].prompts)) == 3 * (20 + 50 + 80)
    assert stepped(rollouts) == 9 * 9
    assert [request.agent for request in asked(rollouts[0], 2, 0)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("theirs", "ours", "is_lost"),
    [
        ([2.0, 2.0, 2.0], [1.0, 1.0, 1.0], False),
        ([1.6, 1.6, 1.6], [1.0, 1.0, 1.0], True),
        ([2.0, 2.0, 2.0], [1.0, 1.4, 1.4], False),  # a neighbour slowed most of our rounds
        ([1.7, 3.4, 3.4], [1.0, 1.8, 1.8], False),
    ],
)
def test_a_ratio_is_lost_only_if_medians_and_fastest_rounds_say_so(
    theirs: list[float], ours: list[float], is_lost: bool
) -> None:
    import bench
    from compared.turns import Measured

    assert bench.lost((Measured(theirs), Measured(ours)), 2.0) is is_lost


def test_a_worker_reports_each_iteration(tmp_path: Path) -> None:
    driver = tmp_path / "driver.py"
    driver.write_text(
        "from compared.worker import Worker\n"
        "worker = Worker()\n"
        "worker.ready(name='me')\n"
        "while True:\n"
        "    worker.wait()\n"
        "    print('noise of a library')\n"
        "    kept = bytearray(50_000_000)\n"
    )
    child = subprocess.run(
        [sys.executable, driver],
        input="go\ngo\nstop\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PYTHONPATH": str(BENCHMARKS)},
    )
    first, *rest = map(json.loads, child.stdout.splitlines())
    assert first["name"] == "me"
    assert len(rest) == 2
    assert all(told["seconds"] >= 0 and told["growth"] > 40_000_000 for told in rest)


def test_the_table_of_the_real_model_says_which_bars_are_met(tmp_path: Path) -> None:
    """From the files of two seeds, of which one has no controls and misses a bar."""
    from notes import table

    def write(name: str, **result: object) -> None:
        facts = {"cpu_seconds": 7, "date": "2026-11-30"}
        (tmp_path / f"{name}.json").write_text(json.dumps({**result, **facts}))

    write("before", vote=[0.0, 0.25])
    write("before greedy", vote=[0.0, 0.5])
    for seed, vote in ((0, 0.9), (1, 0.79)):
        write(f"training-{seed}", score=[0.2, vote])
        write(f"after-{seed}", vote=[0.0, vote], questions=200)
    for step, vote in ((4, 0.5), (8, 0.97), (12, 0.8)):
        write(f"after {step} steps-0", vote=[0.0, vote])
    write("after greedy-0", vote=[0.0, 0.95])
    write("peers shuffled-0", vote=[0.0, 0.1])
    write("alone-0", **{"alone": 0.12, "two alone": 0.22, "vote alone": 0.12})
    write("guesses", rule="doubles", right=0.11, adding=1, added=0.1, learnt=0.0, bound=0.5)
    found = table.read(tmp_path)
    bars = dict(table.bars(found))
    assert [words for words, met in bars.items() if not met] == [
        "after training at least .80 in every seed (2)",
        "no run ends more than .05 below its best after 4, 8 or 12 steps (1): +0.070",
        "alone: at most the luckiest rule that reads nobody = 0.110",
    ]
    assert len(bars) == 11
    assert table.fall([0.0, 1.0, 1.0, 1.0, 1.0, 0.8]) == pytest.approx(0.05)
    text = table.shown(found)
    assert "| each alone | 0.120 | not measured |" in text
    assert "| after training, sampled | 0.900 | 0.790 |" in text
    assert "| after 8 steps, sampled | 0.970 | not measured |" in text
    assert "- **not met**: after training at least .80 in every seed (2)" in text
    assert "one that doubles, in 0.110; one that adds what training" in text
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- result:begin -->\nold\n<!-- result:end -->\nb\n")
    table.show(tmp_path, page, tmp_path / "picture.png")
    assert page.read_text().startswith("a\n<!-- result:begin -->\n| vote of the last turn")
    assert page.read_text().endswith("<!-- result:end -->\nb\n")
    assert "old" not in page.read_text()
    assert (tmp_path / "picture.png").read_bytes()[1:4] == b"PNG"


def told(*pairs: tuple[int, int]) -> list[Question]:
    """Return a question for each pair of numbers that two agents are told."""
    return [
        Question(f"q{place}", "how many ?", str(one + other), private=(f"Ann: {one}", f"{other}."))
        for place, (one, other) in enumerate(pairs)
    ]


def test_what_guesses_of_the_others_number_give_in_the_held_out_pairs() -> None:
    from notes.guesses import guesses, in_words

    found = guesses(told((1, 4), (1, 4), (1, 3), (2, 3)), told((1, 1), (2, 2), (3, 4)))
    assert found == {
        "rule": "doubles its own number",
        "right": 0.6667,
        "adding": 1,
        "added": 0.3333,
        "learnt": 0.0,
        "bound": 1.0,
    }
    assert "always adds 1 is right in 0.333" in in_words(found)
    assert guesses(told((1, 2), (1, 3)), told((1, 2)))["learnt"] == (1 / 2 + 1) / 2
    with pytest.raises(ValueError, match="'q0' does not tell two agents one number each"):
        guesses([replace(told((1, 2))[0], private=("Ann: 1 and 2", ""))] * 2, told((1, 2)))


def test_over_all_pairs_every_rule_that_reads_nobody_is_right_in_a_ninth() -> None:
    from notes.guesses import all_pairs, right, told_pairs

    task = load_task("notes:ask=sum,least=1,most=9,brief=true")
    everything = [q for split in ("test", "validation", "train") for q in task.split(split)]
    chosen = all_pairs(everything, each=2)
    assert len(chosen) == len({q.words for q in chosen}) == 2 * 81
    rules = (lambda own: [own], lambda own: [1 + own % 9], lambda own: [7], lambda own: [2, 3])
    assert [right(told_pairs(chosen), rule) for rule in rules] == pytest.approx([1 / 9] * 4)
    with pytest.raises(ValueError, match=r"1 questions tell \(1, 1\), fewer than 2"):
        all_pairs(told((1, 1)), each=2)


def test_the_held_out_pairs_of_the_recipe_tell_what_no_training_pair_does() -> None:
    """The pairs of `smollm2-notes`: whatever is learnt of training pairs is wrong in these."""
    from notes.guesses import guesses

    task = load_task("notes:ask=sum,least=1,most=9,brief=true")
    found = guesses(task.split("train"), task.split("test"))
    assert found["learnt"] == 0.0
    assert 1 / 9 < found["added"] < found["right"] < found["bound"] < 1


@pytest.mark.parametrize(("dtype", "width"), [("bfloat16", 2), ("float32", 4)])
def test_the_bytes_of_adapters_are_those_of_their_products(
    tmp_path: Path, dtype: str, width: int
) -> None:
    """In the number format of the base, and little else: a request, settings, names of weights."""
    from adapter_bytes import base_bytes, published_bytes, team_of
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    team = team_of(tmp_path / "base", config, agents=3, rank=8, dtype=dtype)
    attention = 2 * (64 + 64) + 2 * (64 + 32)
    inside = 3 * (64 + 96)
    weights = 3 * 2 * 8 * (attention + inside)
    sent = published_bytes(team, tmp_path / "adapters")
    assert weights * width < sent < weights * width + 3 * 10_000
    layers = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96 + 2 * 64)
    assert base_bytes(team) == (256 * 64 + layers + 64) * width


def test_a_peer_whose_pins_bring_another_torch_is_installed_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compared import environments

    called: list[list[str]] = []

    def run(command: list[str], **options: object) -> None:
        called.append([str(word) for word in command])
        (tmp_path / "modelco-1.1.2").mkdir(exist_ok=True)

    monkeypatch.setattr(environments.subprocess, "run", run)
    for _ in range(2):  # the second time it is there
        environments.python_of(environments.MODELCO, tmp_path)
    assert called[2][-4:] == [environments.TORCH, *environments.MODELCO.packages]
    assert called[3][-2:] == ["--no-deps", "modelco==1.1.2"]
    assert len(called) == 4
