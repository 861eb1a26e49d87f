"""The studies by name: the teams of each, how they are measured, and the claims they test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from maporl_agents.config import TrainConfig, config_of
from maporl_agents.config.from_values import nearest
from maporl_agents.studies import schemes, smollm2
from maporl_agents.studies.arms import (
    COINS,
    NO_ROOM,
    SHARING,
    SHOPPING,
    THREE_OR_MORE,
    TRAINED,
    WITH_VERDICTS,
    claims_of_a_debate,
    incentive_study,
    on,
    refining,
    together,
    variant,
    with_controls,
    with_game,
    with_team,
)
from maporl_agents.studies.controls import Measure
from maporl_agents.studies.jobs import Recipe
from maporl_agents.studies.plan import ArmPlan, StudyPlan
from maporl_agents.studies.results import Claim
from maporl_env.user_functions import FORMS, is_own_name

DEFAULT_SEEDS = (0, 1, 2)


def shopping() -> StudyPlan:
    """Study 1 with agents that know different things."""
    return StudyPlan(
        name="shopping",
        title="Does a debate improve over turns? Agents that know different things",
        claim="Off the shelf, a debate does not improve over its turns; after MAPoRL it does.",
        arms=with_controls(
            together("maporl", "MAPoRL", SHOPPING),
            TRAINED,
            before={
                "best_of_n": "untrained, best of 6 by the answer key (an oracle)",
                "self_consistency": "untrained, vote at equal tokens",
            },
        ),
        notes=(
            "The agents differ in what they know: a gain is pooling of knowledge, not checking.",
            "No debate sees the answer key, the best of 6 does: it bounds what sampling can give.",
        ),
        claims=claims_of_a_debate("peers_shuffled"),
    )


def same_agents(name: str, config: TrainConfig, title: str) -> StudyPlan:
    """Study 1 with the same model on both sides, the paper's Experiment 1."""
    return StudyPlan(
        name=name,
        title=f"Does a debate improve over turns? The same agents on both sides: {title}",
        claim=(
            "Off the shelf, a debate does not improve over its turns; after MAPoRL, which trains "
            "the turns from the second on, it does."
        ),
        arms=(
            *with_controls(
                together("maporl", "MAPoRL", config),
                WITH_VERDICTS,
                before={
                    "best_of_n": "untrained, best of 6 by the same verdicts",
                    "self_consistency": "untrained, vote at equal tokens",
                },
            ),
            refining("one", "one agent trained to refine its own answers", config),
        ),
        notes=(
            "The skill is acting on shown verdicts, which are those of a noisy key; nothing here "
            "shows reasoning.",
        ),
        claims=(
            *claims_of_a_debate("verdicts_shuffled", "peers_shuffled"),
            Claim("Two agents beat one that refines its own answers.", on("one")),
        ),
    )


def alone() -> StudyPlan:
    """Study 2: agents that are trained alone."""
    return StudyPlan(
        name="alone",
        title="Is training alone enough?",
        claim="Agents trained alone, and then debating, stay behind agents trained together.",
        arms=(
            together("maporl", "MAPoRL", SHOPPING),
            *(trained_alone(times) for times in (1, 2, 4)),
            ArmPlan(
                "alone-4x-vote",
                "trained alone, 4x, vote at equal tokens instead of a debate",
                "baseline",
                Recipe("ppo", alone_config(4)),
                Measure("self_consistency"),
            ),
            ArmPlan("sft", "imitation of the best tenth", "baseline", Recipe("sft", SHOPPING)),
            ArmPlan(
                "vote",
                "untrained, vote at equal tokens",
                "baseline",
                Recipe("none", SHOPPING),
                Measure("self_consistency"),
            ),
        ),
        notes=("1x is as many training answers as MAPoRL's; the schedule is stretched with it.",),
        claims=(
            *(
                Claim(
                    f"Agents trained alone on {times}x the answers, then debating, stay behind.",
                    on(f"alone-{times}x"),
                )
                for times in (1, 2, 4)
            ),
            Claim(
                "Agents trained alone on 4x the answers stay behind if they vote at equal tokens.",
                on("alone-4x-vote"),
            ),
            Claim("Imitation of the best tenth stays behind MAPoRL.", on("sft")),
        ),
    )


