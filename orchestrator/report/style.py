"""The style sheet of the report page: light and dark, phone and paper, no file but the page itself."""

CSS = """
:root { color-scheme: light dark; --paper: #fff; --ink: #20242b; --soft: #5c6470; --line: #e3e6ea; --tint: #f5f6f8;
  --stepwise: #0072B2; --explicit_cot: #009E73; --no_cot: #D55E00;
  --icot_kd: #CC79A7 }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #14171c; --ink: #e6e9ee; --soft: #a0a8b4; --line: #2c313a; --tint: #1c2027;
    --stepwise: #56B4E9; --explicit_cot: #19B98D; --no_cot: #E69F00;
    --icot_kd: #E3A3C6 }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.6 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; -webkit-text-size-adjust: 100% }
main { max-width: 54rem; margin: 0 auto; padding: 4rem 1.5rem 5rem }
h1 { font-size: 2.1rem; line-height: 1.2; letter-spacing: -.02em; margin: 0 0 1.1rem; overflow-wrap: anywhere }
h2 { font-size: 1.2rem; letter-spacing: -.01em; margin: 3.75rem 0 .5rem }
p { margin: 0 0 1rem }
.over { color: var(--soft); font-size: .85rem; margin: 0 0 .35rem }
.lead { font-size: 1.2rem; line-height: 1.55; text-wrap: pretty }
.facts, .note, figcaption { color: var(--soft); font-size: .9rem }
code, .code { font: .85em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace }
.note code { overflow-wrap: anywhere }
.facts span { white-space: nowrap }
figure { margin: 3rem 0 0 }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; list-style: none; margin: 0; padding: 0;
  font-size: .875rem }
.legend li { display: flex; align-items: center; gap: .45rem }
.plot { padding: 3.6rem .75rem 4.6rem 2.75rem }
svg { display: block; overflow: visible }
.grid { stroke: var(--line) }
.tick, .axis, .tip { font-size: 13px; fill: var(--soft) }
.stepwise { --colour: var(--stepwise) }
.explicit_cot { --colour: var(--explicit_cot) }
.no_cot { --colour: var(--no_cot) }
.icot_kd { --colour: var(--icot_kd) }
.curve { stroke: var(--colour); stroke-width: 2.25; stroke-linecap: round }
.baseline { stroke: var(--colour); stroke-width: 1.5; stroke-dasharray: 6 5; opacity: .8 }
.end { fill: var(--colour); stroke: var(--paper); stroke-width: 1.5 }
.earlier { fill: var(--colour); fill-opacity: .5 }
.removal { fill: var(--paper); stroke: var(--colour); stroke-width: 1.25 }
.setback { stroke: var(--colour); stroke-width: 2; stroke-linecap: round; fill: none }
.tip { display: none; fill: var(--ink); stroke: var(--paper); stroke-width: 5; paint-order: stroke;
  stroke-linejoin: round }
g:focus { outline: none }
g:focus > * { stroke: var(--ink); stroke-width: 2.5; fill-opacity: 1 }
g:focus .tip { display: block; stroke: var(--paper); stroke-width: 5 }
.scroll { overflow-x: auto; margin: 1rem 0; container-type: inline-size }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums }
caption { text-align: left; color: var(--soft); padding: 0 0 .6rem; max-width: 100cqw }
th, td { text-align: left; font-weight: 400; padding: .5rem 1.25rem .5rem 0; border-bottom: 1px solid var(--line);
  vertical-align: baseline }
th:last-child, td:last-child { padding-right: 0 }
thead th { color: var(--soft); font-size: .8rem; line-height: 1.35; vertical-align: bottom }
.number { text-align: right }
td, tbody th { white-space: nowrap }
td.prose { white-space: normal; min-width: 12rem }
td.code { white-space: normal; overflow-wrap: anywhere; min-width: 9rem }
thead th.code { font: inherit; font-size: .8rem }
details { margin-top: 1.5rem; border-top: 1px solid var(--line); padding-top: 1rem }
details table { font-size: .82rem }
details :is(th, td) { padding-right: .8rem }
summary { cursor: pointer; font-weight: 600 }
:focus-visible { outline: 2px solid var(--stepwise); outline-offset: 3px; border-radius: 2px }
@media (max-width: 40rem) {
  main { padding: 2rem 1.1rem 3rem }
  h1 { font-size: 1.65rem }
  .lead { font-size: 1.08rem }
  .plot { padding-right: .5rem }
  tbody th.text { white-space: normal }
  th, td { padding-right: .9rem }
}
@media print {
  main { max-width: none; padding: 0 }
  body { font-size: 10.5pt }
  figure, tr { break-inside: avoid }
  h2 { break-after: avoid }
  .scroll { overflow: visible }
  details::details-content { content-visibility: visible; block-size: auto }
}
"""
