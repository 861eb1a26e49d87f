"""What `maporl plan` knows of a run before it is one: memory, tokens and time of a step.

`plan` puts it together from `sketch` (the run's own code on shapes without numbers), `ledger` (what
that takes), `stand_ins` (messages at their limits) and `machine` (what there is); `rehearsal` times
steps with random weights; `page` prints.
"""
