"""MAPoRL's world: language models that debate questions, as a multi-agent environment.

Importing it registers the environments:

    pettingzoo.make("aec", "maporl/debate-v0")           pettingzoo.make("parallel", ...)
    gymnasium.make("maporl/Debate-v0")                   one learner among given partners
    gymnasium.make("maporl/TokenDebate-v0")              the same in token ids, one per step
    gymnasium.make_vec("maporl/Debate-v0", num_envs)     many debates in lock step
    pettingzoo.make("parallel", "maporl/collaboration-v0")   the two-agent game, solved exactly
    gymnasium.make("maporl/Collaboration-v0")            the same with a fixed partner
    pettingzoo.make("aec", "maporl/takeaway-v0")         a zero-sum game in text, solved exactly

Gymnasium imports it by itself for a name that begins with it, "maporl_env:maporl/Debate-v0";
PettingZoo knows no such names, and neither library loads environments that are only installed.
PettingZoo before 1.27 has no `make`: there `maporl_env.debate_v0.env()` and the like remain.
"""

from maporl_env import moved_modules as _moved_modules
from maporl_env import registration as _registration

_registration.register_all()
_moved_modules.forward(
    "maporl_env",
    {
        "code_tests": "verifiers.programs",
        "remote": "verifiers.remote",
        "benchmark.playing": "benchmark.scoring",
        "http_json": "services.http_json",
        "protocols.conversation": "protocols.observation_layout",
        "tasks.anli": "tasks.published.anli",
        "tasks.gsm8k": "tasks.published.gsm8k",
        "tasks.humaneval": "tasks.published.humaneval",
        "tasks.tinygsm": "tasks.published.tinygsm",
        "verifiers.latex": "verifiers.latex_equivalence",
        "web": "services.http_json",
    },
)
