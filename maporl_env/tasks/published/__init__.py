"""Published data sets in formats of their own, from local files or the Hugging Face hub."""
