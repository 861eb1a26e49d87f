"""modelco's logit fusion, run by an interpreter that has it; prints one line of JSON.

Its class is used and not its command, which puts models on cuda devices and reads its own data.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main() -> None:
    work: dict[str, Any] = json.loads(sys.argv[1])
    import torch
    from model_collaboration.utils.logit_arithmetic import LogitArithmetic
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(work["models"][0], padding_side="left")
    fusion = LogitArithmetic(work["models"], ["cpu"] * len(work["models"]), tokenizer)
    if work["float32"]:  # it loads everything as bfloat16
        fusion.models = [model.float() for model in fusion.models]
    start = time.process_time()
    texts = fusion.batch_generate(
        work["prompts"],
        tokenizer,
        batch_size=len(work["prompts"]),
        max_new_tokens=work["limit"],
        do_sample=False,
    )
    seconds = time.process_time() - start
    print(json.dumps({"texts": texts, "cpu_seconds": seconds}))


if __name__ == "__main__":
    main()
