"""The paper's experiments on a real language model, SmolLM2-135M-Instruct.

Each function takes the settings of MAPoRL on the sums of the task `notes`, and returns a study.
Arms with the same settings in two studies are the same runs: the trained team of study 1 is the
reference of study 2 and what study 4 transfers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from maporl_agents.config import GameConfig, TrainConfig
from maporl_agents.studies.arms import (
    NO_ROOM,
    SHARING,
    TRAINED,
    WITH_VERDICTS,
    claims_of_a_debate,
    incentive_study,
    on,
    settings_of,
    together,
    with_controls,
    with_game,
    with_team,
)
from maporl_agents.studies.controls import Measure
from maporl_agents.studies.jobs import Recipe
from maporl_agents.studies.plan import ArmPlan, StudyPlan
from maporl_agents.studies.results import Claim

MODEL = "smollm2-135m"
SEEDS = (0, 1, 2, 3, 4)
VERIFIERS = Path("runs/verifier-smollm2")
"""Where `benchmarks/learned_verifier.py` leaves verifiers, called as the study's note says."""
QUESTIONS = 60
"""Held-out questions of every measurement, sampled and greedy: few, since measuring takes longer
than training where a team has controls. A figure of one seed has a standard error of at most .065,
the mean of five seeds of at most .03."""
NOTES = settings_of("smollm2-notes")
NOTES = replace(NOTES, questions_per_step=8, eval=replace(NOTES.eval, questions=QUESTIONS))
"""MAPoRL on sums of two private numbers, all turns trained; half of the recipe's debates a step."""
MISLED = "notes_misled:ask=sum,least=1,most=9,brief=true"
MISLED_TOKENS = 24
"""Limit of a message that tells two facts."""
VERIFIED_STEPS, VERIFIED_TOKENS = 8, 100
"""Steps of training on GSM8K, and the limit of a message: its prompts are four times as long."""


def asking_for(kind: str, task: str) -> str:
    """Return the name of a task of notes with another kind of question."""
    name, _, options = task.partition(":")
    kept = [option for option in options.split(",") if not option.startswith("ask=")]
    return f"{name}:{','.join([f'ask={kind}', *kept])}"


def frozen_first(base: TrainConfig) -> TrainConfig:
    """Return settings whose first turn, in which agents tell their notes, stays as it began."""
    return with_team(base, train_turns=">=2")


def debate(base: TrainConfig) -> StudyPlan:
    """Study 1: off the shelf a debate stays flat, trained it rises; the first turn is frozen."""
    return StudyPlan(
        name="smollm2-debate",
        title="SmolLM2: does a debate improve over turns?",
        claim="Off the shelf, a debate about private notes does not improve; after MAPoRL it does.",
        arms=with_controls(
            together("maporl", "MAPoRL, first turn frozen", frozen_first(base)),
            TRAINED,
            before={
                "best_of_n": "untrained, best single answer by the answer key (an oracle)",
                "self_consistency": "untrained, vote at equal tokens",
            },
        ),
        notes=(
            "Each agent is told one of the numbers, so no agent can know the sum before it has "
            "read the others. The best single answer by the key bounds what sampling can give.",
        ),
        claims=claims_of_a_debate("peers_shuffled"),
    )


def alone(base: TrainConfig) -> StudyPlan:
    """Study 2: agents trained alone on as many answers, and on four times as many."""

    def trained(times: int) -> TrainConfig:
        return replace(
            with_team(base, train_turns="all"), single_agent=True, steps=times * base.steps
        )

    arms = [
        ArmPlan(
            f"alone-{times}x",
            f"trained alone, {times}x the answers, then debating",
            "baseline",
            Recipe("ppo", trained(times)),
            settings={"budget": times},
        )
        for times in (1, 4)
    ]
    voting = ArmPlan(
        "alone-4x-vote",
        "trained alone, 4x, vote at equal tokens instead of a debate",
        "baseline",
        Recipe("ppo", trained(4)),
        Measure("self_consistency"),
    )
    return StudyPlan(
        name="smollm2-alone",
        title="SmolLM2: is training alone enough?",
        claim="Agents trained alone, and then debating, stay behind agents trained together.",
        arms=(together("maporl", "MAPoRL, first turn frozen", frozen_first(base)), *arms, voting),
        notes=(
            "1x is as many training answers as MAPoRL's; the schedule is stretched with it. Alone "
            "no agent can know the sum: what is learnt is the form.",
        ),
        claims=tuple(
            Claim(f"{words} stay behind.", on(name))
            for name, words in (
                ("alone-1x", "Agents trained alone on 1x the answers, then debating,"),
                ("alone-4x", "Agents trained alone on 4x the answers, then debating,"),
                ("alone-4x-vote", "Agents trained alone on 4x the answers that vote"),
            )
        ),
    )


def misled(base: TrainConfig, task: str = MISLED) -> TrainConfig:
    """Return settings of three agents of whom one is told a wrong number."""
    longer = replace(base, sampling=replace(base.sampling, max_new_tokens=MISLED_TOKENS))
    return with_game(longer, task=task, num_agents=3)


def incentives(base: TrainConfig) -> StudyPlan:
    """Study 3: alpha and beta on `notes_misled`, where being persuaded and persuading have room."""
    return incentive_study(
        "smollm2-incentives",
        "SmolLM2: do incentives steer behaviour?",
        misled(base),
        notes=(
            "Three agents, two turns, all trained. One agent is told a wrong number, which two "
            "others contradict; a majority of the two others is both of them, else it is a tie.",
            NO_ROOM,
        ),
    )


