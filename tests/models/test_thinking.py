"""Test that a thought is told from an answer, in every form in which models write one."""

import pytest

from constitutional_ai.errors import OnlyThought
from constitutional_ai.models.model import Sampling
from constitutional_ai.models.thinking import Reply, completion_of, opens_thought, split_thought

A_KIND = "Only A is kind."
FORMS = {
    "a pair of tags": ("<think>\nOnly A is kind.\n</think>\n\n(B)", A_KIND, "(B)"),
    "no opening": ("Only A is kind.\n</think>\n\n(B)", A_KIND, "(B)"),
    "an opening on the next line": ("\n<think>Only A is kind.</think>(B)", A_KIND, "(B)"),
    "capitals": ("<THINK>Only A is kind.</THINK>(B)", A_KIND, "(B)"),
    "another word": ("<thinking>Only A is kind.</thinking>(B)", A_KIND, "(B)"),
    "a third word": ("<thought>Only A is kind.</thought>(B)", A_KIND, "(B)"),
    "a prefix": ("<seed:think>Only A is kind.</seed:think>(B)", A_KIND, "(B)"),
    "brackets": ("[THINK]Only A is kind.[/THINK](B)", A_KIND, "(B)"),
    "triangles": ("\u25c1think\u25b7Only A is kind.\u25c1/think\u25b7(B)", A_KIND, "(B)"),
    "control tokens": (
        f"<|START_THINKING|>{A_KIND}<|END_THINKING|><|START_RESPONSE|>(B)<|END_RESPONSE|>", A_KIND, "(B)"
    ),
    "inner text": ("<|inner_prefix|>Only A is kind.<|inner_suffix|>(B)", A_KIND, "(B)"),
    "a channel of one bar": ("<|channel>thought\nOnly A is kind.<channel|>(B)", A_KIND, "(B)"),
    "channels": (
        f"<|channel|>analysis<|message|>{A_KIND}<|end|>"
        "<|start|>assistant<|channel|>final<|message|>(B)<|return|>", A_KIND, "(B)"
    ),
    "channels without control tokens": ("analysisOnly A is kind.assistantfinal(B)", A_KIND, "(B)"),
    "sentences": ("Here is my thought process: Only A is kind. Here is my response: (B)", A_KIND, "(B)"),
    "an answer between tags": ("<think>Only A is kind.</think>\n<answer>(B)</answer>", A_KIND, "(B)"),
    "two thoughts": ("<think>One.</think>\n<think>Two.</think>\n(B)", "One.\n\nTwo.", "(B)"),
    "a thought between answers": (
        "<think>One.</think>First.\n<think>Two.</think>\nLast.", "One.\n\nTwo.", "First.\n\nLast."
    ),
    "an unclosed fence in it": ("<think>```\nOnly A is kind.</think>(B)", "```\nOnly A is kind.", "(B)"),
    "a cut one": ("<think>Only A is", "Only A is", ""),
    "a cut channel": ("<|channel|>analysis<|message|>Only A is", "Only A is", ""),
    "a cut channel without control tokens": ("analysisOnly A is", "Only A is", ""),
    "an empty one": ("<think>\n\n</think>\n\n(B)", None, "(B)"),
    "an empty one and nothing else": ("<think>\n\n</think>\n\n", "", ""),
    "none": (" (B)\n", None, "(B)"),
    "a tag in code": ("Write `<think>` and `</think>` around it.", None, "Write `<think>` and `</think>` around it."),
    "a tag in a fence": ("So:\n```\n<think>\nHm.\n</think>\n```", None, "So:\n```\n<think>\nHm.\n</think>\n```"),
    "a tag in quotation marks": ('It ends with "</think>".', None, 'It ends with "</think>".'),
    "a tag in a sentence": ("The tag <think> opens a thought.", None, "The tag <think> opens a thought."),
    "two thoughts in one line": ("<think>One.</think><think>Two.</think>(B)", "One.\n\nTwo.", "(B)"),
    "one inside another": ("<think>One.<think>Two.</think>Three.</think>(B)", "One.<think>Two.\n\nThree.", "(B)"),
    "a quotation mark on each side": ('I think "yes</think>It is "no" here', 'I think "yes', 'It is "no" here'),
    "its own end in code": ("<think>About `</think>` tags.</think>It closes.", "About `</think>` tags.", "It closes."),
    "begin of thought": ("<|begin_of_thought|>Only A is kind.<|end_of_thought|>(B)", A_KIND, "(B)"),
    "a channel without its first token": (
        f"analysis<|message|>{A_KIND}<|end|><|start|>assistant<|channel|>final<|message|>(B)", A_KIND, "(B)"
    ),
    "tags that a sentence speaks of": (
        "Models write <think> and then </think> before it.", None, "Models write <think> and then </think> before it."
    ),
    "an end that a sentence speaks of": ("Use the </think> tag to close.", None, "Use the </think> tag to close."),
    "an opening that a sentence speaks of": ("<thinking> is a tag.", None, "<thinking> is a tag."),
    "a channel that is quoted": (
        "The form is <|channel|>analysis<|message|>x<|end|> here.", None,
        "The form is <|channel|>analysis<|message|>x<|end|> here.",
    ),
    "the word analysis": ("analysis of the two answers: (B)", None, "analysis of the two answers: (B)"),
}  # fmt: skip


@pytest.mark.parametrize("text, thought, answer", FORMS.values(), ids=FORMS)
def test_every_form_is_split(text: str, thought: str | None, answer: str) -> None:
    assert split_thought(text) == Reply(thought, answer)


@pytest.mark.parametrize(
    "text, thought, answer",
    [
        ("Only A is kind.\n</think>\n(B)", A_KIND, "(B)"),
        ("Only A is", "Only A is", ""),
        ("<think>Only A is kind.</think>(B)", A_KIND, "(B)"),
        ("\n</think>\n\n(B)", None, "(B)"),
        ('It ends with "</think>(B)', 'It ends with "', "(B)"),
        ("Look at `</think>` in it.</think>(B)", "Look at `</think>` in it.", "(B)"),
    ],
)
def test_a_thought_that_the_prompt_opened(text: str, thought: str | None, answer: str) -> None:
    assert split_thought(text, opened=True) == Reply(thought, answer)


def test_an_answer_is_never_split_twice() -> None:
    for text, _, answer in FORMS.values():
        if answer:
            assert split_thought(answer) == Reply(None, answer), text


def test_a_prompt_opens_a_thought_only_at_its_end() -> None:
    assert opens_thought("<|im_start|>assistant\n<think>\n")
    assert opens_thought("[THINK]")
    assert not opens_thought("<|im_start|>user\nWhat is <think>?<|im_end|>\n<|im_start|>assistant\n")
    assert not opens_thought("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_a_thought_without_an_answer_is_a_fault_that_says_what_to_set() -> None:
    sampling = Sampling(max_tokens=128)
    with pytest.raises(OnlyThought, match="spent its 128 tokens thinking: raise thinking_tokens or max_tokens"):
        completion_of(Reply("Hm, so", ""), "m", "length", 3, 128, sampling)
    with pytest.raises(OnlyThought, match="thought, and gave no answer"):
        completion_of(Reply("", ""), "m", "stop", 3, 9, sampling)
    assert completion_of(Reply("Hm.", "(B)"), "m", "stop", 3, 9, sampling).thought == "Hm."
    assert completion_of(Reply(None, ""), "m", "stop", 3, 0, sampling).text == ""
