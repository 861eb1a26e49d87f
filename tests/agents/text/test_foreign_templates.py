"""Chat templates of others: refused in a sentence, bounded in time and memory."""

from __future__ import annotations

import subprocess
import warnings

import pytest
from chat_cases import make_chat, view_of
from dialects import DIALECTS, dialect_tokenizer
from miniatures import CHAT_TEMPLATE, make_tokenizer

from maporl_agents.text import template_process
from maporl_agents.text.chat import Chat
from maporl_agents.text.template_process import render


class TestForeignTemplates:
    """Failure X13: a template is code from a model's folder."""

    ENDLESS = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
    GROWING = "{% set x = namespace(s='x') %}{% for i in range(60) %}{% set x.s = x.s ~ x.s %}"

    @pytest.mark.parametrize(
        ("template", "reason"),
        [
            ("{{ messages.__class__.__mro__ }}", "SecurityError: access to attribute '__class__'"),
            ("{% for m in messages %}{{ m.content }}", "TemplateSyntaxError: Unexpected end"),
            pytest.param(ENDLESS, "more than 2 s of processor time", marks=pytest.mark.thorough),
            ("{{ 9 ** (9 ** 9) }}", "more than 2 s of processor time"),
            pytest.param(
                GROWING + "{% endfor %}",
                "MemoryError|2 s of processor time",
                marks=pytest.mark.thorough,
            ),
            (
                "{% for i in range(99999) %}{{ 'x' * 99 }}{% endfor %}",
                "writes 9,899,901 characters",
            ),
            ("{{ nothing.at.all }}", "UndefinedError"),
            ("no content", "leaves out a message"),
        ],
    )
    def test_are_refused_in_a_sentence(self, template: str, reason: str) -> None:
        tokenizer = make_tokenizer(template=template)
        with pytest.raises(ValueError, match=reason) as caught:
            Chat(tokenizer)
        assert "chat template" in str(caught.value)
        assert "remove or repair" in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.thorough
    def test_that_wait_for_a_longer_conversation_are_bounded_too(self) -> None:
        late = "{% if messages | length > 4 %}" + self.ENDLESS + "{% endif %}" + CHAT_TEMPLATE
        chat = Chat(make_tokenizer(template=late))
        with pytest.raises(ValueError, match="more than 2 s of processor time"):
            chat.prompt_ids(view_of())
        assert make_chat("chatml").prompt_ids(view_of())  # the next one finds a new process

    @pytest.mark.thorough
    def test_a_killed_process_is_replaced(self) -> None:
        """Whoever killed it, the machine short of memory or a user: later calls find a new one."""
        for _ in range(2):
            assert render("{{ messages[0]['content'] }}", [{"content": "how"}], {}) == "how"
            process = template_process._WORKER._process
            assert process is not None
            process.kill()
            process.wait()

    @pytest.mark.thorough
    def test_how_the_process_ended_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        render("", [], {})
        process = template_process._WORKER._process
        assert process is not None

        def killed_meanwhile() -> subprocess.Popen[str]:
            process.kill()
            process.wait()
            return process

        with monkeypatch.context() as patch:
            patch.setattr(template_process._WORKER, "_running", killed_meanwhile)
            with pytest.raises(ValueError, match="renders it was ended by SIGKILL"):
                render("", [], {})
        assert render("a", [], {}) == "a"

    def test_the_others_read_as_the_library_renders_them(self) -> None:
        for name in DIALECTS:
            tokenizer = dialect_tokenizer(name)
            if tokenizer.chat_template and "strftime" not in tokenizer.chat_template:
                said = [{"role": "user", "content": "how much ?"}]
                expected = tokenizer.apply_chat_template(
                    said, tokenize=False, add_generation_prompt=True
                )
                found = render(tokenizer.chat_template, said, tokenizer.special_tokens_map)
                assert found == expected, name

    def test_with_plain_words_for_roles_are_warned_of(self) -> None:
        words = (
            "{% for m in messages %}### {{ m['role'] }}:\n{{ m['content'] }}\n{% endfor %}"
            "### assistant:\n"
        )
        with pytest.warns(UserWarning, match="plain words, not control tokens"):
            Chat(make_tokenizer(template=words))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            make_chat("chatml")
