"""Studies: claims put to the test over seeds, controls and baselines; `maporl compare` runs them.

From what is planned to what is said of it: `catalogue` and `schemes` (which studies there are),
`plan` (arms and jobs), `jobs` and `pool` (how they are carried out), `results` (the figures),
`verdicts` and `claims` (what follows from them by rule), `page` (tables and Markdown).
"""
