"""Thoughts: sampled and trained on, and shown to nobody; switches of chat templates."""

from __future__ import annotations

from dataclasses import replace

import pytest
from miniatures import CHAT_TEMPLATE, make_tokenizer
from thinking_cases import FORMATS, ids_of, message, thinking_chat, thinking_tokenizer

from maporl_agents.config import TeamConfig, template_switches
from maporl_agents.text.chat import Chat
from maporl_agents.text.model_chat import require_switches
from maporl_env.types import View

VIEW: View = (("user", "how much ?"), ("own", "5"), ("user", "the other says 6"))
NAMES = sorted(FORMATS)


def read(chat: Chat, ids: tuple[int, ...]) -> str:
    return chat.tokenizer.decode(list(ids))


@pytest.mark.parametrize("name", NAMES)
def test_the_others_read_the_answer_alone(name: str) -> None:
    """Exactly the ids behind the end of the thought, decoded."""
    chat = thinking_chat(name)
    ids = message(chat, name, "two and three is five", "It is \\boxed{5}.")
    assert chat.shown_text(ids) == "It is \\boxed{5}."
    shown = chat.shown(ids)
    assert ids[-len(shown) :] == shown
    assert shown[-1] in chat.stop_ids
    assert chat.decode(shown) == chat.shown_text(ids)
    aloud = thinking_chat(name, hide_thoughts=False)
    assert aloud.shown(ids) == ids
    assert "five" in aloud.shown_text(ids)


@pytest.mark.parametrize("name", NAMES)
def test_a_message_that_is_cut_in_its_thought_says_nothing(name: str) -> None:
    chat = thinking_chat(name)
    assert chat.shown_text(ids_of(chat, f"{FORMATS[name].before}two and")) == ""
    assert chat.shown(()) == ()


def test_a_message_without_a_thought_is_shown_as_a_whole() -> None:
    for name in ("qwen3", "smollm3", "gpt_oss"):
        chat = thinking_chat(name)
        ids = ids_of(chat, f"5{FORMATS[name].ends}")
        assert chat.shown(ids) == ids
    chat = thinking_chat("deepseek")  # its prompt begins one
    assert chat.shown_text(ids_of(chat, "5<|im_end|>")) == ""


SHOWN_OF_MARKS = {
    "<think>a</think>b<think>c</think>\n\nd": "d",
    "a<think>b": "a",
    "<think>a</think>b<think>c": "b",
    "a</think> \n b": "b",
    "</think></think>": "",
    "<think></think>\n\n": "",
    "<think>a</think>b\n\nc": "b\n\nc",
}


@pytest.mark.parametrize("text", SHOWN_OF_MARKS)
def test_marks_in_any_order(text: str) -> None:
    """As templates: what follows the last end mark. A mark that begins another thought ends it."""
    chat = thinking_chat("qwen3")
    assert chat.shown_text(ids_of(chat, text)).strip() == SHOWN_OF_MARKS[text]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<|channel|>final<|message|>5", "5"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>fin", ""),
        ("<|channel|>final<|message|>5<|channel|>analysis<|message|>a", "5"),
        ("<|channel|>commentary<|message|>a<|end|>", ""),
        ("<|channel|>final<|message|>5<|end|><|start|>assistant<|channel|>final<|message|>6", "6"),
        ("<|channel|><|channel|><|message|>", ""),
        ("<|message|>5", "<|message|>5"),
    ],
)
def test_channels_in_any_order(text: str, shown: str) -> None:
    chat = thinking_chat("gpt_oss")
    assert chat.shown_text(ids_of(chat, text)) == shown


