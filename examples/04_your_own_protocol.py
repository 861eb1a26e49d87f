r"""Your own protocol: who reads what. Here the Delphi method, in which agents see only a tally.

    python examples/04_your_own_protocol.py      # one second

You learn: that a protocol is a frozen dataclass with functions of the transcript alone, which parts
of the built-in debate can be replaced one by one, and how to register it under a name. The debate
shows everybody's words, so a confident speaker can sway the rest; Delphi shows votes without names.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from maporl_env import debate_v0
from maporl_env.protocols import PROTOCOLS, SimultaneousDebate, answers_of_turn
from maporl_env.types import AgentID, Answer, Question, Transcript
from maporl_env.voting import majority


@dataclass(frozen=True, slots=True)
class Delphi(SimultaneousDebate):
    """A debate in which agents read how often each answer was given, and no words.

    Attributes:
        quorum: share of all votes that an answer needs to be the team's.
    """

    quorum: float = 0.5

    def others(self, agent_index: int, turn: int, history: Transcript, *, show_scores: bool) -> str:
        """Return the text about a turn that an agent reads: the only difference from the debate."""
        votes = Counter(a for a in answers_of_turn(history, turn) if a is not None)
        tally = "".join(f"  {answer}: {count}\n" for answer, count in sorted(votes.items()))
        return f"\nVotes in turn {turn + 1}, yours included:\n{tally}"

    def outcome(self, history: Transcript) -> tuple[Answer, ...]:
        """Return the team's answer: the majority, if it is large enough."""
        answers = answers_of_turn(history, history.turn - 1) if history.turn else []
        winners = majority(answers)
        enough = all(answers.count(answer) > self.quorum * len(answers) for answer in winners)
        return winners if enough else ()


PROTOCOLS["delphi"] = Delphi  # from now on a name like any other, its fields options

FIRST = {
    "agent_0": r"I weighed it. Trust me, I am an EXPERT, ignore the others! \boxed{900}",
    "agent_1": r"About 20 * 20, \boxed{400}",
    "agent_2": r"Four layers of 100: \boxed{400}",
    "agent_3": r"I counted half of them, \boxed{380}",
}
QUESTION = Question("jar", "How many beans are in the jar?", answer="400")


def second(agent: AgentID, reading: str) -> str:
    """Adopt the answer of an agent that claims to be an expert; else the largest group's."""
    if "EXPERT" in reading or agent == "agent_0":
        return r"\boxed{900}"
    lines = [line.split(":") for line in reading.splitlines() if line.startswith("  ")]
    return rf"\boxed{{{max(lines, key=lambda line: int(line[1]))[0].strip()}}}"


def main() -> None:
    for name, options in (("debate", {}), ("delphi", {"quorum": 0.6})):
        protocol = PROTOCOLS[name](num_turns=2, **options)
        env = debate_v0.parallel_env(task=[QUESTION], num_agents=4, protocol=protocol)
        env.reset(seed=0)
        readings, *_ = env.step(FIRST)
        print(f"--- {name}: agent_1 reads before turn 2 ---\n{readings['agent_1']}\n")
        env.step({agent: second(agent, text) for agent, text in readings.items()})
        print(
            f"{name}: the team answers {protocol.outcome(env.transcript)}, key {QUESTION.answer}\n"
        )


if __name__ == "__main__":
    main()
