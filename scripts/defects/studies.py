"""Defects in control arms, intervals over seeds and verdicts."""

from __future__ import annotations

from .mutant import Defects

DEFECTS = (
    Defects(
        "agents/maporl_agents/studies/controls.py",
        ("tests/agents/studies/test_controls.py",),
        (
            ("if score == top", "if score >= top * 0.5"),
            ("self.members[agent], turn if", "agent, turn if"),
            ("turn if self.always is None else self.always", "turn"),
            ("islice(cycle(range(team.num_agents)), num_agents)", "range(num_agents)"),
            ("self._rng.shuffle(scores)", "scores.reverse()"),
            ("(prompt.debate + i) % len(transcripts)", "prompt.debate % len(transcripts)"),
            ("mine if mine.agent == agent else theirs", "theirs if mine.agent == agent else mine"),
            ("turn=team.num_turns - 1)", "turn=0)"),
            ("number = game.num_agents * game.num_turns", "number = game.num_agents"),
            ("if number % size != 1)", "if number % size != 0)"),
            ("questions[member :: team.num_agents]", "questions[member:]"),
            (
                "debate.num_tokens / (firsts.num_tokens / game.num_agents)",
                "debate.num_tokens / firsts.num_tokens",
            ),
            ("max(len(picked) - 1, 1)", "len(picked)"),
            ("if m.feedback is not None]", "if m.feedback]"),
            ("if not scored:\n        return 0.0", "if not scored:\n        return 1.0"),
            ("return sum(best) / len(best)", "return float(best[0])"),
            ('"greedy": sampling.greedy()', '"greedy": sampling'),
            ("feedback=shuffled)", "scorer=shuffled)"),
        ),
    ),
    Defects(
        "agents/maporl_agents/studies/seed_intervals.py",
        ("tests/agents/studies/test_seed_intervals.py",),
        (
            ("stdev(values) / math.sqrt(n)", "stdev(values) / n"),
            ("t_quantile(0.975, n - 1)", "t_quantile(0.975, n)"),
            ("t_quantile(0.975, n - 1)", "t_quantile(0.95, n - 1)"),
            ("first.keys() & second.keys()", "first.keys() | second.keys()"),
            ("first[seed] - second[seed]", "second[seed] - first[seed]"),
            (
                "-math.inf if self.half_width is None else self.mean - self.half_width",
                "self.mean - (self.half_width or 0)",
            ),
        ),
    ),
    Defects(
        "agents/maporl_agents/studies/verdicts.py",
        ("tests/agents/studies/test_verdicts.py",),
        (
            ("if rise.high < MARGIN:", "if rise.mean < MARGIN:"),
            ("if change.low <= 0 <= change.high:", "if change.low <= 0:"),
            ('"higher" if change.mean > 0', '"higher" if change.mean < 0'),
            ("kept = left.mean / rise.mean", "kept = 1 - left.mean / rise.mean"),
            ("(left if kept >= SURVIVED else loss).low <= 0", "loss.low <= 0"),
            ("(left if kept >= SURVIVED else loss).low <= 0", "left.low <= 0"),
            ('"The rise" if loss.low <= 0', '"The rise" if loss.low > 0'),
            ('"vanishes" if kept <= VANISHED', '"vanishes" if kept >= VANISHED'),
            ("if other.of not in (None, method.name):", "if False:"),
            ("left = difference(shuffled, before)", "left = difference(trained, before)"),
            (
                'difference(after, arm.scores(study.metric, "after", decoding, turn=0))',
                'difference(after, arm.scores(study.metric, "before", decoding))',
            ),
            (
                'return Verdict("supports", arm, above',
                'return Verdict("contradicts", arm, above',
            ),
        ),
    ),
)
