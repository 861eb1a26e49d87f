"""Language-model agents that speak in `maporl_env` and are trained by it.

Nothing is imported here, so that each module costs only what it needs itself. Start reading at
`maporl_agents.algorithms`, one training loop per file; `maporl_agents.types` says what flows
between its steps. Install with `pip install 'maporl[train]'`.
"""