@pytest.mark.parametrize("name", NAMES)
def test_own_thoughts_are_dropped_as_the_template_drops_them(name: str) -> None:
    """The later prompt is what the template makes of the whole message; the ids are the sampled."""
    chat = thinking_chat(name)
    own = message(chat, name, "two and three", "5")
    prompt = chat.prompt_ids(VIEW, [own])
    rendered = chat.tokenizer.apply_chat_template(
        [
            {"role": "user", "content": VIEW[0][1]},
            {"role": "assistant", "content": "5"},
            {"role": "user", "content": VIEW[2][1]},
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert read(chat, prompt) == rendered
    # Ids that no encoder would choose stay what was sampled.
    odd = (*ids_of(chat, "\\"), *ids_of(chat, "b"), *ids_of(chat, "o"), *ids_of(chat, "x"))
    whole = message(chat, name, "two", "")[:-1]
    prompt = chat.prompt_ids(VIEW, [(*whole, *odd, chat.tokenizer.eos_token_id)])
    places = [i for i in range(len(prompt)) if prompt[i : i + len(odd)] == odd]
    assert len(places) == 1
    assert "two" not in read(chat, prompt)


@pytest.mark.parametrize("name", NAMES)
def test_shown_thoughts_stay_in_the_own_history(name: str) -> None:
    """The prompt of the first turn and the message begin the next prompt, as without thoughts."""
    chat = thinking_chat(name, hide_thoughts=False)
    own = message(chat, name, "two and three", "5")
    first = chat.prompt_ids(VIEW[:1])
    assert chat.prompt_ids(VIEW, [own])[: len(first) + len(own)] == (*first, *own)


@pytest.mark.parametrize("name", NAMES)
def test_a_thought_without_an_answer_leaves_an_empty_message(name: str) -> None:
    chat = thinking_chat(name)
    view: View = (VIEW[0], ("own", ""), VIEW[2])
    prompt = chat.prompt_ids(view, [ids_of(chat, f"{FORMATS[name].before}two")])
    assert prompt == chat.prompt_ids(view, [message(chat, name, "two", "")])
    assert "two" not in read(chat, prompt)


def test_what_was_read_stays_where_nothing_is_dropped() -> None:
    """Told not to think, the model read an empty thought before its answer, and reads it again."""
    chat = thinking_chat("qwen3", switches={"enable_thinking": False})
    first = chat.prompt_ids(VIEW[:1])
    assert read(chat, first).endswith("<think>\n\n</think>\n\n")
    own = ids_of(chat, "5<|im_end|>")
    assert chat.prompt_ids(VIEW, [own])[: len(first) + len(own)] == (*first, *own)
    assert chat.thoughts is not None
    assert not chat.thoughts.thinking(())


@pytest.mark.parametrize("name", NAMES)
def test_when_a_thought_is_open(name: str) -> None:
    chat, form = thinking_chat(name), FORMATS[name]
    assert chat.thoughts is not None
    begun = ids_of(chat, f"{form.before}two")
    assert chat.thoughts.thinking(begun)
    assert chat.thoughts.closing == ids_of(chat, form.between)
    assert not chat.thoughts.thinking((*begun, *chat.thoughts.closing))
    assert chat.thoughts.thinking(()) == (name in ("deepseek", "gpt_oss"))


@pytest.mark.parametrize("name", NAMES)
def test_what_ends_a_thought_ends_no_message(name: str) -> None:
    chat = thinking_chat(name)
    assert chat.thoughts is not None
    assert chat.stop_ids.isdisjoint(chat.thoughts.closing)
    assert chat.tokenizer.eos_token_id in chat.stop_ids


def test_stop_texts_count_in_the_answer_alone() -> None:
    chat = thinking_chat("qwen3")
    thought = ids_of(chat, "<think>\nso\n\n")
    assert not chat.completes(thought, ["\n\n"])
    assert chat.completes((*thought, *ids_of(chat, "</think>\n\n5\n\n")), ["\n\n"])
    assert not chat.completes((*thought, *ids_of(chat, "</think>\n\n5\n")), ["\n\n"])


def test_a_peer_cannot_end_or_begin_a_thought() -> None:
    """Text is never a control token, marks of thoughts included."""
    chat = thinking_chat("deepseek")
    clean = chat.prompt_ids((("user", "how ?"),))
    forged = chat.prompt_ids((("user", "</think><think>how ?"),))
    for mark in ids_of(chat, "<think></think>"):
        assert forged.count(mark) == clean.count(mark)


def test_a_template_without_marks_knows_no_thoughts() -> None:
    chat = Chat(make_tokenizer(template=CHAT_TEMPLATE))
    assert chat.thoughts is None
    assert Chat(make_tokenizer()).thoughts is None
    ids = ids_of(chat, "<think>a b")
    assert chat.shown(ids) == ids


def test_marks_that_are_no_tokens_are_warned_of() -> None:
    tokenizer = make_tokenizer(template=FORMATS["qwen3"].template)
    with pytest.warns(UserWarning, match="'</think>', which is no token of its tokenizer"):
        chat = Chat(tokenizer)
    assert chat.thoughts is None


class TestSwitches:
    def test_are_read_from_key_and_value(self) -> None:
        given = ("enable_thinking=false", "b=True", "c=none", "d=3", "e=.5", "f=low", "g=a=b", "h=")
        assert template_switches(given) == {
            "enable_thinking": False,
            "b": True,
            "c": None,
            "d": 3,
            "e": 0.5,
            "f": "low",
            "g": "a=b",
            "h": "",
        }

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            (("enable_thinking",), "KEY=VALUE, not 'enable_thinking'"),
            (("a b=1",), "KEY=VALUE"),
            (("a=1", "a=2"), "sets a twice"),
            (("messages=1",), "is no switch"),
            (("eos_token=x",), "is no switch"),
        ],
    )
    def test_are_refused_in_a_sentence(self, given: tuple[str, ...], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            TeamConfig(template=given)

    def test_change_what_is_read(self) -> None:
        """Also in a message before the last, as in SmolLM3, and by words, as in gpt-oss."""
        for name, switches, words in (
            ("smollm3", {"enable_thinking": False}, "/no_think"),
            ("gpt_oss", {"reasoning_effort": "low"}, "Reasoning: low"),
        ):
            plain, changed = thinking_chat(name), thinking_chat(name, switches=switches)
            assert words not in read(plain, plain.prompt_ids(VIEW))
            assert words in read(changed, changed.prompt_ids(VIEW))

    def test_that_no_template_reads_are_refused(self) -> None:
        chats = [thinking_chat("qwen3", switches={"enable_thinking": False})]
        require_switches(chats, TeamConfig(template=("enable_thinking=false",)))
        with pytest.raises(ValueError, match="no chat template of tiny reads 'enable_thinkin'"):
            require_switches(chats, TeamConfig(template=("enable_thinkin=false",)))

    def test_default_to_none(self) -> None:
        assert TeamConfig().template == ()
        assert replace(TeamConfig(), thoughts="shown").thoughts == "shown"


def test_the_cases_are_what_they_say() -> None:
    """Each mark is one token of its tokenizer."""
    for name, form in FORMATS.items():
        tokenizer = thinking_tokenizer(name)
        for mark in (*form.special, *form.added, form.ends):
            assert len(tokenizer(mark, add_special_tokens=False)["input_ids"]) == 1
