"""MAPoRL's world: language models that debate questions, as a multi-agent environment."""
