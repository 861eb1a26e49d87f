"""Tasks of published data sets (GSM8K, MATH, MBPP, HotpotQA ...): local files, Hugging Face hub."""
