"""Tell an answer in another language from one in English, because the detectors' phrases are English.

Another script is told by its letters, and another language in Latin letters by its function words. It prefers misses
to false alarms: what shows no sign of another language counts as English, such as a name, a number or code.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from constitutional_ai.detectors.degeneracy import degeneracy
from constitutional_ai.detectors.typed_text import as_typed

OPENING = 600
"""Maximum number of characters that are examined, the same as in ``objection``: what those are in decides."""
READ = 4 * OPENING
"""Characters from which the opening is taken: spaces around it and characters without width do not count."""
SHARE = 0.1
"""Minimum share of a language's function words among all words; in running text they are a quarter to a half."""
WIDE = 2
"""Letters that a Chinese, Japanese or Korean sign counts for: a word is one to three of them."""


def opening(answer: str) -> str:
    """Return the beginning of an answer as typed, on which the detectors decide."""
    return as_typed(answer.strip()[:READ]).strip()[:OPENING]


def another_language(answer: str) -> bool:
    """Return whether an answer begins in another language than English. Degenerate text is in no language.

    A foreign phrase within an English answer changes nothing, nor does an English one in a foreign answer.

    >>> from constitutional_ai.detectors.english import another_language
    >>> another_language("Es tut mir leid, aber dabei kann ich nicht helfen.")
    True
    >>> another_language('"Es tut mir leid" is how you say sorry to them.')
    False
    """
    text = opening(answer)
    return (_other_script(text) or _other_words(text)) and degeneracy(answer) is None


def _other_script(text: str) -> bool:
    """Return whether one script other than Latin has at least half of the letters."""
    letters: Counter[str] = Counter()
    for word in LETTERS.findall(text):
        script = _script(word[0])
        if script != "GREEK" or len(word) > 2:  # Greek letters are also symbols
            letters[script] += len(word) * (WIDE if script == "CJK" else 1)
    others = [count for script, count in letters.items() if script != "LATIN"]
    return bool(others) and 2 * max(others) >= letters.total()


