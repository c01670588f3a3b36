from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.data.pii import CARD, EMAIL, KINDS, PHONE, find, mask, rows_with


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to ann.lee+x@mail.example.co.uk.", "write to <EMAIL>."),
        ("call (650) 253-0000 or +44 20 7031 3000 now", "call <PHONE> or <PHONE> now"),
        ("card 4111 1111 1111 1111, exp 12/27", "card <CARD>, exp 12/27"),
        ("amex 3782-822463-10005!", "amex <CARD>!"),
        ("5555555555554444", "<CARD>"),
        ("a@b.com: 650-253-0000", "<EMAIL>: <PHONE>"),
    ],
)
def test_what_is_personal_is_masked(text: str, masked: str) -> None:
    assert mask(text, "US") == masked


@pytest.mark.parametrize(
    "text",
    [
        "nothing here",
        "@friend and #tag",
        "order 4111 1111 1111 1112",  # its check digit is wrong
        "in 2024 and 1999, 10,000 people",
        "3.14159265358979",
        "on 2026-11-24 at 12:45:10",
        "me@home",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert find(text, "US") == []


def test_a_number_without_its_country_needs_the_region() -> None:
    assert find("ring 020 7031 3000", "US") == []
    assert [found.kind for found in find("ring 020 7031 3000", "GB")] == [PHONE]


def test_positions_are_those_of_the_text() -> None:
    text = "to a@b.org, 4111111111111111"
    assert [(f.kind, text[f.start : f.end]) for f in find(text, "US")] == [
        (EMAIL, "a@b.org"),
        (CARD, "4111111111111111"),
    ]


def test_rows_are_counted_by_kind() -> None:
    assert rows_with(["a@b.org c@d.org", "-", "+1 650 253 0000 a@b.org"], "US") == {EMAIL: [0, 2], CARD: [], PHONE: [2]}


pieces = st.lists(
    st.sampled_from(["a@b.org", "4111111111111111", "+16502530000", "650-253-0000", "4", "-", " ", "x", "@", "."])
    | st.text(max_size=4),
    max_size=8,
).map("".join)


@given(pieces)
def test_in_a_masked_text_nothing_is_found(text: str) -> None:
    done = mask(text, "US")
    assert find(done, "US") == []
    assert mask(done, "US") == done


@given(pieces)
def test_what_is_found_lies_in_the_text_and_apart(text: str) -> None:
    found = find(text, "US")
    assert all(0 <= one.start < one.end <= len(text) and one.kind in KINDS for one in found)
    assert all(a.end <= b.start for a, b in pairwise(found))
