from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from cluster.errors import NotFoundError
from cluster.sdk import Cluster, Submitted
from cluster.settings import Settings

GUIDE = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


def test_without_an_address_it_is_the_environments_or_the_local_one(tmp_path: Path) -> None:
    assert Cluster(settings=Settings(address="http://head:8265/")).address == "http://head:8265"
    assert Cluster("http://other:1", Settings(address="http://head:8265")).address == "http://other:1"
    with pytest.raises(NotFoundError, match="`rehone cluster up` starts one"):
        Cluster(settings=Settings(storage=str(tmp_path)))


@pytest.mark.parametrize("block", BLOCKS)
def test_every_name_in_the_guide_exists(block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom):
            exec(compile(ast.Module([node], []), "guide", "exec"))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            kind = {"cluster": Cluster, "job": Submitted}.get(node.value.id)
            assert kind is None or hasattr(kind, node.attr), ast.unparse(node)


def test_every_call_in_the_guides_table_exists() -> None:
    for name, attribute in re.findall(r"`(cluster|job)\.([a-z_]+)", GUIDE):
        if name == "job":
            assert hasattr(Submitted, attribute) or attribute in Submitted.__dataclass_fields__, attribute
        elif attribute not in {"sdk", "errors", "submit", "settings"}:
            assert hasattr(Cluster, attribute), attribute
    assert len(BLOCKS) == 3
