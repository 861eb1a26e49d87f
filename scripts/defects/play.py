"""Defects in rollouts and sampling."""

from __future__ import annotations

from .mutant import Defects

DEFECTS = (
    Defects(
        "agents/maporl_agents/play/rollout.py",
        ("tests/agents/play/test_rollout.py",),
        (
            ("tapes[prompt.debate].own(prompt.agent_index)", "tapes[prompt.debate].own(0)"),
            ('stream = seed_of(seed, "sample", turn)', 'stream = seed_of(seed, "sample", 0)'),
            ('stream = seed_of(seed, "sample", turn)', 'stream = seed_of(0, "sample", turn)'),
            ("completion.stop is StopReason.LENGTH", "completion.stop is StopReason.EOS"),
            ("tapes[prompt.debate].record(", "tapes[0].record("),
            ("if one.request.agent == agent", "if one.request.agent != agent"),
            ("self.said.append(written)", "self.said.insert(0, written)"),
        ),
    ),
    Defects(
        "agents/maporl_agents/play/speak.py",
        ("tests/agents/play/test_speak.py", "tests/agents/play/test_rollout.py"),
        (
            ("team.policy(prompt.agent_index, prompt.turn)", "team.policy(prompt.agent_index, 0)"),
            ("(id(chat), prompt.view, tuple(earlier))", "(id(chat), prompt.view, ())"),
            ("encoded[key], who[0], debate,", "encoded[key], 0, debate,"),
            ("first_debate + prompt.debate", "first_debate"),
        ),
    ),
    Defects(
        "agents/maporl_agents/play/local_engine.py",
        ("tests/agents/play/test_generation.py",),
        (
            ("length + row.limit > window", "length + row.limit >= window"),
            ("length + row.limit > window", "length > window"),
            (
                "row.completion(base.chat) for row, base in zip(rows, bases, strict=True)]",
                "row.completion(base.chat) for row, base in zip(rows[::-1], bases, strict=True)]",
            ),
        ),
    ),
    Defects(
        "agents/maporl_agents/play/limits.py",
        (
            "tests/agents/play/test_generation.py",
            "tests/agents/play/test_turn_limits.py",
            "tests/agents/play/test_tool_loop.py",
        ),
        (
            ("limit_of(request.agent, request.turn)", "limit_of(0, request.turn)"),
            ("limit_of(request.agent, request.turn)", "limit_of(request.agent, 0)"),
            ("request.debate, request.agent, *parts)", "request.debate, *parts)"),
            ("request.debate, request.agent, *parts)", "request.agent, *parts)"),
            ("(request.part,) if request.part else ()", "()"),
        ),
    ),
    Defects(
        "agents/maporl_agents/play/tool_loop.py",
        ("tests/agents/play/test_tool_loop.py",),
        (
            ("limit - sum(len(part.ids) for part in self.parts)", "limit"),
            ("stops=self.tools.ends if more else ()", "stops=self.tools.ends"),
            ("len(self.results) < self.tools.calls", "len(self.results) <= self.tools.calls"),
            ("(place, place + len(ids))", "(place, place + len(ids) - 1)"),
            ("any(end in part.text for end in ends)", "False"),
            ("self._room() < 1", "self._room() < 0"),
            ("prompt=(*self.request.prompt, *ids)", "prompt=self.request.prompt"),
            ("> self.sampling.tool_tokens", "> 2 * self.sampling.tool_tokens"),
        ),
    ),
)
