from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.data.intake import taker
from jobs.data.pii import KINDS, rows_with
from jobs.spec import Spec
from jobs.tasks.text_generation import messages

PERSONAL = ["a.b@example.org", "+44 20 7031 3000", "4111 1111 1111 1111"]


def take(text: str, pii: str = "mask") -> str:
    data = {"source": "x.csv", "pii": pii}
    return taker(Spec.model_validate({"name": "m", "base_model": "b", "task": "text-generation", "data": data}))(text)


@given(before=st.text(), personal=st.sampled_from(PERSONAL), after=st.text(), more=st.text())
def test_what_is_said_in_a_conversation_is_masked_and_it_stays_one(before, personal, after, more) -> None:
    said = [{"role": "user", "content": f"{before}\n{personal}\n{after}"}, {"role": "assistant", "content": more}]
    taken = messages(take(json.dumps(said)))
    assert [one["role"] for one in taken] == ["user", "assistant"]
    found = rows_with([one["content"] for one in taken], "US")
    assert found == {kind: [] for kind in KINDS}
    assert personal not in taken[0]["content"]


@pytest.mark.parametrize("text", ["[not a conversation", '["a"]', json.dumps([{"role": "user", "content": "hé\n"}])])
def test_where_nothing_is_personal_a_text_stays_as_it_is(text: str) -> None:
    assert take(text) == text
    assert take(f"{text} a@b.org", pii="keep") == f"{text} a@b.org"
