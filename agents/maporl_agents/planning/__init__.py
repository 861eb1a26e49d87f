"""`maporl plan`: the memory, tokens and time of a training step, before the run starts.

`plan` puts it together from `sketch` (the run's own code on shapes without numbers), `ledger` (what
costs), `turns` and `step_costs` (the parts of a step), `stand_ins` (messages at their limits) and
`machine` (the device); `rehearsal` times steps with random weights; `page` prints.
"""
