"""The table, the bars and the picture of `real_notes.py`, made from its files of measurements."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from notes.guesses import in_words

ON_THE_WAY = (4, 8, 12)
"""Steps after which a team is measured besides the last."""
Result = dict[str, Any]


def read(results: Path) -> dict[str, Result]:
    """Return what was measured, by the names of the files."""
    paths = sorted(results.glob("*.json"))
    return {path.stem.replace("_", " "): json.loads(path.read_text()) for path in paths}


def column(found: Mapping[str, Result], name: str, key: str | None = None) -> dict[int, float]:
    """Return one figure per seed: the vote of the last turn, or `key`."""
    values = {}
    for file, result in found.items():
        begin, _, seed = file.rpartition("-")
        if begin == name:
            values[int(seed)] = result[key] if key else result["vote"][-1]
    return values


ROWS = (
    *((f"after {step} steps, sampled", f"after {step} steps", None) for step in ON_THE_WAY),
    ("after training, sampled", "after", None),
    ("after training, greedy", "after greedy", None),
    ("peers' messages of other questions", "peers shuffled", None),
    ("each alone", "alone", "alone"),
    ("each alone, all pairs of numbers", "alone on all pairs", "alone"),
    ("best of two alone, by the key", "alone", "two alone"),
    ("vote of two alone", "alone", "vote alone"),
)
CHANCE = 1 / 9
"""Share of right guesses by an agent that knows one of two numbers from 1 to 9, over all pairs."""


def bars(found: Mapping[str, Result]) -> list[tuple[str, bool]]:
    """Return what was set out to be shown, and whether it was; only what is measured."""
    after, greedy = column(found, "after"), column(found, "after greedy")
    shuffled, alone = column(found, "peers shuffled"), column(found, "alone", "alone")
    best, vote = column(found, "alone", "two alone"), column(found, "alone", "vote alone")
    said: list[tuple[str, bool]] = []
    if "before" in found:
        before = found["before"]["vote"][-1]
        said.append((f"before training at most .35: {before:.3f}", before <= 0.35))
    if after:
        said.append((f"after training at least .80 in every seed ({len(after)})", worst(after)))
    if lost := falls(found, after):
        words = f"no run ends more than .05 below its best after 4, 8 or 12 steps ({len(lost)})"
        said.append((f"{words}: {max(lost):+.3f}", max(lost) <= 0.05))
    if lost := [fall(r["score"]) for name, r in found.items() if name.startswith("training-")]:
        words = "nor below its best four steps in training (128 answers each, standard error .04)"
        said.append((f"{words}: {max(lost):.3f}", max(lost) <= 0.05))
    if "before greedy" in found and greedy:
        start = found["before greedy"]["vote"][-1]
        said.append((f"greedy at most .60 before: {start:.3f}", start <= 0.6))
        rise = min(greedy.values()) - start
        said.append((f"greedy rises by .20 or more: {rise:+.3f}", rise >= 0.2))
    everywhere = column(found, "alone on all pairs", "alone")
    limits = [
        ("peers shuffled: falls back below .35", shuffled, 0.35),
        (f"alone: at most chance (1/9) + .1 = {CHANCE + 0.1:.2f}", alone, CHANCE + 0.1),
        ("the same over all pairs of numbers", everywhere, CHANCE + 0.1),
    ]
    if "guesses" in found:
        luckiest = found["guesses"]["right"]
        words = f"alone: at most the luckiest rule that reads nobody = {luckiest:.3f}"
        limits.append((words, alone, luckiest))
    for what, values, limit in limits:
        if values:
            said.append((what, max(values.values()) <= limit))
    for what, values in (("best of two alone", best), ("vote of two alone", vote)):
        if values:
            said.append((f"{what}: below", all(values[s] < after[s] for s in values)))
    return said


def falls(found: Mapping[str, Result], after: Mapping[int, float]) -> list[float]:
    """Return by how much each seed ends below its best held-out vote on the way, if measured."""
    way = [column(found, f"after {step} steps") for step in ON_THE_WAY]
    whole = [seed for seed in after if all(seed in votes for votes in way)]
    return [max(votes[seed] for votes in way) - after[seed] for seed in whole]


def fall(scores: Sequence[float], steps: int = 4) -> float:
    """Return by how much the mean of the last few steps is below the best such mean of a run."""
    means = [sum(scores[i : i + steps]) / steps for i in range(max(len(scores) - steps, 0) + 1)]
    return max(means) - means[-1]


def worst(after: Mapping[int, float]) -> bool:
    """Whether every seed reaches .80."""
    return min(after.values()) >= 0.80


def shown(found: Mapping[str, Result]) -> str:
    """Return the table and the bars in Markdown."""
    seeds = sorted(column(found, "after"))
    lines = ["| vote of the last turn, held-out | " + " | ".join(f"seed {s}" for s in seeds) + " |"]
    lines.append("|---" * (len(seeds) + 1) + "|")
    for words, name in (("sampled", "before"), ("greedy", "before greedy")):
        if name in found:
            start = f"{found[name]['vote'][-1]:.3f}"
            lines.append(f"| before training, {words} | " + " | ".join([start] * len(seeds)) + " |")
    for words, name, key in ROWS:
        values = column(found, name, key)
        cells = [f"{values[s]:.3f}" if s in values else "not measured" for s in seeds]
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    spent = [
        sum(
            result["cpu_seconds"]
            for name, result in found.items()
            if name.endswith(f"-{seed}") and " steps-" not in name  # those are within the training
        )
        for seed in seeds
    ]
    dates = sorted({result["date"] for result in found.values()})
    count = found[f"after-{seeds[0]}"]["questions"]
    lines += ["", f"{count} held-out questions, {dates[0]} to {dates[-1]}; CPU seconds by seed, "]
    lines[-1] += f"training and measuring: {', '.join(map(str, spent))}."
    if "guesses" in found:
        lines += ["", in_words(found["guesses"])]
    lines.append("")
    lines += [f"- {'met' if met else '**not met**'}: {what}" for what, met in bars(found)]
    return "\n".join(lines) + "\n"


def show(results: Path, page: Path | None, picture: Path | None) -> None:
    """Print the table and the bars, put them into a page, and draw the picture."""
    found = read(results)
    print(text := shown(found))
    if page:
        before, begin, rest = page.read_text(encoding="utf-8").partition("<!-- result:begin -->\n")
        _, end, after = rest.partition("<!-- result:end -->\n")
        page.write_text(f"{before}{begin}{text}{end}{after}", encoding="utf-8")
    if picture:
        draw(found, picture)


def draw(found: Mapping[str, Result], path: Path) -> None:
    """Draw the learning curves of all seeds, and beside them what was measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    curves, points = figure.subplots(1, 2, width_ratios=(3, 2))
    for name, result in found.items():
        if name.startswith("training-"):
            scores = result["score"]
            curves.plot(range(1, len(scores) + 1), scores, label=f"seed {name[9:]}")
    curves.set(xlabel="step of 16 debates", ylabel="right answers in turn 2", ylim=(-0.03, 1.03))
    curves.set_title("training, sampled", fontsize=10)
    curves.xaxis.get_major_locator().set_params(integer=True)
    curves.legend(frameon=False, fontsize=8, loc="lower right")
    rows = [
        (words, [found[name]["vote"][-1]])
        for words, name in (("before", "before"), ("before, greedy", "before greedy"))
        if name in found
    ]
    rows += [
        (
            words.replace(" training, sampled", "").replace(" training,", ","),
            list(measured.values()),
        )
        for words, name, key in ROWS
        if (measured := column(found, name, key))
    ]
    for place, (_, values) in enumerate(rows):
        points.plot(values, [place] * len(values), "o", color="tab:blue", alpha=0.7)
    points.set_yticks(range(len(rows)), [words for words, _ in rows], fontsize=8)
    points.invert_yaxis()
    points.set(xlim=(-0.03, 1.03), xlabel="right votes on held-out questions")
    points.set_title("a point per seed", fontsize=10)
    points.grid(axis="x", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
