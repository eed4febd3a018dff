/**
 * Style of the inspector, in a constructed sheet: no page has to permit inline styles.
 *
 * This module is browser compatible.
 *
 * @module
 */

const TEXT = `
:host {
  --bg: #f4f4f2; --panel: #ffffff; --ink: #1a1d21; --soft: #5c636b; --line: #dcdcd7;
  --accent: #0b6575; --on-accent: #ffffff; --tint: #e0eef0;
  --good: #1a7044; --warn: #8a5200; --bad: #b02a20;
  --one: #0b6575; --two: #b4540a; --three: #5b4bc4;
  color-scheme: light dark;
  display: block; min-width: 0; color: var(--ink); background: var(--bg);
  font: 14px/20px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  text-align: start;
}
@media (prefers-color-scheme: dark) {
  :host {
    --bg: #141619; --panel: #1e2226; --ink: #eceef0; --soft: #a2a9b1; --line: #343a41;
    --accent: #6cc4d3; --on-accent: #06262c; --tint: #17343a;
    --good: #7bd0a0; --warn: #e8b45c; --bad: #ff9a8d;
    --one: #6cc4d3; --two: #f0a35e; --three: #aca2f5;
  }
}
:host([hidden]), [hidden] { display: none !important; }
*, ::before, ::after { box-sizing: border-box; }
h2, h3, p, ol, ul, dl, dd, figure { margin: 0; padding: 0; }
ol, ul { list-style: none; }
.frame { display: grid; gap: 12px; padding: 16px; container-type: inline-size; }
.head { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 12px; }
h2 { font-size: 18px; line-height: 24px; font-weight: 650; }
h3 { font-size: 13px; line-height: 18px; font-weight: 650; }
.about { flex: 1 1 0; min-width: 160px; overflow-wrap: anywhere; color: var(--soft); font-variant-numeric: tabular-nums; }
.pill { margin-inline-start: auto; padding: 2px 10px; border: 1px solid var(--line);
  border-radius: 99px; background: var(--panel); font-weight: 550; }
.pill::before { content: ""; display: inline-block; width: 8px; height: 8px; margin-inline-end: 6px;
  border-radius: 99px; background: var(--good); }
.pill.warn::before { background: var(--warn); border-radius: 2px; }
.pill.bad::before { background: var(--bad); border-radius: 2px; rotate: 45deg; }
.actions { display: flex; flex-wrap: wrap; gap: 8px; }
@container (max-width: 640px) { .actions { gap: 6px; } .actions > * { padding-inline: 10px; } }
button, .file, input, select { font: inherit; color: inherit; }
button, .file { min-height: 34px; padding: 5px 12px; border: 1px solid var(--line); border-radius: 8px;
  background: var(--panel); cursor: pointer; display: inline-flex; align-items: center; gap: 6px; }
button:hover, .file:hover { border-color: var(--soft); }
button:disabled { color: var(--soft); cursor: default; border-style: dashed; background: none; }
button.main, button[aria-pressed="true"] { background: var(--accent); border-color: var(--accent); color: var(--on-accent); }
button.danger { color: var(--bad); }
:focus-visible, .file:focus-within { outline: 2px solid var(--accent); outline-offset: 2px; }
.file input { position: absolute; width: 1px; height: 1px; opacity: 0; }
.said { min-height: 20px; color: var(--soft); overflow-wrap: anywhere; }
.said.bad { color: var(--bad); }
.said:empty { display: none; }
.confirm { display: flex; flex-wrap: wrap; gap: 8px 12px; align-items: center; padding: 12px;
  border: 1px solid var(--bad); border-radius: 10px; background: var(--panel); }
.confirm p { flex: 1 1 240px; }
.tabs { display: flex; gap: 2px; overflow-x: auto; border-bottom: 1px solid var(--line); scrollbar-width: none; }
.tabs::-webkit-scrollbar { display: none; }
.tabs button { border: 0; border-bottom: 2px solid transparent; border-radius: 6px 6px 0 0; background: none;
  white-space: nowrap; color: var(--soft); padding-inline: 10px; flex: none; }
.tabs button[aria-selected="true"] { color: var(--ink); border-bottom-color: var(--accent); font-weight: 600; }
.tabs button:focus-visible { outline-offset: -2px; }
.count { font-variant-numeric: tabular-nums; color: var(--soft); font-weight: 400; }
.panel { display: grid; gap: 12px; min-width: 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 250px), 1fr)); gap: 12px; }
.card, .chart, .box { padding: 12px 14px; border: 1px solid var(--line); border-radius: 10px;
  background: var(--panel); min-width: 0; }
.card dl { display: grid; gap: 6px; margin-top: 8px; }
.card div { display: grid; }
dt { color: var(--soft); font-size: 12px; line-height: 16px; }
dd { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
dd.good::before { content: "✓ "; } dd.warn::before { content: "● "; font-size: 10px; vertical-align: 1px; }
dd.bad::before { content: "▲ "; font-size: 11px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); gap: 12px; }
figcaption { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 13px; line-height: 18px; color: var(--soft); }
figcaption > span:first-child { color: var(--ink); font-weight: 650; margin-inline-end: auto; }
figcaption b { color: var(--ink); font-variant-numeric: tabular-nums; font-weight: 550; }
.key::before { content: ""; display: inline-block; width: 10px; height: 3px; margin-inline-end: 5px; vertical-align: 3px; border-radius: 2px; }
.key.one::before { background: var(--one); } .key.two::before { background: var(--two); } .key.three::before { background: var(--three); }
.plot { height: 132px; margin-top: 6px; overflow: hidden; direction: ltr; }
.uplot, .u-wrap { position: relative; }
.u-over, .u-under { position: absolute; }
.uplot canvas { display: block; position: relative; width: 100%; height: 100%; }
.u-axis, .u-legend, .u-select, .u-cursor-x, .u-cursor-y { position: absolute; pointer-events: none; }
.bar { display: flex; flex-wrap: wrap; gap: 8px 12px; align-items: center; }
label { display: inline-flex; gap: 6px; align-items: center; }
input[type="search"], input[type="number"] { min-height: 34px; padding: 5px 10px; border: 1px solid var(--soft);
  border-radius: 8px; background: var(--panel); min-width: 0; }
input[type="search"] { flex: 1 1 200px; }
input[type="number"] { width: 110px; }
input[type="range"] { flex: 1 1 160px; min-width: 100px; accent-color: var(--accent); }
input[type="checkbox"] { accent-color: var(--accent); width: 16px; height: 16px; margin: 0; }
progress { accent-color: var(--accent); flex: 1 1 120px; }
.hint { color: var(--soft); }
.hint:empty { display: none; }
.rows { border: 1px solid var(--line); border-radius: 10px; background: var(--panel); overflow: hidden; }
.rows:empty { display: none; }
.rows > li { display: grid; grid-template-columns: 84px 170px minmax(0, 1fr) auto; gap: 2px 12px; align-items: baseline;
  padding: 6px 12px; border-top: 1px solid var(--line); }
.rows > li:first-child { border-top: 0; }
.rows button { min-height: 26px; padding: 1px 8px; font-variant-numeric: tabular-nums; }
.rows .what { font-weight: 550; overflow-wrap: anywhere; }
.rows .more, code, pre { font: 12px/18px ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.rows .more { color: var(--soft); }
.rows .side { color: var(--soft); font-size: 12px; white-space: nowrap; }
@container (max-width: 640px) {
  .rows > li { grid-template-columns: 84px minmax(0, 1fr); }
  .rows .more, .rows .side { grid-column: 1 / -1; white-space: normal; }
}
.both { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); gap: 12px; }
.both h3 { margin-bottom: 6px; }
.both p { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
details { border-top: 1px solid var(--line); padding-block: 4px; }
summary { cursor: pointer; padding-block: 4px; border-radius: 4px; overflow-wrap: anywhere; }
details li { padding: 3px 0 3px 16px; }
.differences > li { grid-template-columns: 84px minmax(0, 1fr) minmax(0, 1.4fr); }
@container (max-width: 640px) {
  .differences > li { grid-template-columns: 84px minmax(0, 1fr); }
  .differences code { grid-column: 1 / -1; }
}
.differences span { overflow-wrap: anywhere; }
.differences del, .differences ins { display: block; text-decoration: none; overflow-wrap: anywhere; }
.differences del { color: var(--bad); } .differences del::before { content: "− "; }
.differences ins { color: var(--good); } .differences ins::before { content: "+ "; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (prefers-reduced-motion: no-preference) {
  button, .file { transition: border-color 120ms, background-color 120ms; }
}
@media (forced-colors: active) {
  .pill::before, .key::before { forced-color-adjust: none; }
  .tabs button[aria-selected="true"] { border-bottom-color: Highlight; }
}
`;

let sheet: CSSStyleSheet | undefined;

/** Style sheet that all inspectors of a page share. */
export function styleSheet(): CSSStyleSheet {
  if (sheet === undefined) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(TEXT);
  }
  return sheet;
}
