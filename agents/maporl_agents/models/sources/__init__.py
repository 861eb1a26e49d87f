"""Where models come from: the Hugging Face hub, models fetched by a short name, GGUF files."""
