"""What a worker's process loads. The loop itself is tested by what it trains (`test_training.py`, `test_methods.py`)."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
from jobs.training import loop
loop._deepspeed()
print([name for name in ("mlflow", "sklearn", "polars", "evidently") if name in sys.modules])
import mlflow
print(mlflow.__name__, "deepspeed" in sys.modules)
"""


@pytest.mark.long
def test_deepspeed_comes_without_mlflow_which_can_still_be_had() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["[]", "mlflow True"]
