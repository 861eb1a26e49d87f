"""Settings that a scheme never reads, whatever the others are, with the reason."""

from __future__ import annotations

CREDIT = tuple(
    f"game.{name}"
    for name in ("gamma", "horizon", "share", "alpha", "beta", "majority", "penalties")
)
CRITICS = ("team.critic", "team.critic_width")

TREES = "plays the debates of the next step, and {0} samples trees: leave it out"
AT_ONCE = "plays the debates of the next step, and {0} plays more than debates: leave it out"
JOINT = (
    "is credit of MAPoRL: {0} rewards each turn by its joint score, and {0}.turn_gamma discounts it"
)
NO_SELF_PLAY = {
    "self_play": "is learnt from single games, and {0} learns from joint answers or trees: choose "
    "--scheme maporl or grpo"
}
NO_CRITIC = "is about critics, and {0} has no critic: leave it out"
DRAFTS = ("game.tries", "game.accept")
NO_DRAFTS = "is about drafts, and {0} learns from none: leave it out"
BETWEEN = ("gamma", "horizon", "share", "alpha", "beta", "majority")
ONE_MESSAGE = (
    "is about several messages of a debate, and {0} trains one, the leader's first: leave it out, "
    "or choose scheme grpo"
)
NO_OTHER_ENV = {"game.env": "is for the scheme maporl: {0} plays debates alone"}

TOOLS = (
    *("game.tools", "game.tool_calls", "game.tool_chars", "game.tool_seconds"),
    *("game.tool_results", "sampling.tool_tokens"),
)
NO_TOOLS = dict.fromkeys(
    TOOLS, "is about tools, and {0} learns without them: choose scheme maporl, grpo, magrpo or iac"
)

NEVER: dict[str, dict[str, str]] = {
    "maporl": {},
    "magrpo": dict.fromkeys(CREDIT, JOINT)
    | dict.fromkeys(CRITICS, NO_CRITIC)
    | dict.fromkeys(DRAFTS, NO_DRAFTS)
    | NO_SELF_PLAY
    | NO_OTHER_ENV
    | {"sampling.lag": TREES},
    "iac": dict.fromkeys(CREDIT, JOINT)
    | dict.fromkeys(DRAFTS, NO_DRAFTS)
    | NO_SELF_PLAY
    | NO_OTHER_ENV,
    "grpo": dict.fromkeys(CRITICS, NO_CRITIC) | NO_OTHER_ENV,
    "mlpo": dict.fromkeys(CRITICS, NO_CRITIC)
    | dict.fromkeys(DRAFTS, NO_DRAFTS)
    | dict.fromkeys((f"game.{name}" for name in BETWEEN), ONE_MESSAGE)
    | dict.fromkeys(("team.sharing", "team.train_turns", "grpo.groups"), ONE_MESSAGE)
    | NO_TOOLS
    | NO_SELF_PLAY
    | NO_OTHER_ENV
    | {"game.protocol": "is 'leader' under {0}", "sampling.lag": AT_ONCE},
    "sweet_rl": dict.fromkeys(CREDIT, "is credit of MAPoRL: {0} learns from pairs")
    | dict.fromkeys(CRITICS, NO_CRITIC)
    | dict.fromkeys(DRAFTS, NO_DRAFTS)
    | dict.fromkeys(
        ("game.history", "game.reward_feedback", "game.feedback_verifier", "game.stop"),
        "is about debates, and {0} plays dialogues, of which everything is read",
    )
    | dict.fromkeys(
        ("team.sharing", "team.train_turns"), "is about several policies, and {0} trains one agent"
    )
    | NO_TOOLS
    | NO_SELF_PLAY
    | NO_OTHER_ENV
    | {"game.protocol": "is 'dialogue' under {0}", "game.num_agents": "is 2 under {0}"}
    | {"sampling.lag": AT_ONCE},
    "malt": dict.fromkeys(
        CREDIT, "is credit of MAPoRL: {0} values a message by its right continuations"
    )
    | dict.fromkeys(
        ("game.history", "game.reward_feedback", "game.feedback_verifier", "game.stop"),
        "is about turns after the first, and {0} plays one",
    )
    | dict.fromkeys(CRITICS, NO_CRITIC)
    | dict.fromkeys(DRAFTS, NO_DRAFTS)
    | NO_TOOLS
    | NO_SELF_PLAY
    | NO_OTHER_ENV
    | {"sampling.lag": TREES},
}
"""By scheme and name of a field, or group of fields; completes a sentence that begins with it."""
