"""ReAd's critic as a network; the rest of ReAd needs no deep learning: `maporl_env.revision`."""
