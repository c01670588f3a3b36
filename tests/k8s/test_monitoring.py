"""Alerts and the dashboard ask for metrics that there are, in PromQL that Prometheus takes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import ray
import yaml

from .schemas import K8S

MONITORING = K8S / "components" / "monitoring"
GROUPS = yaml.safe_load((MONITORING / "prometheusrule.yaml").read_text())["spec"]["groups"]
PANELS = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
EXPRESSIONS = [r["expr"] for g in GROUPS for r in g["rules"]] + [t["expr"] for p in PANELS for t in p["targets"]]


def _ours() -> set[str]:
    """As Ray exports what `serve.http.telemetry` counts: with its own prefix, and Prometheus' endings."""
    source = (K8S.parent / "serve" / "http" / "telemetry.py").read_text()
    made = re.findall(r'metrics\.(Counter|Histogram|Gauge)\(\s*"(\w+)"', source)
    endings = {"Counter": "_total", "Histogram": "_bucket", "Gauge": ""}
    return {f"ray_{name}{endings[kind]}" for kind, name in made}


def test_ray_or_rehone_has_every_metric() -> None:
    source = Path(ray.__file__).parent / "dashboard" / "modules" / "metrics" / "dashboards"
    known = set(re.findall(r"\bray_[a-z0-9_]+", "".join(f.read_text() for f in source.glob("*.py"))))
    asked = {name for expression in EXPRESSIONS for name in re.findall(r"\bray_[a-z0-9_]+", expression)}
    assert len(asked) > 8
    assert len(_ours()) == 4
    assert asked - {"ray_io_cluster"} <= known | _ours()
    assert _ours() <= asked, "a metric of ours that no panel shows"


def test_every_alert_says_what_is_wrong_and_how_to_mend_it() -> None:
    for rule in (r for g in GROUPS for r in g["rules"]):
        assert set(rule["annotations"]) == {"summary", "mend"}, rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_prometheus_takes_every_expression(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool (Debian's package prometheus has one): PromQL was not parsed")
    rules = [{"alert": f"Panel{i}", "expr": e} for i, e in enumerate(EXPRESSIONS)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [*GROUPS, {"name": "panels", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
