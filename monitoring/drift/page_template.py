"""The HTML of `page.py`, a Jinja template."""

PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ result.model }} {{ result.key }}: what drifted</title>
<style>
:root {color-scheme: light dark; --ink: #1f2430; --pale: #666e7d; --line: #e3e6ec; --paper: #fff; --was: #b4bac5;
--now: #1f5fd0; --flag: #7c1d16; --flagged: #f6d3d0}
@media (prefers-color-scheme: dark) {:root {--ink: #e4e7ec; --pale: #9aa3b2; --line: #333a46; --paper: #15181e;
--was: #5b6474; --now: #7eabff; --flag: #ffd9d5; --flagged: #6b211b}}
body {font: 16px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 58rem; padding: 0 1rem;
color: var(--ink); background: var(--paper)}
h1 {font-size: 1.4rem; line-height: 1.3} h2 {font-size: 1.2rem; margin: 2rem 0 .6rem}
h3 {font-size: 1rem; margin: 0} p {margin: .3rem 0} a {color: var(--now)} .pale, small {color: var(--pale)}
.cards {display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: .8rem}
.card {border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem; min-width: 0}
.tag {background: var(--flagged); color: var(--flag); border-radius: .3rem; padding: 0 .4rem; font-size: .8rem;
font-weight: 400; margin-left: .4rem}
svg {width: 100%; display: block; margin: .4rem 0} svg text {font-size: 11px; fill: var(--pale)}
path.was {fill: var(--was)} path.now {fill: none; stroke: var(--now); stroke-width: 2}
.map path {fill: none; stroke-width: 4; stroke-linecap: round} .map path.was {stroke: var(--was)}
.map path.now {opacity: .7} .map circle {fill: var(--paper); stroke: var(--ink)} .map text {fill: var(--ink)}
.key {display: inline-block; width: .8rem; height: .8rem; border-radius: .2rem; vertical-align: -.08rem;
margin-right: .3rem} .side {white-space: nowrap; margin-right: .8rem}
.bar {height: .55rem; border-radius: .2rem; min-width: 1px; margin: 1px 0}
.key.was, .bar.was {background: var(--was)} .key.now, .bar.now {background: var(--now)}
.share {margin: .4rem 0; overflow-wrap: anywhere} .group {margin: .8rem 0}
.sides {display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 0 1.5rem}
.sides > div {margin-top: .6rem; min-width: 0}
blockquote {margin: .35rem 0; padding-left: .7rem; border-left: 3px solid var(--was); overflow-wrap: anywhere}
.current blockquote {border-color: var(--now)} blockquote:has(img) {display: inline-block;
margin-right: .6rem} blockquote img {height: 4.5rem; image-rendering: pixelated}
</style></head><body>
<h1>{{ headline }}</h1>
<p>{{ accuracy }}</p>
<p class="pale">{{ result.rows }} predictions, {{ result.start.strftime("%Y-%m-%d %H:%M") }} to
{{ result.end.strftime("%Y-%m-%d %H:%M") }} UTC, beside the test rows of the version.
<span class="side"><span class="key was"></span>before</span>
<span class="side"><span class="key now"></span>now, in this window</span></p>
<h2>Columns</h2>
<div class="cards">
{% for card in cards %}
<section class="card"><h3>{{ card.drift.name }}{% if card.drift.drifted %}<span class="tag">drifted</span>{% endif %}
</h3>
{% if card.change %}<p>{{ card.change }}</p>{% endif %}
{% if card.picture %}{{ card.picture|safe }}{% endif %}
{% for share in card.labels %}
<div class="share">{{ share.label }} <small>{{ "%.0f"|format(100 * share.now) }}% now,
{{ "%.0f"|format(100 * share.before) }}% before</small>
<div class="bar was" style="width: {{ "%.1f"|format(100 * share.before) }}%"></div>
<div class="bar now" style="width: {{ "%.1f"|format(100 * share.now) }}%"></div></div>
{% endfor %}
<small>Chance does as much in {{ card.chance }} windows. ({{ card.drift.method }},
p {{ "%.2g"|format(card.drift.p_value) }})</small></section>
{% endfor %}
</div>
<h2>Groups of inputs that grew or shrank</h2>
<p class="pale">{% if groups %}{{ still }} other groups of like inputs kept their share.
{% else %}None of {{ still }} groups of like inputs has another share than chance explains.{% endif %}</p>
{% for group in groups %}
<section class="card group"><h3>{{ loop.index }}. {{ "Grew" if group.grew else "Shrank" }} from
{{ "%.0f"|format(100 * group.before.share) }}% to {{ "%.0f"|format(100 * group.now.share) }}% of the inputs</h3>
<p>{% if group.words %}Told by the words <b>{{ group.words|join(", ") }}</b>. {% endif %}
<small>Chance does as much in {{ chance(group.p_value) }} windows.</small></p>
<div class="sides">
{% for name, part in [("now", group.now), ("before", group.before)] %}
<div class="{{ "current" if name == "now" else "" }}"><p><b>{{ name|capitalize }}</b>: {{ part.rows|length }}
{{- " input" if part.rows|length == 1 else " inputs" }}
{%- if part.label is not none %}, most often <b>{{ part.label }}</b>, confidence
{{ "%.2f"|format(part.confidence) }}{% endif %}
{%- if part.labelled %}; {{ part.right }} of {{ part.labelled }} labelled ones right{% endif %}</p>
{% for example in part.examples %}
<blockquote>{% if pictures %}<img alt="" src="{{ example|thumbnail }}">{% else %}{{ example|shown }}{% endif %}
</blockquote>
{% endfor %}
</div>
{% endfor %}
</div></section>
{% endfor %}
<h2>More</h2>
<p><a href="{{ report }}">Evidently's report</a> of the same window has the columns at full size.</p>
<p class="pale">All tests of the columns together flag a window in which nothing has changed once in {{ windows }}
windows at most, and so do all those of the groups. Groups are clusters of what the model sees in the inputs; their
examples are the ones nearest to the middle.</p>
</body></html>
"""
