"""Parts of reading a message, for `maporl_env.answers`: lines with an answer, blocks of code."""
