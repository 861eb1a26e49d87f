"""ReAd: agents propose actions, a critic scores them, and poor ones are proposed again.

Zhang et al., "Towards Efficient LLM Grounding for Embodied Multi-Agent Collaboration"
(arXiv 2405.14314). The policies, such as language models, stay as they are; only the critic learns.

- `values`: Q of ordered subsets of agents, and the advantages that follow from it;
- `features`: vectors of states and actions, for critics that are networks
  (`maporl_agents.revision`);
- `teams`: both on PettingZoo environments;
- `revise`: propose, score, propose again, for one agent (ReAd-S) or a joint plan (ReAd-J).
"""
