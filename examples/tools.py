r"""Tools inside a message: a tiny model that guesses or computes learns to compute.

    python examples/tools.py                    # one or two minutes
    python examples/tools.py --own              # without the sandbox: the tool is a function

You learn: how a tool is called inside a message, how a team is given one, and what training does
with it. Two agents are asked for remainders such as 374%7. They first imitate agents of whom half
the messages guess and half call Python. GRPO then rewards right answers, and calls are what makes
answers right. No token of a result is learnt: the figures are the agents' own.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

import maporl_agents
from maporl_agents.tiny.random_model import random_llama
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.tasks import Task
from maporl_env.tools.toolbox import block
from maporl_env.types import Question, WithResults

WORDS = ["<unk>", "<python>", "</python>", "<result>", "</result>", "\\boxed{", "}", "\n", "%"]
TEMPLATE = {"instruction": "", "opening": "{question}\n", "cue": ""}
MODULUS = 7


def python(text: str) -> str:
    """Two numbers as in 374%7; you get the remainder."""
    number, _, modulus = text.partition("%")
    return str(int(number) % int(modulus))


def questions(count: int, seed: int) -> list[Question]:
    """Return questions; those of different seeds may repeat."""
    rng = random.Random(seed)
    drawn = [rng.randint(100, 999) for _ in range(count)]
    return [Question(f"{i}", f"{n}%{MODULUS}", str(n % MODULUS)) for i, n in enumerate(drawn)]


def message(question: Question, rng: random.Random) -> WithResults | str:
    """Return a guess, or a call of Python with its result and the answer."""
    if rng.random() < 0.5:
        return rf"\boxed{{{rng.randrange(MODULUS)}}}"
    call = f"<python>{question.prompt}</python>"
    answer = python(question.prompt)
    return WithResults(rf"{call}\boxed{{{answer}}}", ((len(call), block(answer)),))


def write_transcripts(path: Path, count: int) -> None:
    """Write debates of two agents that guess or compute."""
    rng = random.Random(1)
    asked = questions(count, seed=1)
    debates = BatchedDebate(DebateConfig(task=asked, num_agents=2, num_turns=1), count)
    debates.reset(asked)
    debates.step([message(asked[prompt.debate], rng) for prompt in debates.prompts()])
    path.write_text("".join(f"{one.to_json()}\n" for one in debates.transcripts))


def new_model(seed: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Return a random model of two layers that reads single characters, and tags as one token."""
    words = [*WORDS, *"0123456789"]
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = Split(Regex(r"</?\w+>|\\boxed\{|[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(["<eos>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>"
    )
    model = random_llama(
        *(len(tokenizer), seed),
        max_position_embeddings=256,
        initializer_range=0.08,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    return model, tokenizer


def report(run: maporl_agents.Run) -> None:
    """Print the share of right messages and the calls per message, step by step."""
    for number, metrics in enumerate(run.metrics, start=1):
        calls = metrics.get("tool_calls/turn_1", 0.0)
        print(f"step {number:2}: right {metrics['score/turn_1']:.2f}   calls {calls:.2f}")
    results = [run.results[when]["sampled"]["turns"][0] for when in ("before", "after")]
    before, after = (sum(turn["accuracy"]) / len(turn["accuracy"]) for turn in results)
    print(f"untrained {before:.2f}, trained {after:.2f} right")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--own", action="store_true", help="the tool is a function of this file")
    parser.add_argument("--imitated", type=int, default=400, help="updates of the imitation")
    parser.add_argument("--steps", type=int, default=15, help="steps of GRPO")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_transcripts(folder / "given.jsonl", 1000)
        (folder / "words.json").write_text(json.dumps(TEMPLATE))
        splits = {"train": questions(2000, seed=2), "test": questions(100, seed=3)}
        run = maporl_agents.train(
            scheme="grpo",
            task=Task("remainders", splits),
            model=new_model(args.seed),
            runs=folder / "runs",
            seed=args.seed,
            steps=args.steps,
            questions_per_step=8,
            num_agents=2,
            num_turns=1,
            tools=(f"{Path(__file__).resolve()}:python" if args.own else "python",),
            tool_calls=1,
            tool_tokens=32,
            template=str(folder / "words.json"),
            sharing="one",
            max_new_tokens=16,
            warmup={
                "steps": args.imitated,
                "transcripts": str(folder / "given.jsonl"),
                "batch_size": 32,
                "learning_rate": 3e-3,
            },
            grpo={"group_size": 4, "learning_rate": 1e-3, "minibatches": 1},
            eval={"questions": 100, "questions_before": 100, "greedy": False, "use": "last"},
            quiet=True,
        )
        report(run)


if __name__ == "__main__":
    main()
