"""The style sheet of the report page: light and dark, phone and paper, no file but the page itself."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.config import Method
from orchestrator.labels import COLOURS, ON_DARK


def _variables(colours: Mapping[Method, str]) -> str:
    return "; ".join(f"--{method}: {colour}" for method, colour in colours.items())


CSS = (
    f"""
:root {{ color-scheme: light dark; --paper: #fff; --ink: #20242b; --soft: #5c6470; --line: #e3e6ea; --tint: #f5f6f8;
  {_variables(COLOURS)} }}
@media screen and (prefers-color-scheme: dark) {{
  :root {{ --paper: #14171c; --ink: #e6e9ee; --soft: #a0a8b4; --line: #2c313a; --tint: #1c2027;
    {_variables(ON_DARK)} }}
}}
"""
    """
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.6 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; -webkit-text-size-adjust: 100% }
main { max-width: 66rem; margin: 0 auto; padding: 2rem 1.5rem 5rem }
h1 { font-size: 1.8rem; line-height: 1.2; letter-spacing: -.02em; margin: 0 0 .6rem; overflow-wrap: anywhere }
h2 { font-size: 1.2rem; letter-spacing: -.01em; margin: 3rem 0 .5rem }
p { margin: 0 0 1rem }
.over { color: var(--soft); font-size: .85rem; margin: 0 0 .25rem }
.lead { line-height: 1.5; text-wrap: pretty; margin: 0 }
.note, figcaption { color: var(--soft); font-size: .85rem; line-height: 1.5 }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: 1rem 1.5rem;
  margin: 1.5rem 0 0; padding: 1rem 0 0; border-top: 1px solid var(--line) }
dt { color: var(--soft); font-size: .85rem }
dd { margin: 0; font-size: .85rem; line-height: 1.4; color: var(--soft) }
dd strong { display: block; margin: .1rem 0 .15rem; font-size: 1.3rem; line-height: 1.25; font-weight: 600;
  color: var(--ink); font-variant-numeric: tabular-nums }
dd code { display: block; margin-top: .2rem; color: var(--ink); overflow-wrap: anywhere }
code, .code, pre { font: .85em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace }
.note code { overflow-wrap: anywhere }
pre { margin: 0; padding: 1rem 1.25rem; background: var(--tint); border-radius: 6px; overflow-x: auto }
pre code { font-size: inherit }
figure { margin: 1.75rem 0 0 }
.plots { display: grid; grid-template-columns: 3fr 2fr; gap: 0 1.5rem }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: 1rem 1.5rem }
.panels figure, .panels p { margin: 0 }
.panels p { font-size: .9rem }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; list-style: none; margin: 0; padding: 0;
  font-size: .875rem }
.legend li { display: flex; align-items: center; gap: .45rem }
.plot { padding: 3rem .75rem 4.4rem 2.75rem; min-width: 0 }
svg { display: block; overflow: visible }
.grid { stroke: var(--line) }
.tick, .axis, .tip { font-size: 13px; fill: var(--soft) }
.stepwise { --colour: var(--stepwise) }
.explicit_cot { --colour: var(--explicit_cot) }
.no_cot { --colour: var(--no_cot) }
.icot_kd { --colour: var(--icot_kd) }
.curve { stroke: var(--colour); stroke-width: 2.25; stroke-linecap: round }
.baseline { stroke: var(--colour); stroke-width: 1.5; stroke-dasharray: 6 5; opacity: .8 }
.band { fill: var(--colour); opacity: .14 }
.whisker { stroke: var(--colour); stroke-width: 1.5; opacity: .55 }
.faint { stroke: var(--colour); stroke-width: 1.25; opacity: .3; fill: none }
.end { fill: var(--colour); stroke: var(--paper); stroke-width: 1.5 }
.earlier { fill: var(--colour); fill-opacity: .5 }
.removal { fill: var(--paper); stroke: var(--colour); stroke-width: 1.25 }
.failed { stroke: var(--colour); stroke-width: 2; stroke-linecap: round; fill: none }
.tip { display: none; fill: var(--ink); stroke: var(--paper); stroke-width: 5; paint-order: stroke;
  stroke-linejoin: round }
g:focus { outline: none }
g:focus > * { stroke: var(--ink); stroke-width: 2.5; fill-opacity: 1 }
g:focus .tip { display: block; stroke: var(--paper); stroke-width: 5 }
.whiskers { width: calc(100% - 10px); margin: 0 5px; height: 1.1em; min-width: 8rem; vertical-align: middle }
.whiskers line { stroke: var(--stepwise); stroke-width: 2; opacity: .55 }
.whiskers circle { fill: var(--stepwise) }
.whiskers rect { fill: var(--line) }
.share { background: color-mix(in srgb, var(--stepwise) calc(var(--share, 0) * 50%), transparent); text-align: right }
tr > .share, tr > .share:last-child { padding-left: .6rem; padding-right: .6rem }
.maps { display: grid; align-items: end; gap: 1rem 1.5rem; margin: 0 0 1.25rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, calc(var(--cells) * 1rem)), 1fr)) }
.maps figure, .maps p { margin: 0 }
.maps p { font-size: .9rem }
.map rect { fill: var(--stepwise) }
.map .ground { fill: var(--tint) }
.map text { font-size: 9px; fill: var(--soft) }
.scroll { overflow-x: auto; margin: 1rem 0; container-type: inline-size }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums }
caption { text-align: left; color: var(--soft); padding: 0 0 .6rem; max-width: 100cqw }
th, td { text-align: left; font-weight: 400; padding: .5rem 1.25rem .5rem 0; border-bottom: 1px solid var(--line);
  vertical-align: baseline }
th:last-child, td:last-child { padding-right: 0 }
thead th { color: var(--soft); font-size: .8rem; line-height: 1.35; vertical-align: bottom }
.number { text-align: right }
td, tbody th { white-space: nowrap }
tbody th.code { white-space: normal; overflow-wrap: anywhere; min-width: 9rem }
td.prose { white-space: normal; min-width: 12rem }
td.code { white-space: normal; overflow-wrap: anywhere; min-width: 9rem }
thead th.code { font: inherit; font-size: .8rem }
details { margin-top: 1.5rem; border-top: 1px solid var(--line); padding-top: 1rem }
details table { font-size: .82rem }
details :is(th, td) { padding-right: .8rem }
details tbody th.code { white-space: nowrap }
summary { cursor: pointer; font-weight: 600 }
:focus-visible { outline: 2px solid var(--stepwise); outline-offset: 3px; border-radius: 2px }
@media (max-width: 40rem) {
  main { padding: 1.25rem 1.1rem 3rem }
  h1 { font-size: 1.5rem }
  .plots { grid-template-columns: 1fr }
  .answers { grid-template-columns: 1fr 1fr; gap: .9rem 1.1rem }
  .plot { padding-right: .5rem }
  .answers > :last-child:nth-child(odd) { grid-column: 1 / -1 }
  tbody th.text { white-space: normal; min-width: 8rem }
  th, td { padding-right: .9rem }
}
@page { margin: 15mm }
@media print {
  main { max-width: none; padding: 0 }
  body { font-size: 10.5pt }
  .answers { grid-template-columns: repeat(5, 1fr); gap: 1rem }
  details :is(th, td) { padding-top: .1rem; padding-bottom: .1rem }
  figure, tr, .answers div, section > .scroll { break-inside: avoid }
  .share { print-color-adjust: exact }
  h2 { break-after: avoid }
  .scroll { overflow: visible }
  details::details-content { content-visibility: visible; block-size: auto }
}
"""
)
