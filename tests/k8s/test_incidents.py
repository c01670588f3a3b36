"""Each alert has its page, and each page its alert."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    rules = yaml.safe_load((ROOT / "k8s" / "components" / "monitoring" / "prometheusrule.yaml").read_text())
    alerts = [rule["alert"] for group in rules["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
    pages = (ROOT / "docs" / "incidents.md").read_text().split("\n## ")[1:]
    assert [page.splitlines()[0] for page in pages] == alerts
    assert all(len(page.splitlines()) > 4 for page in pages)
