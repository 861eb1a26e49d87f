"""The progress bar of a training run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from maporl_agents.config import RunConfig
from maporl_agents.measure.step_metrics import Metrics
from maporl_agents.terminal import progress_of_steps


@contextmanager
def progress_bar(
    config: RunConfig, console: Console, start: int
) -> Iterator[tuple[Callable[[int, Metrics], None], Callable[[int, float], None]]]:
    """Show step, score by turn, KL, the newest validation score and the time left.

    In self-play score and Elo rating are shown in place of scores by turn, and in other games
    without a verifier the mean return of each agent.

    Yields the function to call after a step, and the one to call with a score.
    """
    with progress_of_steps("training", console=console) as progress:
        task = progress.add_task("train", total=config.steps, completed=start, now="")
        newest = ""

        def on_score(step: int, score: float) -> None:
            nonlocal newest
            newest = f"  validation {score:.2f} (step {step})"

        def on_step(step: int, metrics: Metrics) -> None:
            now = progress_in_words(metrics)
            now += f"  KL {metrics['kl']:.3f}" if "kl" in metrics else ""
            progress.update(task, completed=step, now=now + newest)
            if not console.is_terminal:
                console.print(f"step {step:3d} / {config.steps}  {now}{newest}")

        yield on_step, on_score


def progress_in_words(metrics: Metrics) -> str:
    """Return what a step says about how well the team does."""
    if "self_play/score" in metrics:
        return f"score {metrics['self_play/score']:.2f}  Elo {metrics['self_play/rating']:+.0f}"
    for prefix, words in (("return/", "return by agent"), ("score/", "score by turn")):
        if found := [value for name, value in metrics.items() if name.startswith(prefix)]:
            return f"{words} {' '.join(f'{value:.2f}' for value in found)}"
    return "no score"


@contextmanager
def evaluation_progress(debates: int, console: Console) -> Iterator[Callable[[int], None]]:
    """Show how many debates are over, in a terminal; yields the function to add some."""
    if not console.is_terminal:
        yield lambda _: None
        return
    with progress_of_steps("debates", console=console) as progress:
        task = progress.add_task("measure", total=debates, now="")
        yield lambda count: progress.update(task, advance=count)
