"""The bench of systems: ways to collaborate, at equal generated tokens, on the same questions.

`maporl compare systems` carries it out. `tasks` says what is asked, `catalogue` who answers,
`training` how teams are trained, `equal_tokens` in how many passes, `jobs` plays and measures one
system with one seed, `workers` runs jobs side by side, `claims` and `page` say what came out.
"""
