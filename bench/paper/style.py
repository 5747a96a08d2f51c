# SPDX-License-Identifier: Apache-2.0
"""The report's style sheet: light and dark, and in print. No fonts and nothing else is fetched."""

STYLE = """
:root { color-scheme: light dark;
  --page: #fdfdfb; --text: #1b1e21; --soft: #5d646b; --rule: #d5d8da; --band: #f2f3f1; --mark: #8a4b00; --accent: #1f5b4a;
  --s0: #1d5c8f; --s1: #e5a63f; --s1-line: #a06a0f; --s2: #7d8790; }
@media (prefers-color-scheme: dark) { :root {
  --page: #15181a; --text: #e4e6e7; --soft: #a0a7ad; --rule: #3a4046; --band: #1d2124; --mark: #f0b35c; --accent: #7cc7af;
  --s0: #6cb0e6; --s1: #b3771a; --s1-line: #e3ad52; --s2: #8b949c; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 68rem; background: var(--page); color: var(--text);
  font: 1rem/1.55 system-ui, "Segoe UI", "DejaVu Sans", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.35rem; margin: 3rem 0 .5rem; padding-top: .8rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1.05rem; margin: 2.2rem 0 .3rem; }
p, ul, dl { max-width: 44rem; }
p.about, figcaption, caption { color: var(--soft); }
dl.machine { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.2rem; margin: 1rem 0; }
dl.machine dt { color: var(--soft); } dl.machine dd { margin: 0; overflow-wrap: anywhere; }
.notes { border-left: 3px solid var(--mark); padding: .1rem 0 .1rem 1rem; list-style: none; margin: 1rem 0; }
nav ul { padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; }
a { color: var(--accent); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; line-height: 1.35; margin: .8rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .4rem; font-size: .9rem; }
th, td { padding: .28rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule); }
thead th { border-bottom: 2px solid var(--text); vertical-align: bottom; white-space: nowrap; }
thead th.group { text-align: center; border-bottom: 1px solid var(--rule); }
tbody th { font-weight: inherit; } tbody td, tbody th { white-space: nowrap; } .runs td { white-space: normal; }
td.n, th.n { text-align: right; white-space: nowrap; }
tr.ours > * { background: var(--band); font-weight: 600; }
tr.native > * { font-style: italic; }
td.why { color: var(--soft); white-space: normal; }
.unreliable { color: var(--mark); font-weight: 600; }
dl.held { margin: .6rem 0 0; } dl.held dt { font-weight: 600; margin-top: .6rem; } dl.held dd { margin: .1rem 0 .2rem 1.2rem; }
code { font: .9em ui-monospace, "DejaVu Sans Mono", Menlo, monospace; }
figure { margin: 1.2rem 0 2rem; }
figcaption { font-size: .9rem; max-width: 44rem; }
svg { width: 100%; max-width: 52rem; height: auto; font-family: inherit; }
svg text { fill: var(--text); font-size: 12px; }
svg .name { text-anchor: end; } svg .heading { font-weight: 600; font-size: 13px; }
svg .tick { text-anchor: middle; fill: var(--soft); font-size: 11px; } svg .unit { fill: var(--soft); font-size: 11px; }
svg .empty { fill: var(--soft); font-style: italic; font-size: 11px; }
svg .grid { stroke: var(--rule); } svg .reference { stroke: var(--text); stroke-dasharray: 4 3; }
svg .s0 { fill: var(--s0); } svg .s1 { fill: var(--s1); stroke: var(--s1-line); stroke-width: 1; } svg .s2 { fill: var(--s2); }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--accent); }
@page { size: A4 landscape; margin: 14mm; }
@media print {
  :root { color-scheme: light; --page: #fff; --text: #000; --soft: #444; --rule: #bbb; --band: #eee; --mark: #6b3a00; --accent: #000;
    --s0: #1d4e79; --s1: #f0c987; --s1-line: #7a5412; --s2: #999; }
  body { max-width: none; padding: 0; font-size: 9.5pt; } table { font-size: 8pt; }
  nav { display: none; } .wide { overflow: visible; } a { text-decoration: none; }
  h2, h3, caption { break-after: avoid; } tr, figure, .wide, dl.held dt { break-inside: avoid; } thead { display: table-header-group; }
  svg { max-height: 165mm; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
