/**
 * Chart of samples over time.
 *
 * Needs a page once it is used.
 * This module is browser compatible.
 *
 * @module
 */

// Before the library, which gives the language of the page to Intl.
import { restoreLanguage } from "./valid_language.ts";
import { uPlot } from "../deps/uplot.ts";
import { h, setText } from "./dom.ts";

restoreLanguage();

/** Height of a chart, in CSS pixels. */
const HEIGHT = 132;

/** Shortest time that a chart shows, in seconds. */
const WINDOW_S = 30;

/** Line of a chart. */
export interface Line {
  /** Name of the line. */
  readonly name: string;
  /** Custom property with its colour. */
  readonly colour: string;
  /** Formats a value. */
  readonly format: (value: number) => string;
}

/** Point in time with a value for each line; null for a line without one. */
export type Point = readonly [at: number, ...values: (number | null)[]];

/** Chart of lines over time, with its newest values as text. */
export class Chart {
  /** Element with the chart. */
  readonly element: HTMLElement;
  readonly #lines: readonly Line[];
  readonly #values: readonly HTMLElement[];
  readonly #canvas: HTMLElement = h("div", { className: "plot" });
  readonly #dark = matchMedia("(prefers-color-scheme: dark)");
  readonly #resized: ResizeObserver;
  #plot: uPlot | undefined;
  #points: readonly Point[] = [];
  #width = 0;

  /** Creates an empty chart with a title. */
  constructor(title: string, lines: readonly Line[]) {
    this.#lines = lines;
    this.#values = lines.map(() => h("b", {}, "–"));
    this.#canvas.setAttribute("aria-hidden", "true");
    this.element = h(
      "figure",
      { className: "chart" },
      h(
        "figcaption",
        {},
        h("span", {}, title),
        ...lines.map(({ name, colour }, i) =>
          h(
            "span",
            { className: `key ${colour.slice(2)}` },
            `${name} `,
            this.#values[i]!,
          )
        ),
      ),
      this.#canvas,
    );
    this.#resized = new ResizeObserver(() => this.#fit());
    this.#resized.observe(this.#canvas);
    this.#dark.onchange = (): void => this.#draw();
  }

  /** Shows points in the order of their times. */
  show(points: readonly Point[]): void {
    this.#points = points;
    const newest = points.at(-1);
    for (const [i, { format }] of this.#lines.entries()) {
      const value = newest?.[i + 1];
      setText(
        this.#values[i]!,
        value === null || value === undefined ? "–" : format(value),
      );
    }
    if (this.#plot === undefined) this.#draw();
    else this.#plot.setData(this.#data);
  }

  /** Ends the chart. */
  close(): void {
    this.#resized.disconnect();
    this.#dark.onchange = null;
    this.#plot?.destroy();
  }

  get #data(): uPlot.AlignedData {
    const newest = this.#points.at(-1)?.[0] ?? 0;
    return [
      this.#points.map(([at]) => (at - newest) / 1000),
      ...this.#lines.map((_, i) =>
        this.#points.map((point) => point[i + 1] ?? null)
      ),
    ] as unknown as uPlot.AlignedData;
  }

  #fit(): void {
    const width = Math.floor(this.#canvas.clientWidth);
    if (width === this.#width || width === 0) return;
    this.#width = width;
    if (this.#plot === undefined) this.#draw();
    else this.#plot.setSize({ width, height: HEIGHT });
  }

  /** Draws in the present colours. */
  #draw(): void {
    if (this.#width === 0) return;
    this.#plot?.destroy();
    const style = getComputedStyle(this.#canvas);
    const colour = (name: string): string => style.getPropertyValue(name);
    const axis = {
      stroke: colour("--soft"),
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { show: false },
      font: "11px system-ui, sans-serif",
    };
    this.#plot = new uPlot(
      {
        width: this.#width,
        height: HEIGHT,
        legend: { show: false },
        cursor: { show: false },
        scales: {
          x: {
            time: false,
            // The window grows with the points, from a minimum on.
            range: (_plot, min) => [Math.min(min, -WINDOW_S), 0],
          },
          y: { range: (_plot, _min, max) => [0, Math.max(1, max * 1.15)] },
        },
        axes: [
          {
            ...axis,
            size: 24,
            space: 70,
            values: (_plot, splits) => splits.map((at) => `${at} s`),
          },
          {
            ...axis,
            size: 52,
            space: 32,
            values: (_plot, values) =>
              values.map((value) => this.#lines[0]!.format(value)),
          },
        ],
        series: [
          {},
          ...this.#lines.map(({ name, colour: property }, i) => ({
            label: name,
            stroke: colour(property),
            width: 2,
            spanGaps: true,
            points: { show: false },
            ...(i === 0 ? { fill: `${colour(property)}22` } : {}),
          })),
        ],
      },
      this.#data,
      this.#canvas,
    );
  }
}
