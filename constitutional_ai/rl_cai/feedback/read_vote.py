"""Read which option a feedback model's reply votes for (method ``votes``).

A vote is read only where one option is named as the better one, or one is objected to. A model that argues names both:
"(A) is harmful" is no vote for A. Whatever stays unclear is no vote, because a guess would be bias.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from constitutional_ai.models.thinking import split_thought

Vote = Literal["A", "B"]

BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\text\w*\s*\{\s*)?\(?\s*([AB])\s*\)?\s*\}?\s*\}", re.IGNORECASE)
MARKS = re.compile(r"[*_`\"“”$]+|</?[a-z]+>")
NOUN = r"(?:option|response|answer|reply|choice|assistant)"
BRACKETED = re.compile(
    rf"(?:\b{NOUN}\s+)?(?:\(\s*([AB])\s*\)|\[+\s*([AB])\s*\]+)|^\W*([AB])\s*\)", re.IGNORECASE
)
FOLLOWS = (
    r"(?=\s*(?:$|[.,:;!?)}\]/\n>=-])|\s+(?:is|was|because|since|as|over|and|or|nor|to|than|rather|instead"
    r"|wins|beats|gets|should)\b)"
)
BARE = re.compile(rf"\b(?i:{NOUN})\s+([AB])(?![\w'’])|(?<![\w<'’])([AB])(?![\w'’]){FOLLOWS}")
"""A letter without brackets. "A good question" begins with an article."""
ORDINAL = re.compile(rf"\bthe\s+(?:(first)|second)(?:\s+(?:one|{NOUN})\b|{FOLLOWS})", re.IGNORECASE)
"""The options are shown in the order of their letters."""
SMALL = re.compile(r"\b(answer|vote|choice|verdict)(\s*(?:is|:)\s*)([ab])(?=\W*$)", re.IGNORECASE)
SENTENCE = re.compile(r"([.;!?\n]+)")
LETTER = re.compile(r"<([AB])>")
SPOKEN = (
    r"\b(?:answer|choice|choos\w*|chose|pick\w*|select\w*|prefer\w*|vote|verdict|decision|winner|go with)\b"
)
BOTH = r"<[AB]>\s*(?:/|&|and|or|nor|versus|vs)\s*<[AB]>"
JOINT = re.compile(r"<([AB])>\s*(?:[,/&=]|and|or|nor|versus|vs)\s*(?:<|$)")
RATHER = re.compile(r"<([AB])>,?\s*(?:over|to|not|rather than|instead of|than|>+)\s*(?:the\s+)?<[AB]>")
BESIDE = re.compile(
    r"\b(?:compared (?:to|with)|in contrast to|rather than|instead of|unlike)\s+(?:the\s+)?<[AB]>,?",
    re.IGNORECASE,
)
"""The option that another one is held against."""
OTHERS = r"(?:users?|some|others|people|one (?:could|might|may)|readers?)"
"""People whose choice is not the model's."""
FORCED = r"if\b[^,<]*\b(?:had to|have to|must|were to|forced|pressed)\b[^,<]*"
LEAD = re.compile(
    r"^\W*(?:(?:between|(?:out )?of|among|comparing|considering|given|from|looking at|when\b[^,<]*|to\b[^,<]*"
    rf"|{FORCED})\s*{BOTH}\s*,|{FORCED},|(?:although|though|while|even (?:though|if)|despite|because|since|as)\b[^,]*,"
    rf"|(?:(?:(?!{SPOKEN})[^,])*|[^,]*\b{OTHERS}\b[^,]*),\s*(?:but|yet|still)\b)\s*",
    re.IGNORECASE,
)
"""What stands before a main clause: both options as what is compared, a concession, or a reservation."""
TRAIL = re.compile(
    r",?\s*\b(?:because|since|due to|(?:even )?though|although|while|whereas|as\s*(?=<|(?:it|its|they|this|the)\b))"
    r".*",
    re.IGNORECASE | re.DOTALL,
)
"""A reason or a concession after a main clause, in which the other option may be praised."""