def _script(letter: str) -> str:
    name = unicodedata.name(letter, "LATIN").split(" ")[0].split("-")[0]
    return "CJK" if name in {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"} else name


def _other_words(text: str) -> bool:
    """Return whether the function words of another language outnumber those of English, or most words have accents."""
    words = LETTERS.findall(text if any(c.islower() for c in text) else text.casefold())
    english = sum(word.casefold() in ENGLISH for word in words)
    accented = sum(not word.isascii() for word in words)
    if len(words) >= MANY and not english and accented >= ACCENTED * len(words):
        return True
    # A capital is that of a name or of a sentence's first word: "Los Angeles" is not Spanish.
    counted = Counter(word.casefold() for word in words if word.islower() or len(words) < FEW)
    return any(_written_in(own, counted, len(words), english) for own in FUNCTION_WORDS.values())


def _written_in(own: frozenset[str], counts: Counter[str], words: int, english: int) -> bool:
    matches = {word: n for word, n in counts.items() if word in own}
    total = sum(matches.values())
    return (len(matches) > 1 or 0 < total == words) and total >= SHARE * words and total > 2 * english


LETTERS = re.compile(r"[^\W\d_]+")
FEW = 4
"""Below this many words, capitals count too: "Nein, danke." has no others."""
MANY, ACCENTED = 10, 0.25
"""Words of a text whose accents alone tell it, if it has no English word, and the minimum share that have accents."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# No list has a word that another language's texts hold often, or a particle of names (de, la, van, von, da).
ENGLISH = _words(
    "the and you your with this that not would could should they them their what which how why when where "
    "because about from been were there here it its if sorry please help cannot don isn doesn but who into "
    "than then only"
)
FUNCTION_WORDS = {
    "French": _words(
        "je tu il elle nous vous ils est sont suis ai avez pas ne qu que qui pour avec dans sur mais et une des "
        "les ce cette ces mon votre vos notre être cela ça désolé désolée peux puis peut pouvez oui non merci aux "
        "du au comme très bien aussi ou si leur sa ses"
    ),
    "Spanish": _words(
        "que en los las una un por con para es lo se su sus como más pero puedo puede puedes siento esto eso esta "
        "este estoy está soy yo tú usted ayudarte ayudar sí gracias también muy porque mi te nos hay ser"
    ),
    "Portuguese": _words(
        "que não em um uma para com por os mas se ao eu você posso pode ajudar isso esta este está sou são "
        "desculpe sinto muito também mais como seu sua obrigado obrigada sim nem ou foi ser na lhe"
    ),
    "Italian": _words(
        "che non il lo gli un una con sono mi ti ci si ma questo questa quello posso può puoi aiutarti "
        "dispiace anche più della nel alla dei delle sì grazie sei ho hai essere"
    ),
    "German": _words(
        "ich du er sie wir ihr nicht und der den dem ein eine einen einem ist sind mit für auf zu bei "
        "aber kann können leider tut mir leid dir ihnen dabei auch oder wenn wie es im zum zur nein ja danke "
        "bitte dass sich sein"
    ),
    "Dutch": _words(
        "ik je jij hij zij wij het een niet en dat dit zijn voor met op te aan maar kan kunt helaas spijt mij "
        "daarbij ook als wat hoe er bij naar nee ja bedankt uw deze om heb hebben wordt"
    ),
    "Indonesian": _words(
        "saya aku anda kamu tidak yang dan untuk dengan ini itu dalam adalah bisa dapat akan pada dari ke maaf "
        "membantu atau karena juga sudah ada bukan kami kita mereka oleh seperti lebih bagi tetapi namun boleh"
    ),
    "Turkish": _words(
        "bir ve bu için ben sen siz biz değil ama ile çok üzgünüm yardımcı olamam edemem size bunu şu ne gibi "
        "daha olarak var yok evet hayır teşekkürler mi veya kadar sonra konuda maalesef"
    ),
    "Polish": _words(
        "nie się na że jest są jak ale czy mogę może przykro mi pomóc ci tym tego ta oraz lub dla przez od po tak "
        "dziękuję jestem który która które bardzo już tej"
    ),
    "Swedish": _words(
        "jag du inte och att det som är en ett för med på av till om kan tyvärr ledsen hjälpa mig detta den vi "
        "eller har från nej tack mycket ska var"
    ),
    "Danish or Norwegian": _words(
        "jeg du ikke og det som er en et med på af av til om kan desværre dessverre beklager hjælpe hjelpe deg "
        "mig meg dette den vi eller har fra nei nej takk tak meget skal var"
    ),
    "Vietnamese": _words(
        "tôi không của và là có thể cho bạn với này được xin lỗi giúp trong một các những để về đó người khi vì "
        "nhưng việc"
    ),
    "Romanian": _words(
        "nu și să este sunt un în cu pe pentru din care dar îmi rău te ajuta mai acest această ce eu tu "
        "mulțumesc sau foarte"
    ),
    "Czech or Slovak": _words(
        "je není se že na ale jsem jste nemohu můžu tím vám mi líto pomoci pro jak nebo tak ano děkuji som nie "
        "môžem mne sa čo aby také která který které"
    ),
    "Hungarian": _words(
        "nem hogy és az egy ez én ön vagyok tudok ebben segíteni sajnálom meg mert vagy igen köszönöm csak már "
        "lehet nincs"
    ),
    "Finnish": _words(
        "en ei ja se että minä sinä olen olet voi voin auttaa tässä pahoillani mutta valitettavasti ovat kun tai "
        "niin kyllä kiitos mitä joka"
    ),
    "Catalan": _words(
        "el els les una un que amb és són però puc ho em sento ajudar això aquest aquesta més també molt sí"
    ),
    "Croatian or Serbian": _words(
        "ne nije se je na što ali mogu žao mi vam pomoći ili za kao sam ste su koji koja ovo nisam hvala"
    ),
    "Swahili": _words(
        "na ya wa kwa ni katika siwezi kukusaidia hii hilo hiyo samahani lakini kama mimi wewe yako yangu za "
        "cha kuwa"
    ),
    "Tagalog": _words(
        "ang ng sa mga hindi ako ko ikaw po na ay para kita iyon ito matulungan maaari paumanhin pero kung ka mo "
        "siya"
    ),
    "Hindi in Latin letters": _words(
        "nahi nahin hai hain kar karna karne ke ki ka ko mein aap aapki aapko sakta sakti maaf kijiye yeh woh aur "
        "lekin hoon hun se mujhe"
    ),
}  # fmt: skip
