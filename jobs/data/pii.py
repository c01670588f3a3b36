"""Personal data in a text: where emails, phone numbers and payment cards are, and the text without them.

Phone numbers are recognised by Google's libphonenumber (`phonenumbers`), cards by their issuer's digits and the check
digit of Luhn (ISO/IEC 7812-1), emails by the shape people use (RFC 5322's dot-atom). Names and addresses are not looked
for: that needs a model, and presidio's patterns alone know no more than these three.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from phonenumbers import Leniency, PhoneNumberMatcher

EMAIL, CARD, PHONE = "EMAIL", "CARD", "PHONE"
KINDS = (EMAIL, CARD, PHONE)

_EMAIL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]+@[^\W_](?:[\w-]*[^\W_])?(?:\.[^\W_](?:[\w-]*[^\W_])?)+")
# Mastercard's 2 and 5, American Express's 3, Visa's 4, Discover's 6; with or without one space or dash between digits.
_CARD = re.compile(r"(?<![\d-])[2-6](?:[ -]?[0-9]){12,18}(?![\d-])", re.ASCII)
_FEWEST_DIGITS = 6  # of a phone number: most texts need no closer look


@dataclass(frozen=True)
class Found:
    """`text[start:end]` is of this kind."""

    kind: str
    start: int
    end: int


def find(text: str, region: str) -> list[Found]:
    """What is in the text, in order and without overlap. `region` (ISO 3166) reads phones that have no +CODE."""
    taken: list[Found] = []
    for found in (*_emails(text), *_cards(text), *_phones(text, region)):
        if all(found.end <= other.start or found.start >= other.end for other in taken):
            taken.append(found)
    return sorted(taken, key=lambda found: found.start)


def mask(text: str, region: str) -> str:
    """The text with `<EMAIL>`, `<PHONE>` and `<CARD>` in their places; in what comes out nothing is found."""
    while found := find(text, region):  # what a number leaves behind may be one in its turn
        for one in reversed(found):
            text = f"{text[: one.start]}<{one.kind}>{text[one.end :]}"
    return text


def rows_with(texts: Iterable[str], region: str) -> dict[str, list[int]]:
    """Positions of the texts that hold each kind."""
    rows: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for at, text in enumerate(texts):
        for kind in {found.kind for found in find(text, region)}:
            rows[kind].append(at)
    return rows


def _emails(text: str) -> Iterator[Found]:
    if "@" in text:
        yield from (Found(EMAIL, *match.span()) for match in _EMAIL.finditer(text))


def _cards(text: str) -> Iterator[Found]:
    for match in _CARD.finditer(text):
        if _luhn([int(digit) for digit in match.group() if digit.isdigit()]):
            yield Found(CARD, *match.span())


def _phones(text: str, region: str) -> Iterator[Found]:
    if sum(map(str.isdigit, text)) >= _FEWEST_DIGITS:
        for match in PhoneNumberMatcher(text, region, leniency=Leniency.VALID):
            yield Found(PHONE, match.start, match.end)


def _luhn(digits: list[int]) -> bool:
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]  # noqa: PLR2004 - 2 x 5 has two digits
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