BAD = (
    r"(?:harmful|worse|worst|bad|wrong|rude\w*|unsafe|dangerous|toxic|unethical|illegal|biased|racist|sexist|offensive"
    r"|inappropriate|incorrect|unhelpful|evasive|unacceptable|cruel|inferior|misleading)"
)
FINE = r"(?:helpful|harmless|honest|ethical|appropriate|polite|kind|safe|good|acceptable|correct|right)"
WORSE = (
    rf"(?<!less )(?<!least )(?<!not )(?<!no )(?<!nothing )\b{BAD}\b|\b(?:less|least) {FINE}\b"
    r"|\bthe one to (?:avoid|reject)\b"
)
BETTER = (
    rf"\b(?:better|best|preferable|preferred|safer|safest|superior|right|correct|harmless|acceptable|the one(?! to)"
    rf"|(?:less|least|not) {BAD}|(?:more|most) {FINE})\b"
)
REJECTS = re.compile(
    r"\b(?:not|never|cannot be|against|avoid\w*|reject\w*|except|anything but|other than|opposite of|unlike)"
    r"\s*(?:go with\s*|vote for\s*|\w+\s*)?$"
    rf"|(?:{WORSE})[^<,]*$",
    re.IGNORECASE,
)
DOUBT = re.compile(
    r"\b(?:not|never|neither|cannot|no(?!,)|nor|refuse|decline|hardly|far from|hard to|whether|if|either|both|between"
    rf"|could|so (?:does|is|do|are)|{OTHERS})\b|n't\b",
    re.IGNORECASE,
)
DECIDES = re.compile(SPOKEN, re.IGNORECASE)
COMPARED = re.compile(r"\b(?:than|as)\s*$", re.IGNORECASE)
MIXED = re.compile(
    rf"\bbut\s+(?:also\s+|much\s+|far\s+)?(?:{WORSE}|{BETTER})"
    r"|\bin (?!my|every|all|general|this|both)[^<]*<[AB]>[^<]*\bin (?!my|every|all|general|this|both)",
    re.IGNORECASE,
)
"""Better in one thing and worse in another."""
CONDITION = re.compile(
    r"^\W*(?:if|unless)\b[^,]*<[AB]>(?!\s*(?:and|or)\b)"
    rf"|(?:{SPOKEN}|would be)[^,]*(?<!even )\b(?:if (?!forced|I must)|unless)\b",
    re.IGNORECASE,
)
LINK = r"(?:is|was|are|seems|sounds|looks|would be|might be|may be|feels)\b"
IS = rf"^\s*{LINK}"
WINS = re.compile(
    r"^\s*(?:wins|beats|outperforms|gets my (?:vote|pick)|should (?:be|get) (?:chosen|preferred|picked|selected)"
    rf"|{LINK}\s+(?:the|my)\s+(?:final\s+|clear\s+)?(?:answer|choice|pick|winner|vote|verdict|preference)(?! to))\b",
    re.IGNORECASE,
)
LABEL = r"^\s*[:|–—-]+\s*(?:(?:it|this|is|too|very|quite|clearly|far|much)\s+)*"
LABEL_END = r"(?=\s*(?:[|,]|$))"
LABELLED_BETTER = re.compile(rf"{LABEL}{BETTER}{LABEL_END}", re.IGNORECASE)
LABELLED_WORSE = re.compile(rf"{LABEL}(?:{WORSE}){LABEL_END}", re.IGNORECASE)
"""A verdict beside an option, in a list or a table: "(A): harmful"."""
IS_BETTER = re.compile(
    rf"{IS}(?:\s+(?:(?!hardly|barely|scarcely|only)\w+ly|much|far|the|a|bit|little|somewhat|even|still|by far|overall"
    rf"|also|indeed))*\s+{BETTER}",
    re.IGNORECASE,
)
IS_WORSE = re.compile(
    rf"{IS}(?:\s+(?!not\b|less\b|least\b|as\b|no\b|nothing\b)\w+){{0,2}}?\s+(?:{WORSE})", re.IGNORECASE
)
DENIED = re.compile(r"^\s*(?:(?:is|was|are|seems)\s+not|isn't|wasn't)\s+(.*)", re.IGNORECASE | re.DOTALL)
REASON = re.compile(
    r"^\s*(?:$|[,:)}\]/-]|(?-i:[A-Z])|(?:because|since|as|over|rather|instead|for|to)\b)", re.IGNORECASE
)
PREDICATE = re.compile(IS, re.IGNORECASE)
LAST = re.compile(r",|\b(?:and|but|so|while|whereas|hence|yet)\b", re.IGNORECASE)
CONCLUDES = re.compile(
    rf"{SPOKEN}|{BETTER}|[,:—-]\s*(?:not\s+)?$|\b(?:so|hence|thus|therefore|but|then|it is|it's|say)\s*$",
    re.IGNORECASE,
)
"""What leads from one option to the choice of the other. "(A) beats (B)" does not."""


class Opinion(NamedTuple):
    """What one sentence says of the options."""

    chosen: frozenset[Vote]
    rejected: frozenset[Vote]
    decides: bool
    """Whether it is about the choice itself."""