def transfer(base: TrainConfig) -> StudyPlan:
    """Study 4: notes to notes with a misled agent, and sums to differences."""
    sums = frozen_first(base)
    asked = {kind: asking_for(kind, base.game.task) for kind in ("sum", "difference")}
    differences = with_game(sums, task=asked["difference"])
    pairs = (
        (
            "misled",
            "trained on notes, asked where one is misled",
            sums,
            Measure(task=MISLED, agents=3),
        ),
        (
            "differences",
            "trained on sums, asked differences",
            sums,
            Measure(task=asked["difference"]),
        ),
        ("sums", "trained on differences, asked sums", differences, Measure(task=asked["sum"])),
    )
    arms = [
        arm
        for name, label, config, measure in pairs
        for arm in with_controls(
            together(f"to-{name}", label, config, measure=measure),
            {"peers_shuffled": f"{label}, peers' messages from other questions"},
        )
    ]
    itself = [
        together("sums-itself", "trained on sums, asked sums", sums),
        together("differences-itself", "trained on differences, asked differences", differences),
    ]
    return StudyPlan(
        name="smollm2-transfer",
        title="SmolLM2: does collaboration transfer to another task?",
        claim="A team trained to debate about one kind of question debates better about another.",
        arms=(*arms, *itself),
        notes=("Where one is misled, three agents play, members in rotation on the same policy.",),
        claims=tuple(
            claim
            for name, label, _, _ in pairs
            for claim in (
                Claim(f"It improves the debate: {label}.", on("training", method=f"to-{name}")),
                Claim(
                    f"The rise needs the others' messages: {label}.",
                    on(f"to-{name}-peers_shuffled", method=f"to-{name}"),
                ),
            )
        ),
    )


def bases(base: TrainConfig) -> StudyPlan:
    """Study 5: SmolLM2 with the built-in model, on a task in the words of the latter."""
    [real] = set(base.team.model)
    small = "tiny-sharing"

    def team(*models: str) -> TrainConfig:
        config = with_team(
            SHARING, model=models, sharing="agent", tuning="lora", prompts=base.team.prompts
        )
        return replace(config, steps=20, questions_per_step=12, eval=base.eval)

    pairs = (("two-small", "two built-in models", small), ("two-real", "two SmolLM2s", real))
    return StudyPlan(
        name="smollm2-bases",
        title="SmolLM2: different base models",
        claim="SmolLM2 with the built-in model beats two of either, at equal answers.",
        arms=(
            *with_controls(
                together("pair", "the built-in model with SmolLM2", team(small, real)),
                {kind: f"the pair, {words}" for kind, words in WITH_VERDICTS.items()},
            ),
            *(
                ArmPlan(name, label, "baseline", Recipe("ppo", team(model, model)))
                for name, label, model in pairs
            ),
        ),
        notes=("Verdicts of a noisy key are shown; SmolLM2 was never pre-trained on this task.",),
        claims=(
            Claim(
                "The mixed pair beats two equal models.", on("two-small", "two-real", method="pair")
            ),
        ),
    )


def verifier(base: TrainConfig, folder: Path = VERIFIERS, data: str = "") -> StudyPlan:
    """Study 6: GSM8K rewarded by verifiers that were trained with and without balance.

    Args:
        base: whose team, sampling and optimiser are used.
        folder: holds the verifiers.
        data: the folder of GSM8K; empty for its default source.
    """
    game = GameConfig(
        task="gsm8k", data=data, num_agents=2, num_turns=2, shots=2, answer_rule="answer_line"
    )
    config = replace(
        with_team(base, dtype="bfloat16"),
        game=game,
        steps=VERIFIED_STEPS,
        sampling=replace(base.sampling, max_new_tokens=VERIFIED_TOKENS, stop=("\n\n", "Question:")),
    )
    rewards = {
        "balanced": ("a verifier balanced per question", f"learned:{folder / 'gsm8k-balanced'}"),
        "unbalanced": ("a verifier without balance", f"learned:{folder / 'gsm8k-unbalanced'}"),
        "key": ("the answer key", "key"),
    }
    return StudyPlan(
        name="smollm2-verifier",
        title="SmolLM2: what does a learned verifier reward?",
        claim="Rewarded by a verifier balanced per question, a team gets better by the answer key.",
        metric="vote",
        arms=tuple(
            together(name, f"rewarded by {words}", with_game(config, verifier=verifier))
            if name == "balanced"
            else ArmPlan(
                name,
                f"rewarded by {words}",
                "variant" if name == "key" else "baseline",
                Recipe("ppo", with_game(config, verifier=verifier)),
            )
            for name, (words, verifier) in rewards.items()
        ),
        notes=(
            "Make the verifiers first: benchmarks/learned_verifier.py --gsm8k FOLDER --model "
            f"{MODEL} --dtype bfloat16 --runs {folder}.",
        ),
        claims=(
            Claim(
                "The balanced verifier's team improves by the key.",
                on("training", method="balanced"),
            ),
            Claim("It is ahead of the unbalanced verifier's.", on("unbalanced", method="balanced")),
        ),
    )


PLANS: tuple[Callable[[TrainConfig], StudyPlan], ...] = (
    *(incentives, debate, alone, transfer, bases, verifier),
)
STUDIES: dict[str, Callable[[], StudyPlan]] = {
    f"smollm2-{make.__name__}": partial(make, NOTES) for make in PLANS
}
"""The studies by name, in the order of their value where time is short."""
