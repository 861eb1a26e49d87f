"""Defects in rewards and credit."""

from __future__ import annotations

from .mutant import Defects

DEFECTS = (
    Defects(
        "maporl_env/rewards.py",
        ("tests/env/test_rewards.py", "tests/env/test_shaping.py"),
        (
            # Definition 1
            ("range(len(own_TA) - 2, -1, -1)", "range(len(own_TA) - 2, 0, -1)"),
            ("gamma * (later_TA[t + 1] + tail_A)", "gamma * (later_TA[t] + tail_A)"),
            ("gamma * (later_TA[t + 1] + tail_A)", "gamma * later_TA[t + 1] + tail_A"),
            ("gamma * (known_TA[t + 1] + discounts_A)", "gamma * (1 + discounts_A)"),
            ("/ np.where(used_A > 0.0, used_A, 1.0)", ""),
            ("used_A = valid_TA[t] + discounts_A", "used_A = discounts_A"),
            ("np.where(known_A, counted_A, last_A)", "np.where(known_A, last_A, counted_A)"),
            (
                "own_TA.sum(axis=1, keepdims=True) / np.maximum(count_T1, 1)",
                "own_TA.mean(axis=1, keepdims=True)",
            ),
            ('if share == "team" else (own_TA', 'if share == "own" else (own_TA'),
            ("return np.where(paid_TA, rewards_TA, 0.0)", "return rewards_TA"),
            ("paid_TA = valid_TA | _unscored", "paid_TA = _unscored"),
            # Tables 1 and 2
            (
                "_by_sign(majority_TA[:-1], alpha_wrong, alpha_right)",
                "_by_sign(majority_TA[:-1], alpha_right, alpha_wrong)",
            ),
            ("_by_sign(majority_TA[:-1], alpha_wrong", "_by_sign(majority_TA[1:], alpha_wrong"),
            (
                "_by_sign(own_TA[:-1], beta_wrong, beta_right)",
                "_by_sign(own_TA[:-1], beta_right, beta_wrong)",
            ),
            ("_by_sign(own_TA[:-1], beta_wrong", "_by_sign(own_TA[1:], beta_wrong"),
            ("bonus_TA[1:] += _flips(own_TA)", "bonus_TA[:-1] += _flips(own_TA)"),
            ("bonus_TA[:-1] += _flips(majority_TA)", "bonus_TA[:-1] -= _flips(majority_TA)"),
            ('(own_TA if majority == "others" else 0.0)', '(own_TA if majority == "all" else 0.0)'),
            ("np.sign(counted_TA)", "np.where(counted_TA >= 0, 1.0, -1.0)"),
            ("np.where(valid_TA, 2.0 * correct_TA - 1.0, 0.0)", "2.0 * correct_TA - 1.0"),
            (
                "np.where(sign_TA[1:] == -sign_TA[:-1], sign_TA[1:], 0.0)",
                "np.where(sign_TA[1:] != sign_TA[:-1], sign_TA[1:], 0.0)",
            ),
            ("np.where(sign_TA < 0, if_negative, 0.0)", "if_negative"),
        ),
    ),
    Defects(
        "maporl_env/credit.py",
        (
            "tests/env/test_rewards.py",
            "tests/env/test_shaping.py",
            "tests/env/debate/test_debate.py",
        ),
        (
            (
                "table_TA[:turns] -= self.costs(transcript)",
                "table_TA[:turns] += self.costs(transcript)",
            ),
            ("valid=~np.isnan(given)", "valid=None"),
            (
                "right, self.alpha, self.beta, self.majority",
                "right, self.beta, self.alpha, self.majority",
            ),
        ),
    ),
    Defects(
        "maporl_env/penalties.py",
        ("tests/env/debate/test_penalties.py",),
        (
            ("counts[run] > self.max_repeats", "counts[run] >= self.max_repeats"),
            ("len(words) < self.min_words", "len(words) <= self.min_words"),
        ),
    ),
)