def read_vote(text: str) -> Vote | None:
    """Return the option that a reply votes for, or None if it is unclear. A thought in the reply is not read.

    >>> read_vote("(B)"), read_vote("Answer: b"), read_vote("not (A)"), read_vote("(A) or (B)")
    ('B', 'B', 'B', None)
    """
    answer = BOXED.sub(r" The answer is (\1). ", split_thought(text).answer)
    if "\\boxed" in answer:  # it holds more than one letter
        return None
    answer = MARKS.sub("", answer)
    if alone := re.fullmatch(r"\W*([ab])\W*", answer, re.IGNORECASE):
        return _letter(alone[1])
    answer = SMALL.sub(lambda small: f"{small[1]}{small[2]}({small[3]})", answer)
    answer = BRACKETED.sub(lambda named: f"<{_letter(next(filter(None, named.groups())))}>", answer)
    answer = BARE.sub(lambda named: f"<{_letter(named[1] or named[2])}>", answer)
    if not LETTER.search(answer):
        answer = ORDINAL.sub(lambda named: "<A>" if named[1] else "<B>", answer)
    return _summary([_opinion(sentence) for sentence in _sentences(answer)])


def _sentences(answer: str) -> Iterator[str]:
    """Yield the sentences that name an option. A question that names one is no vote; another begins its answer."""
    question = ""
    parts = [*SENTENCE.split(answer), ""]
    for sentence, end in zip(parts[::2], parts[1::2], strict=True):
        names = LETTER.search(sentence)
        if "?" not in end:
            if names:
                yield question + sentence
                question = ""
        elif not names:
            question = f"{sentence.strip()} "


def _summary(opinions: list[Opinion | None]) -> Vote | None:
    """Return the vote of all sentences. The last decision counts, because models correct themselves."""
    decisions = [one for one in opinions if one is None or one.decides]
    if decisions:
        return _vote(decisions[-1]) if decisions[-1] else None
    clear = [one for one in opinions if one is not None]
    chosen = frozenset[Vote]().union(*[one.chosen for one in clear])
    return _vote(Opinion(chosen, frozenset[Vote]().union(*[one.rejected for one in clear]), False))


def _vote(opinion: Opinion) -> Vote | None:
    chosen = opinion.chosen - opinion.rejected
    if len(opinion.chosen) > 1 or opinion.chosen != chosen:
        return None
    if chosen:
        return next(iter(chosen))
    return _other(next(iter(opinion.rejected))) if len(opinion.rejected) == 1 else None


def _opinion(sentence: str) -> Opinion | None:
    """Return what a sentence says of the options that it names; None if it says nothing clear.

    Its main clause counts, unless that says nothing clear.
    """
    sentence = RATHER.sub(r"<\1>", sentence)
    for clause in _main_clauses(sentence):
        opinion = _clause_opinion(clause)
        if opinion and (opinion.chosen or opinion.rejected):
            return opinion
    return _clause_opinion(sentence)


def _main_clauses(sentence: str) -> Iterator[str]:
    """Yield what is left of a sentence without what stands before and after its main clause, the shortest first."""
    rest = sentence
    for aside in (BESIDE, LEAD):
        without = aside.sub("", rest)
        rest = without if LETTER.search(without) else rest
    yield TRAIL.sub("", rest)
    yield rest


def _clause_opinion(sentence: str) -> Opinion | None:
    """Return what a clause, or a whole sentence, says of the options; None if it is unclear or conditional."""
    if MIXED.search(sentence) or CONDITION.search(sentence):
        return None
    if JOINT.search(sentence):
        return None if DECIDES.search(sentence) else Opinion(frozenset(), frozenset(), False)
    chosen: set[Vote] = set()
    rejected: set[Vote] = set()
    mentions = list(LETTER.finditer(sentence))
    for number, mention in enumerate(mentions):
        start = mentions[number - 1].end() if number else 0
        end = mentions[number + 1].start() if number + 1 < len(mentions) else len(sentence)
        before, after = sentence[start : mention.start()], sentence[mention.end() : end]
        verdict = _verdict(LAST.split(before)[-1] if number and PREDICATE.match(before) else before, after)
        if verdict and number and not (CONCLUDES.search(before) or PREDICATE.match(after)):
            verdict = None
        if verdict is None and DECIDES.search(before):
            return None
        (chosen if verdict else rejected if verdict is False else set()).add(_letter(mention[1]))
    decides = bool(DECIDES.search(sentence)) and bool(chosen or rejected)
    return Opinion(frozenset(chosen), frozenset(rejected), decides)


def _verdict(before: str, after: str) -> bool | None:
    """Return whether the words around an option choose it; False if they object to it, None if they do neither."""
    if COMPARED.search(before):
        return None
    denied = DENIED.match(after)
    if denied and COMPARED.search(after):  # "not better than" may be as good as
        return None
    plain = f" is {denied[1]}" if denied else after
    good = any(form.match(plain) for form in (IS_BETTER, WINS, LABELLED_BETTER))
    bad = any(form.match(plain) for form in (IS_WORSE, LABELLED_WORSE))
    if REJECTS.search(before):
        return None if good or bad else False
    if DOUBT.search(before):
        return None
    if good != bad:
        return good != (denied is not None)
    return True if REASON.match(after) else None


def _letter(text: str) -> Vote:
    return "A" if text.upper() == "A" else "B"


def _other(letter: Vote) -> Vote:
    return "B" if letter == "A" else "A"
