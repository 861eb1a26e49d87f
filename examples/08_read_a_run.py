r"""Read a run: what a run folder holds, and which of it to look at first.

    python examples/08_read_a_run.py runs/maporl-shopping
    python examples/08_read_a_run.py                 # makes a run of two steps to read; ten seconds

You learn: that a run is a folder of plain JSON, in which order to read it (what was said first),
and how to get at flips, early warnings and the trained team. `maporl report RUN` makes it a page.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from rich.console import Console

from maporl_agents.config import EvalConfig, TrainConfig
from maporl_agents.measure.debate_stats import rate, transitions
from maporl_agents.measure.terminal_report import telling_question
from maporl_agents.records.run_log import read_metrics
from maporl_agents.training import experiment
from maporl_env.rendering import plain_text
from maporl_env.types import Transcript


def debates(run: Path, name: str) -> list[Transcript]:
    """Return the debates of one file; each line is a transcript with the step it was written at."""
    lines = (run / "transcripts" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Transcript.from_dict(json.loads(line)) for line in lines]


def read(run: Path) -> None:
    config = experiment.read_config(run)
    before, after = debates(run, "before"), debates(run, "after")

    print(f"1. What was said: {run.name}, task {config.game.task}, {config.steps} steps")
    index = telling_question(before, after)
    print(plain_text.heading(after[index].question) + plain_text.lines(after[index].messages))

    print("2. What came of it: accuracy of the vote on held-out questions, turn by turn")
    for stage, decodings in json.loads((run / "results.json").read_text()).items():
        for decoding, result in decodings.items():
            votes = [f"{t['vote']:.3f} ± {t['vote_interval']:.3f}" for t in result["turns"]]
            print(f"   {stage:7} {decoding:8}", *votes)

    print("\n3. Who changed whose mind (sampled): how many were right one turn later")
    for name, played in (("before", before), ("after", after)):
        for own, others in ((False, "right"), (False, "wrong"), (True, "wrong"), (True, "right")):
            share, count = rate(transitions(played), own=own, others=others, of="own")
            past = f"{'right' if own else 'wrong'} beside a {others} one"
            print(f"   {name:7} {past:25} {f'{share:.2f}' if count else '-'} of {count}")

    print("\n4. The way there: score by turn, and how far from the beginning (KL)")
    for row in read_metrics(run)[:: max(1, config.steps // 10)]:
        scores = " ".join(f"{row[f'score/turn_{t + 1}']:.2f}" for t in range(config.game.num_turns))
        print(f"   step {row['step']:3}: {scores}   KL {row['kl']:.4f}")

    raised = [line for file in run.glob("alarms.jsonl") for line in file.read_text().splitlines()]
    print(f"\n5. Early warnings: {len(raised)}", *raised[:3], sep="\n   ")
    _, team = experiment.load_team(run)
    print(f"\n6. The trained team, ready to speak: policies {', '.join(team.trainable())}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, help="a folder below runs/")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.run is None:
            args.run = Path(folder, "two-steps")
            config = TrainConfig(steps=2, questions_per_step=8, eval=EvalConfig(questions=40))
            experiment.run(config, args.run, Console(quiet=True))
        read(args.run)


if __name__ == "__main__":
    main()