def trained_alone(times: int) -> ArmPlan:
    """Return the baseline of agents trained alone on `times` times the answers, then debating."""
    label = f"trained alone, {times}x the answers, then debating"
    recipe = Recipe("ppo", alone_config(times))
    return ArmPlan(f"alone-{times}x", label, "baseline", recipe, settings={"budget": times})


def alone_config(times: int) -> TrainConfig:
    """Return the settings of single-agent PPO on `times` times the answers."""
    return replace(SHOPPING, single_agent=True, steps=times * SHOPPING.steps)


def incentives() -> StudyPlan:
    """Study 3: alpha and beta, one at a time."""
    return incentive_study(
        "incentives",
        "Do incentives steer behaviour?",
        with_game(SHARING, num_agents=3),
        notes=(
            "Three agents; a majority of the two others is both of them, else it is a tie, for "
            "which there is no bonus: counted are changes between right and wrong.",
            THREE_OR_MORE,
            "The first turn is frozen. alpha rewards the later message, so both steps count; "
            "beta rewards the earlier one, so only the step from turn 2 to 3 does.",
            NO_ROOM,
        ),
    )


def transfer() -> StudyPlan:
    """Study 4: trained on one task, debating about another."""
    there = together("sharing-coins", "trained on sharing", SHARING, measure=Measure(task="coins"))
    back = together("coins-sharing", "trained on coins", COINS, measure=Measure(task="sharing"))
    return StudyPlan(
        name="transfer",
        title="Does collaboration transfer to another task?",
        claim="A team trained to debate about one task debates better about another.",
        arms=(
            *with_controls(
                replace(there, label="trained on sharing, asked about coins"),
                {"verdicts_shuffled": "the same, verdicts shuffled", "alone": "the same, alone"},
                before={"best_of_n": "untrained on coins, best of 6 by the same verdicts"},
            ),
            *with_controls(
                replace(back, label="trained on coins, asked about sharing"),
                {"verdicts_shuffled": "the same, verdicts shuffled", "alone": "the same, alone"},
                before={"best_of_n": "untrained on sharing, best of 6 by the same verdicts"},
            ),
            *(
                together(
                    f"{config.game.task}-itself",
                    f"trained on {config.game.task}, asked about it",
                    config,
                )
                for config in (SHARING, COINS)
            ),
        ),
        notes=(
            "Both tasks use the same words for moves and verdicts.",
            "Only the training by PPO never saw the other task: the base model was pre-trained on "
            "debates about both, of authors who guess.",
        ),
        claims=tuple(
            claim
            for name, there in (("sharing-coins", "coins"), ("coins-sharing", "sharing"))
            for claim in (
                Claim(
                    f"The other task's training improves the debate about {there}.",
                    on("training", "turns", method=name),
                ),
                Claim(
                    f"There, too, the rise needs the verdicts ({there}).",
                    on(f"{name}-verdicts_shuffled", method=name),
                ),
            )
        ),
    )


def bases() -> StudyPlan:
    """Study 5: two base models of different family, size and vocabulary."""
    llama, qwen2 = "tiny-sharing", "tiny-sharing-qwen2"
    pair = with_team(SHARING, model=(llama, qwen2), sharing="agent")

    return StudyPlan(
        name="bases",
        title="Different base models",
        claim=(
            "Two different base models trained together beat two equal ones trained together, at "
            "equal answers and about equal tokens; and each trained alone to refine its own "
            "answers, which gives 3 answers per question against the pair's 6."
        ),
        arms=(
            *with_controls(
                together("pair", "Llama and Qwen2 together", pair),
                {
                    "peers_shuffled": "Llama and Qwen2, peers' messages from other questions",
                    "verdicts_shuffled": "Llama and Qwen2, verdicts shuffled",
                },
                before={"best_of_n": "Llama and Qwen2 untrained, best of 6 by the same verdicts"},
            ),
            refining("llama", "Llama alone, trained to refine its own answers", SHARING),
            refining(
                "qwen2",
                "Qwen2 alone, trained to refine its own answers",
                with_team(SHARING, model=(qwen2,)),
            ),
            *(
                ArmPlan(
                    f"{name}-pair",
                    f"two {label}s together",
                    "baseline",
                    Recipe("ppo", with_team(SHARING, model=(model,), sharing="agent")),
                )
                for name, label, model in (("llama", "Llama", llama), ("qwen2", "Qwen2", qwen2))
            ),
        ),
        notes=(
            "Alone: one agent, as many turns, as many training answers; a pair gives two answers "
            "a turn at test time, one agent gives one (columns answers and tokens).",
            "Text is the interface: the two models number the words differently.",
        ),
        claims=(
            Claim(
                "The mixed pair beats two Llamas and two Qwen2s, at equal answers.",
                on("llama-pair", "qwen2-pair", method="pair"),
            ),
            Claim(
                "The mixed pair beats one Llama and one Qwen2 that refine their own answers (3 "
                "answers per question against 6).",
                on("llama", "qwen2", method="pair"),
            ),
        ),
    )


