"""An audit as one HTML page that needs nothing beside it: the pictures are inside. Texts in it are always masked."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined

from jobs.data import pii

if TYPE_CHECKING:
    from .audit import Audit

_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Audit of {{ audit.name }}</title>
<style>
body {font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1f2430}
h1, h2 {line-height: 1.2} h2 {margin-top: 2.2rem}
table {border-collapse: collapse; width: 100%; margin: .5rem 0} td, th {padding: .3rem .6rem; text-align: left;
border-bottom: 1px solid #e3e6ec; vertical-align: top} th {font-weight: 600} td.n, th.n {text-align: right}
.error, .warning, .note {border-radius: .3rem; padding: .05rem .5rem; font-size: .85em; white-space: nowrap}
.error {background: #f6d3d0; color: #7c1d16} .warning {background: #fbe7c6; color: #6b4500}
.note {background: #e3eaf5; color: #274a7a} .muted {color: #6a7180}
.pictures {display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem}
img {width: 100%} img.row {width: auto; height: 5rem; image-rendering: pixelated} td.text {overflow-wrap: anywhere}
</style></head><body>
<h1>Audit of {{ audit.name }}</h1>
<p class="muted">dataset {{ audit.name }}/{{ audit.dataset }} from {{ audit.source }};
base model {{ audit.base_model }};
embeddings by {{ audit.embedded_by }}; {{ "%.0f"|format(audit.seconds.values()|sum) }} s</p>
<p>{{ audit.rows }} rows came in, {{ audit.kept }} are kept:
{% for split, count in audit.splits.items() %}{{ count }} {{ split }}{{ ", " if not loop.last }}{% endfor %}.
The {{ audit.doubtful }} most doubtful labels are in <code>doubtful.csv</code>: put <code>label</code> right, or
empty it to drop the row, and give the file back with <code>--corrections</code>.</p>
<h2>Findings</h2>
{% if not audit.findings %}<p>Nothing was found.</p>{% else %}
<table><tr><th></th><th>kind</th><th class="n">rows</th><th class="n">share</th><th></th></tr>
{% for f in audit.findings %}<tr><td><span class="{{ f.severity }}">{{ f.severity }}</span></td>
<td>{% if f.examples %}<a href="#f{{ loop.index }}">{{ f.kind }}</a>{% else %}{{ f.kind }}{% endif %}</td>
<td class="n">{{ f.rows|length }}</td><td class="n">{{ "%.1f%%"|format(100 * f.rows|length / audit.rows) }}</td>
<td>{{ f.said }}</td></tr>
{% endfor %}</table>{% endif %}
<h2>Pictures</h2>
<div class="pictures">{% for name, data in pictures.items() %}
<img alt="{{ name }}" src="data:image/png;base64,{{ data }}">{% endfor %}</div>
{% for f in audit.findings if f.examples %}
<h2 id="f{{ audit.findings.index(f) + 1 }}">{{ f.kind }}</h2>
<p><span class="{{ f.severity }}">{{ f.severity }}</span> {{ f.rows|length }} rows, {{ f.said }}</p>
<table><tr><th class="n">row</th><th>input</th><th>label</th><th></th></tr>
{% for e in f.examples %}<tr><td class="n">{{ e.row }}</td><td class="text">{% if e.input.startswith("data:image/") -%}
<img class="row" alt="" src="{{ e.input }}">{% else %}{{ e.input|mask|truncate(300) }}{% endif %}</td>
<td>{{ e.label }}</td><td>{{ e.detail|mask }}</td></tr>
{% endfor %}</table>
{% if f.rows|length > f.examples|length %}<p class="muted">and {{ f.rows|length - f.examples|length }} more; all row
numbers are in audit.json</p>{% endif %}
{% endfor %}
</body></html>
"""


def page(audit: Audit, pictures: Mapping[str, bytes], region: str) -> str:
    """`pictures` are PNG by name; `region` is where phone numbers without +CODE are from."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters["mask"] = lambda text: pii.mask(text, region)
    shown = {name: base64.b64encode(data).decode() for name, data in pictures.items()}
    return environment.from_string(_PAGE).render(audit=audit, pictures=shown)
