// The style of a report's page: light or dark as its reader is, always light on paper; colours that are told apart by
// who does not see all of them.
#pragma once

#include <string_view>

namespace mixtune {

constexpr std::string_view kPageStyle = R"(
:root {
  color-scheme: light dark;
  --ground: #ffffff; --card: #f6f8fa; --edge: #d1d9e0; --text: #1f2328; --faint: #59636e; --warn: #9a3412;
  --c0: #0069a6; --c1: #c24e00; --c2: #007a56; --c3: #9a4a93; --c4: #7a6500; --c5: #4f5b66;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ground: #0d1117; --card: #151b23; --edge: #3d444d; --text: #f0f6fc; --faint: #9198a1; --warn: #ffa657;
    --c0: #58a6ff; --c1: #f0883e; --c2: #3fb98c; --c3: #d78fd2; --c4: #d4b72a; --c5: #a8b1bb;
  }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1320px; padding: 16px; background: var(--ground); color: var(--text);
  font: 15px/1.45 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: anywhere }
h1 { font-size: 24px; margin: 8px 0 0 } h2 { font-size: 18px; margin: 28px 0 8px } h3 { font-size: 15px; margin: 0 }
p, ul { margin: 4px 0 } ul { padding-left: 20px } small, .facts, .faint { color: var(--faint); font-size: 13px;
  font-weight: normal }
.warn { color: var(--warn) }
.charts { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 12px; grid-auto-flow: dense }
figure { margin: 0; padding: 10px 12px 6px; background: var(--card); border: 1px solid var(--edge); border-radius: 6px;
  display: flex; flex-direction: column; break-inside: avoid }
figure.wide { grid-column: span 2 } figcaption { flex: 1 } .if-narrow { display: none }
figure svg { width: 100%; height: auto; display: block }
.legend { font-size: 13px } .legend svg { display: inline-block; width: auto; vertical-align: -1px }
.legend span { margin-right: 14px; white-space: nowrap }
svg text { font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--faint);
  font-variant-numeric: tabular-nums }
.end { text-anchor: end } .mid { text-anchor: middle }
path { fill: none; stroke-linejoin: round } .grid { stroke: var(--edge); stroke-width: 0.6 }
.axis { stroke: var(--faint) } .line { stroke-width: 1.6 } .dashed { stroke-dasharray: 5 3 }
path.band { fill-opacity: 0.2; stroke: none } .dots { stroke-width: 6; stroke-linecap: round }
.hole { stroke: var(--warn); stroke-width: 1.6 }
.c0 { stroke: var(--c0) } .c1 { stroke: var(--c1) } .c2 { stroke: var(--c2) }
.c3 { stroke: var(--c3) } .c4 { stroke: var(--c4) } .c5 { stroke: var(--c5) }
.band.c0 { fill: var(--c0) } .band.c1 { fill: var(--c1) } .band.c2 { fill: var(--c2) }
.band.c3 { fill: var(--c3) } .band.c4 { fill: var(--c4) } .band.c5 { fill: var(--c5) }
.even { fill: var(--edge); fill-opacity: 0.5 } .below { fill: var(--c0) } .above { fill: var(--c1) }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-size: 14px }
th, td { text-align: left; vertical-align: top; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--edge);
  overflow-wrap: normal } th { font-weight: 600 } td.number, th.number { text-align: right;
  font-variant-numeric: tabular-nums; white-space: nowrap } td svg { vertical-align: 1px; margin-right: 6px }
td.value { overflow-wrap: anywhere; min-width: 9em }
pre { margin: 8px 0; padding: 12px; background: var(--card); border: 1px solid var(--edge); border-radius: 6px;
  font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; white-space: pre-wrap; columns: 3 340px }
@media (max-width: 1100px) { .charts { grid-template-columns: repeat(2, minmax(0, 1fr)) } }
@media (max-width: 720px) {
  body { padding: 12px } .charts { grid-template-columns: minmax(0, 1fr) } figure.wide { grid-column: auto }
  figure { padding: 10px 8px 4px } .if-wide { display: none } .if-narrow { display: block }
}
@media print { body { font-size: 12px; max-width: none } .charts { grid-template-columns: repeat(2, minmax(0, 1fr)) } }
)";

}  // namespace mixtune
