from __future__ import annotations

import pytest

from cluster.store.storage import Storage


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage(str(tmp_path / "store"))
