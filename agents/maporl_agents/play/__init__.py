"""The only place where an environment is stepped: prompts in, completions and rollouts out."""
