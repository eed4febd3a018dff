/**
 * Drawings of the benchmarks, as SVG that is readable on a light and on a dark
 * page.
 *
 * @module
 */

import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";

/** Processor time of one operation at one size. */
export interface GrowthPoint {
  /** Name of what was measured. */
  readonly of: string;
  readonly operation: "insert" | "overwrite" | "lookup";
  /** Number of keys. */
  readonly keys: number;
  /** Nanoseconds of processor time per operation. */
  readonly ns: number;
}

/** Colours with enough contrast on white and on black. */
const COLOURS: Readonly<Record<string, string>> = {
  "Sampan": "#2f81f7",
  "JavaScript Map": "#d2691e",
  "Go map": "#3a9d4c",
};

const STYLE = `
  :root { color: #1f2328; }
  @media (prefers-color-scheme: dark) { :root { color: #e6edf3; } }
`;

/** Draws the growth of each operation, one beside the other, on logarithmic scales. */
export function drawGrowth(points: readonly GrowthPoint[]): string {
  const { document } = parseHTML("<!doctype html><html><body></body></html>");
  const channels = {
    x: "keys",
    y: "ns",
    fx: "operation",
    stroke: "of",
    z: "of",
  } as const;
  const svg = Plot.plot({
    document: document as unknown as Document,
    width: 960,
    height: 400,
    marginLeft: 60,
    marginRight: 20,
    marginTop: 50,
    marginBottom: 45,
    style: { fontSize: "13px", background: "none" },
    fx: {
      domain: ["insert", "overwrite", "lookup"],
      label: null,
      padding: 0.12,
    },
    x: {
      type: "log",
      domain: [1e3, 1e7],
      label: "keys",
      ticks: [1e3, 1e4, 1e5, 1e6, 1e7],
      tickFormat: (keys: number) =>
        keys < 1e6 ? `${keys / 1e3}k` : `${keys / 1e6}M`,
    },
    y: {
      type: "log",
      label: "ns of processor time per operation",
      grid: true,
      ticks: [50, 100, 200, 500, 1000, 2000, 5000, 10000],
      tickFormat: (ns: number) => ns.toLocaleString("en"),
    },
    color: {
      domain: Object.keys(COLOURS),
      range: Object.values(COLOURS),
    },
    marks: [
      Plot.line(points, { ...channels, strokeWidth: 2 }),
      Plot.dot(points, { ...channels, fill: "of", r: 3 }),
      // The legend, where no line is.
      ...Object.entries(COLOURS).map(([name, colour], i) =>
        Plot.text([name], {
          fx: () => "insert",
          text: [name],
          frameAnchor: "bottom-left",
          dx: 10,
          dy: 18 * i - 60,
          fill: colour,
          fontWeight: "bold",
        })
      ),
    ],
  });
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const style = document.createElement("style");
  style.textContent = STYLE;
  svg.insertBefore(style as unknown as Node, svg.firstChild);
  return `${svg.outerHTML}\n`;
}
