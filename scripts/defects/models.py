"""Defects in teams, value heads and generation."""

from __future__ import annotations

from .mutant import Defects

DEFECTS = (
    Defects(
        "agents/maporl_agents/text/stop_conditions.py",
        ("tests/agents/play/test_generation.py", "tests/agents/play/test_tool_loop.py"),
        (
            ("if ids[-1] in chat.stop_ids:", "if ids[-1] == min(chat.stop_ids):"),
            ("return StopReason.TEXT", "return StopReason.EOS"),
            ("sampling.stops_of(request.agent)", "sampling.stops_of(0)"),
            ("*request.stops)", ")"),
        ),
    ),
    Defects(
        "agents/maporl_agents/models/generation.py",
        ("tests/agents/play/test_generation.py",),
        (
            ("return len(self.ids) < self.limit", "return len(self.ids) <= self.limit"),
            ("noise[batch.alive, token]", "noise[: len(batch.alive), token]"),
            ("noise[batch.alive, token]", "noise[batch.alive, 0]"),
            ("chosen = chosen[batch.drop(going)]", "chosen = chosen[: len(batch.drop(going))]"),
            ("(*row.prompt, *row.ids[:-1])", "(*row.prompt, *row.ids)"),
            ("logits = temper(logits, drawing.temperature)", "pass"),
        ),
    ),
    Defects(
        "agents/maporl_agents/models/generation.py",
        ("tests/agents/play/test_values.py",),
        (
            ("hidden if len(places) == len(alive) else hidden[places]", "hidden[: len(places)]"),
            ("self.owners += [alive[place] for place in places]", "self.owners += places"),
            ("{} if base.critics or critics is None", "{} if critics is None"),
            ("values = self.heads[critic](states[own])", "values = self.heads[critic](states)"),
            ("self.owners.clear()", "pass"),
        ),
    ),
    Defects(
        "agents/maporl_agents/models/truncation.py",
        ("tests/agents/models/test_truncation.py", "tests/agents/play/test_truncated_sampling.py"),
        (
            ("(before < top_p)", "(before <= top_p)"),
            ("[:, :-1]  # (N, W - 1)", "[:, 1:]  # (N, W - 1)"),
            ("if 0 < truncation.top_k < logits.shape[1]", "if truncation.top_k > 1"),
            ("logits.topk(truncation.top_k).values[:, -1:]", "largest"),
            ("_nucleus_floor(only(logits, logits >= floor)", "_nucleus_floor(logits"),
            ("largest + share.log()", "share.log()"),
            ("(self.counts == 0)[:, None]", "(self.counts < 0)[:, None]"),
            ("(0,) * length", "(1,) * length"),
            ("larger = (ordered - total).exp().sum(-1) < top_p", "larger = total[:, 0] < -1e9"),
        ),
    ),
    Defects(
        "agents/maporl_agents/models/generation.py",
        ("tests/agents/play/test_truncated_sampling.py",),
        (
            ("logits = only(logits, mask)", "pass"),
            ("zip(alive, [0, *ends], ends, strict=False)", "zip(alive, ends, ends, strict=False)"),
        ),
    ),
    Defects(
        "agents/maporl_agents/models/caches/row_caches.py",
        ("tests/agents/play/test_kept_caches.py",),
        (
            ("key = base.weights_of(row.policy), row.prompt", 'key = "", row.prompt'),
            ("key = base.weights_of(row.policy), row.prompt", "key = str(index), row.prompt"),
            ("mask[place, : self._kept - length] = 0", "pass"),
            ("(torch.arange(-width, 0) + ends)", "torch.arange(width)"),
            (
                "self._positions = self._positions + 1\n        self._cache.length",
                "self._cache.length",
            ),
            ("places[target] = source", "pass"),
            ("self._cache.move(late, free, count)", "self._cache.move([], [], count)"),
            ("hidden[self._select(places)]", "hidden[torch.tensor(places)]"),
            (
                "[(1,) * len(prompt) for prompt in prompts])",
                "[(1,) * len(prompt) for prompt in prompts], 1)",
            ),
            ("self._cache.reorder_cache(index)", "pass"),
        ),
    ),
    Defects(
        "agents/maporl_agents/models/caches/row_storage.py",
        ("tests/agents/play/test_kept_caches.py",),
        (
            ("whole[rows, :, start:end] = new", "whole[rows, :, : end - start] = new"),
            ("start = end - past.length", "start = 0"),
        ),
    ),
    Defects(
        "agents/maporl_agents/models/caches/row_storage.py",
        ("tests/agents/play/test_cache_memory.py",),
        (("weakref.proxy(owner)", "owner"),),
    ),
    Defects(
        "agents/maporl_agents/models/caches/row_caches.py",
        ("tests/agents/play/test_cache_memory.py",),
        (("self._rows[row].past = None", "pass"),),
    ),
    Defects(
        "agents/maporl_agents/models/caches/kept_caches.py",
        ("tests/agents/play/test_kept_caches.py",),
        (
            ("min(_shared(ids, prompt), len(prompt) - 1)", "_shared(ids, prompt)"),
            ("known[max(place - 1, 0) : place + 1]", "known[place : place + 1]"),
            ("if length == len(ids):", "if length:"),
            ("if call == self._call:", "if False:"),
            ("if (weights := self._versions()) != self._weights:", "if False:"),
            ("if nbytes <= self.room:", "if True:"),
            ("self.nbytes -= self._kept.pop(key)[1]", "self._kept.pop(key)"),
        ),
    ),
    Defects(
        "agents/maporl_agents/models/uniforms.py",
        ("tests/agents/models/test_uniforms.py",),
        (
            ("Philox(key=key)", "Philox(key=0)"),
            ("right=True", "right=False"),
            ("* total, below_total)", "* total, total)"),
            ("chosen.clamp(max=logprobs.shape[1] - 1)", "chosen"),
            ("torch.where(stray, probabilities.argmax(-1), chosen)", "chosen"),
        ),
    ),
    Defects(
        "agents/maporl_agents/models/lean_trunk.py",
        ("tests/agents/models/test_lean_trunk.py",),
        (
            ("(real[:, 1:] > real[:, :-1])", "(real[:, 1:] < real[:, :-1])"),
            ("(place < rows) & real[:, None, None]", "(place < rows)[None, None]"),
            ("return lost if holes else None, False", "return None, False"),
            ('getattr(config, "sliding_window", None) is None', "True"),
            ('config.rope_parameters.get("rope_type") in _ROPE_TYPES', "True"),
            ("2 * len(trunk.rotary_emb.inv_freq) == head", "True"),
            ('config._attn_implementation == "sdpa"', "True"),
            ("rms_norm(query_norm, queries)", "queries"),
            ("cosines * rotary.attention_scaling", "cosines"),
        ),
    ),
    Defects(
        "agents/maporl_agents/models/packed_texts.py",
        ("tests/agents/models/test_packed_texts.py",),
        (
            ("if owners[i] == owners[i + 1] else 0", "if True else 0"),
            ("< start + shared", "< start"),
            ("leads = np.append(alike < lengths[:-1], True)", "leads = np.ones(len(order), bool)"),
            ("columns <= positions[:, None, :, None]", "columns < positions[:, None, :, None] + 2"),
            ("positions = positions[:1]", "positions = positions[:1] + 1"),
            (
                "np.arange(rows, rows + len(one.places))",
                "np.arange(rows, rows + len(one.places))[::-1]",
            ),
            ("int(lengths[first] if alone", "int(lengths[last - 1] if alone"),
            ("bool((queries == keys).all())", "True"),
        ),
    ),
    Defects(
        "agents/maporl_agents/models/lean_layers.py",
        ("tests/agents/models/test_lean_trunk.py",),
        (
            ("cosines, sines, -1), None", "cosines, sines, 1), None"),
            ("inner.addcmul_(normed.to(inner.dtype), mean)", "inner"),
            ("size) * size**-0.5", "size)"),
            (".add_(mask)", ".add(mask)"),
        ),
    ),
    Defects(
        "agents/maporl_agents/models/team.py",
        (
            "tests/agents/models/test_team.py",
            "tests/agents/models/test_lora.py",
            "tests/agents/algorithms/test_trained_slots.py",
        ),
        (
            (
                'return f"agent_{agent}_turn_{turn}"\n        case',
                'return f"agent_{agent}"\n        case',
            ),
            ("'first' if turn == 0 else 'later'", "'first' if turn <= 1 else 'later'"),
            ('else "_start")', 'else "")'),
            (
                "(min(agent, self.num_agents - 1), min(turn, self.num_turns - 1)) in",
                "(agent, turn) in",
            ),
            ("turn = min(turn, self.num_turns - 1)\n", "turn = turn\n"),
            (
                "return critic_name(agent, min(turn, self.num_turns - 1))",
                "return critic_name(agent, turn)",
            ),
            (
                "return critic_name(agent, min(turn, self.num_turns - 1))",
                "return critic_name(agent, 0)",
            ),
            ('base.save(folder / "critics", critics=True)', "pass"),
            (
                "return pairs + self._read_critics(folder / CRITICS_FILE)",
                "return pairs",
            ),
            ("own.copy_(saved)", "own.copy_(own)"),
        ),
    ),
    Defects(
        "agents/maporl_agents/models/critics.py",
        ("tests/agents/models/test_team.py",),
        (
            ("width**-0.5", "width**0.5"),
            ("self.outer.weight.zero_()", "self.outer.weight.fill_(1.0)"),
            ("torch.tanh(self.inner(", "(self.inner("),
        ),
    ),
    Defects(
        "agents/maporl_agents/models/grouped_products.py",
        ("tests/agents/models/test_grouped_adapters.py",),
        (
            ("some, b.t(), scale)", "some, b.t(), 1)"),
            ("grad_h = (part @ b).mul_(scale)", "grad_h = part @ b"),
            ("(part.t() @ h).mul_(scale)", "(part.t() @ h)"),
            ("else grad @ ctx.weight", "else torch.zeros_like(x)"),
            ("_add_product(grad_x[piece], grad_h, a, 1.0)", "pass"),
            ("grad_h.t() @ x[piece].to(a.dtype)", "grad_h.t() @ x[: len(part)].to(a.dtype)"),
            ("return more if total is None else total.add_(more)", "return more"),
            ("inner[i][piece.start - start : piece.stop - start]", "inner[i][: len(part)]"),
            ("(left @ right).mul_(scale).to(", "(left @ right).to("),
            ("return count // texts", "return 1"),
            ("start * per_text, end * per_text", "start, end"),
            ("s if name == n else 0.0", "s"),
            ("order[:, None] * per_text + places", "order[:, None] + places"),
            (
                "order = sorted(range(len(names)), key",
                "order = sorted(range(len(names)), reverse=True, key",
            ),
        ),
    ),
    Defects(
        "agents/maporl_agents/models/grouped_adapters.py",
        ("tests/agents/models/test_grouped_adapters.py",),
        (
            ("index_copy(0, order, ordered)", "index_copy(0, order.argsort(), ordered)"),
            ("torch.is_grad_enabled() or changes != self._changes", "torch.is_grad_enabled()"),
            ("torch.is_grad_enabled() or changes", "changes"),
            ("stack is None or not stack.names >= groups.adapters", "stack is None"),
            ("self._last[1].width != width", "False"),
            ("self._last[0] != inference", "False"),
            ("return result + y.to(result.dtype)", "return y.to(result.dtype)"),
            ("and not any(layer.lora_bias.values())", "and True"),
        ),
    ),
)
