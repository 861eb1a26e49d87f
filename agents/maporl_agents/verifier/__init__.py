"""The learned verifier: a language model with a linear head that scores answers as right or wrong.

`data` samples and balances labelled answers, `model` scores them, `training` fits the model,
`metrics` and `evaluation` say how good it is. After Park et al. (2025), section 3.1 and appendix.

    from maporl_agents.verifier.model import LearnedVerifier
"""
