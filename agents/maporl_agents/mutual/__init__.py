"""A language model and an agent without language teach each other (arXiv 2401.06603).

The **teacher**, a language model, reads where a student stands and what became of its last hint,
and writes one hint. The **student**, PPO of Stable-Baselines3, acts with the hint as a part of its
observation. It judges the hint by its own temporal-difference errors while the hint was in force,
which reward the teacher. Both learn at once; either can be frozen.

    worlds       environments with a student's observation, a text for the teacher, and hints
    student      the student and its judgement of hints
    lessons      both together: `run`

Needs the extra `mutual` (stable-baselines3, minigrid).
"""
