"""Defects in figures of evaluations and in self-play."""

from __future__ import annotations

from .mutant import Defects

DEFECTS = (
    Defects(
        "maporl_env/intervals.py",
        ("tests/env/test_intervals.py",),
        (
            ("share + weight / 2", "share + weight"),
            ("count + weight / (4 * count)", "count + weight / count"),
            ("0.0 if right == 0 else max(middle - width, 0.0)", "max(middle - width, 0.001)"),
            ("(0.025, 0.975)", "(0.05, 0.95)"),
            ("np.isin(x, (0.0, 1.0)).all()", "np.isin(x, (0.0, 1.0)).any()"),
            ("count / (count - 1)", "(count - 1) / count"),
        ),
    ),
    Defects(
        "agents/maporl_agents/measure/pass_at_k.py",
        ("tests/agents/measure/test_pass_at_k.py",),
        (
            ("range(k, 0, -1)", "range(1, k + 1)"),
            ("(1 - chance) * wrong[size - 1]", "chance * wrong[size - 1]"),
            ("math.comb(upto, k) - math.comb(below, k)", "math.comb(upto, k)"),
            ("total += ways * sum(equal) / len(equal)", "total += ways * max(equal)"),
            ("range(0, len(ballots) - k + 1, k)", "range(0, len(ballots), k)"),
            ("-math.inf if pick is None else pick", "0.0 if pick is None else pick"),
            ("top = max(scores)", "top = min(scores)"),
            ("transcript.of_turn(transcript.turn - 1)", "transcript.of_turn(0)"),
        ),
    ),
    Defects(
        "agents/maporl_agents/self_play/ratings.py",
        ("tests/agents/self_play/test_ratings.py",),
        (
            ("(other - rating) / 400.0", "(rating - other) / 400.0"),
            ("score - expected_score(rating, other)", "score - 0.5"),
            ("self.versions[step] = self.now", "self.versions[step] = START"),
            ("self.versions[opponent], score", "self.best, score"),
            ('int(row["step"]) % every == 0', 'int(row["step"]) % every == 1'),
        ),
    ),
    Defects(
        "agents/maporl_agents/self_play/opponent_pool.py",
        ("tests/agents/self_play/test_opponent_pool.py",),
        (
            ("joined[-(most - 1) :]", "joined[-most:]"),
            ("range(every, step + 1, every)", "range(every, step, every)"),
            ("return versions[-1]", "return versions[0]"),
            (
                "expected_score(ratings.versions[v], ratings.now)",
                "expected_score(ratings.now, ratings.versions[v])",
            ),
            (
                "checkpoint_folder.step_of(path) not in versions",
                "checkpoint_folder.step_of(path) in versions",
            ),
        ),
    ),
    Defects(
        "agents/maporl_agents/self_play/games.py",
        ("tests/agents/self_play/test_games.py",),
        (
            ("int(question.answer) % 2", "int(question.answer) % 1"),
            ("if m.agent == whole.agents[seat]", "if m.agent != whole.agents[seat]"),
            ("self.games.score_mask() & mine", "self.games.score_mask() | mine"),
            ("(np.sign(paid) + 1) / 2", "(1 - np.sign(paid)) / 2"),
            ("if own else next(theirs)", "if not own else next(theirs)"),
        ),
    ),
    Defects(
        "maporl_env/takeaway_v0.py",
        ("tests/env/test_takeaway.py",),
        (
            ("1 if stones % (most + 1) else -1", "1 if stones % most else -1"),
            ("[-1.0], [1.0]", "[1.0], [-1.0]"),
            ("waiting.append(min(", "waiting.append(max("),
            ("int(boxes[-1])", "int(boxes[0])"),
            (
                "1 <= move <= min(self.most, self.stones)",
                "0 <= move <= min(self.most, self.stones)",
            ),
            ("winner = agent if legal else other", "winner = agent"),
        ),
    ),
)