def variants() -> StudyPlan:
    """Study 6: the reward, the sharing of policies, and the number of agents."""
    rewards: dict[str, dict[str, Any]] = {
        "gamma 0": {"gamma": 0.0},
        "gamma 0.3": {"gamma": 0.3},
        "gamma 1": {"gamma": 1.0},
        "last turn's scores, team": {"horizon": "last", "share": "team"},
        "last turn's score, own": {"horizon": "last", "share": "own"},
        "later scores, own": {"horizon": "discounted", "share": "own"},
        "current scores, team": {"horizon": "current", "share": "team"},
    }
    sharings = {"agent": "a policy per agent", "turn": "a policy per agent and turn"}
    return StudyPlan(
        name="variants",
        title="Rewards, sharing, and the number of agents",
        claim="Which of the settings matter: no claim, a survey.",
        arms=(
            *(
                variant(words, with_game(SHARING, **game), game, name=words.replace(" ", "-"))
                for words, game in rewards.items()
            ),
            *(
                variant(words, with_team(SHARING, sharing=mode), {"sharing": mode})
                for mode, words in sharings.items()
            ),
            *(
                variant(
                    f"trained with 2, {number} debate",
                    SHARING,
                    {"agents at test time": number},
                    name=f"{number}-agents",
                    measure=Measure(agents=number),
                )
                for number in (3, 4)
            ),
        ),
        notes=(
            "gamma 1 and one policy for both are the settings of the study `sharing`, and what "
            "every other row is compared with.",
            "The first turn is frozen. So gamma changes the reward of turn 2 only (the last turn "
            "is rewarded with its own score), and a policy for the first turn apart would be the "
            "same as a policy per agent.",
            THREE_OR_MORE,
        ),
    )


STUDIES: dict[str, Callable[[], StudyPlan]] = {
    "shopping": shopping,
    "sharing": lambda: same_agents("sharing", SHARING, "sharing"),
    "coins": lambda: same_agents("coins", COINS, "coins"),
    "alone": alone,
    "incentives": incentives,
    "transfer": transfer,
    "bases": bases,
    "variants": variants,
    "magrpo": lambda: schemes.magrpo(SHOPPING),
    "magrpo-right": lambda: schemes.rightness(SHOPPING),
    "malt": lambda: schemes.malt(SHOPPING),
    "schemes": lambda: schemes.schemes(SHOPPING),
}
"""The studies of the built-in models by name."""


def groups() -> dict[str, tuple[str, ...]]:
    """Return the names that stand for several studies, with these."""
    return {"all": tuple(STUDIES), "smollm2": tuple(smollm2.STUDIES)}


def known() -> dict[str, Callable[[], StudyPlan]]:
    """Return all studies by name."""
    return {**STUDIES, **smollm2.STUDIES}


def study(name: str) -> StudyPlan:
    """Return a study by name, or of a scheme of one's own; ValueError names those there are."""
    if name in (plans := known()):
        return plans[name]()
    if is_own_name(name):
        return schemes.own(config_of(name)())
    raise ValueError(
        f"unknown study {name!r}{nearest(name, plans)}: "
        f"choose one of {', '.join(plans)}, or a scheme of your own as {FORMS}"
    )
