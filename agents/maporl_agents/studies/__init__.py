"""Studies: claims tested over seeds, controls and baselines; `maporl compare` runs them.

From the plan to the conclusions: `catalogue`, `schemes` and `arms` (the studies by name),
`plan` (arms and jobs), `jobs` and `job_pool` (how they are carried out), `results` (the figures),
`seed_intervals` and `multiple_testing` (the statistics), `verdicts` and `claims` (what follows
from them by rule), `page` (tables and Markdown).
"""
