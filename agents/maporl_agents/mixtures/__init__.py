"""Several models as one: by who is called, by their next-token distributions, by their weights.

The levels of exchange of "When One LLM Drools" (arXiv 2502.04506) below the message:

- `product_of_experts`, `collab`: models that write one message together, token by token;
- `merged_adapters`: one adapter from those of a team;
- `fused`: one model trained towards the distributions of several.

Who is called, without a look inside, is `maporl_env.bridges.calls`.
"""
