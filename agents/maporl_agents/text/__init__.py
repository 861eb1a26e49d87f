"""The border between text and token ids: chat templates, prompts, decoding."""
