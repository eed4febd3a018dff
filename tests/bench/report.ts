/**
 * Cases of the benchmarks, their samples, and the table that they are reported
 * in.
 *
 * @module
 */

import process from "node:process";

/** Samples of several rounds, in the order in which they were taken. */
export interface Samples {
  /** By the clock on the wall. */
  readonly wall: readonly number[];
  /**
   * By the processor time of the process, its garbage collector included; empty
   * where the process also waits for others.
   */
  readonly processor: readonly number[];
}

/** Figures that a figure is compared with. */
export interface Reference {
  /** Aim: the figure is at most this. */
  readonly atMost?: number;
  /** Aim: the figure is at least this. */
  readonly atLeast?: number;
  /** Dragonboat's figure, with its entries ready in memory. */
  readonly dragonboat?: number;
  /** Dragonboat's figure where it decodes entries from bytes, as any log must. */
  readonly decoding?: number;
  /** Work that the figure contains, or the source of the aim. */
  readonly note?: string;
}

/** One figure of a case, as it is sent from its process. */
export interface Figure extends Reference {
  /** Name of what is measured. */
  readonly what: string;
  /** Unit of the samples. */
  readonly unit: string;
  /** The samples. */
  readonly samples: Samples;
}

/** Context of a running case: how much it measures, and where figures go. */
export class Bench {
  readonly #share: number;
  readonly #emit: (figure: Figure) => void;

  /** A context that reduces all counts to `share` of them, for a trial run. */
  constructor(share: number, emit: (figure: Figure) => void) {
    this.#share = share;
    this.#emit = emit;
  }

  /** This share of a count, at least `least`. */
  count(full: number, least = 1): number {
    return Math.max(least, Math.ceil(full * this.#share));
  }

  /** Reports a figure. */
  report(
    what: string,
    samples: number | Samples,
    unit: string,
    reference: Reference = {},
  ): void {
    this.#emit({
      what,
      unit,
      samples: typeof samples === "number"
        ? { wall: [samples], processor: [] }
        : samples,
      ...reference,
    });
  }

  /**
   * Milliseconds of each of several rounds, each prepared outside the
   * measurement, after as many untimed rounds as it takes to compile the code.
   */
  async rounds(
    run: () => unknown,
    prepare: () => unknown = (): void => {},
    rounds = 9,
  ): Promise<Samples> {
    const warmUpMs = this.#share < 1 ? 0 : WARM_UP_MS;
    const from = performance.now();
    for (let i = 0; i < 2 || performance.now() - from < warmUpMs; i++) {
      await prepare();
      await run();
      if (warmUpMs === 0) break;
    }
    const wall: number[] = [];
    const processor: number[] = [];
    for (let i = 0; i < this.count(rounds); i++) {
      await prepare();
      const used = processorMs();
      const start = performance.now();
      await run();
      wall.push(performance.now() - start);
      processor.push(processorMs() - used);
    }
    return { wall, processor };
  }
}

/** Case of the benchmarks: runs alone in a process of its own. */
export interface Case {
  /** Number of processes in which it is repeated, one after the other; 1 if absent. */
  readonly processes?: number;
  /** Measures and reports. */
  readonly run: (bench: Bench) => void | Promise<void>;
}

/** Cases by name. */
export type Cases = Readonly<Record<string, Case>>;

/** Time for which a case runs before it is measured, in milliseconds. */
const WARM_UP_MS = 2_000;

/** Processor time this process has used, in milliseconds. */
export function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** Every sample of `samples`, converted. */
export function convert(
  { wall, processor }: Samples,
  to: (sample: number) => number,
): Samples {
  return { wall: wall.map(to), processor: processor.map(to) };
}

/** The same samples without processor time, which says nothing of a process that waits. */
export function wallOnly({ wall }: Samples): Samples {
  return { wall, processor: [] };
}

/** The value below which the share `p` of the samples lies. */
export function percentile(samples: readonly number[], p: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))]!;
}

/** Median of the samples. */
export function median(samples: readonly number[]): number {
  return percentile(samples, 0.5);
}

function number(value: number): string {
  const digits = Math.abs(value) < 10 ? 2 : 0;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

/** The median, with the least and the greatest of several samples. */
function spread(samples: readonly number[]): string {
  if (samples.length === 0) return "";
  const middle = number(median(samples));
  if (samples.length === 1) return middle;
  return `${middle} (${number(Math.min(...samples))}–${
    number(Math.max(...samples))
  })`;
}

/**
 * The aim of a figure, and whether its median meets it: by processor time where
 * that was measured, as the machine may be shared.
 */
function judge({ samples, atMost, atLeast }: Figure): string {
  const bound = atMost ?? atLeast;
  if (bound === undefined) return "";
  const { wall, processor } = samples;
  const figure = median(processor.length > 0 ? processor : wall);
  const met = atMost !== undefined ? figure <= bound : figure >= bound;
  return `${atMost !== undefined ? "≤" : "≥"} ${number(bound)} ${
    met ? "met" : "**short**"
  }`;
}

/** One line for a figure. */
export function line(figure: Figure): string {
  const { what, unit, samples, note } = figure;
  const { wall, processor } = samples;
  return [
    what.padEnd(58),
    `${spread(wall)} ${unit}`.padEnd(28),
    processor.length > 0 ? `processor ${spread(processor)}` : "",
    judge(figure),
    note ?? "",
  ].join("  ").trimEnd();
}

const COLUMNS = [
  "what",
  "unit",
  "median (least–greatest)",
  "by processor time",
  "Dragonboat",
  "… decoding",
  "aim",
  "note",
];

/** The figures as a table in Markdown, which is also aligned as plain text. */
export function table(figures: readonly Figure[]): string {
  const rows = figures.map((figure) => {
    const { what, unit, samples, dragonboat, decoding, note } = figure;
    return [
      what,
      unit,
      spread(samples.wall),
      spread(samples.processor),
      dragonboat === undefined ? "" : number(dragonboat),
      decoding === undefined ? "" : number(decoding),
      judge(figure),
      note ?? "",
    ];
  });
  const widths = COLUMNS.map((title, i) =>
    Math.max(title.length, ...rows.map((row) => row[i]!.length))
  );
  const render = (cells: readonly string[]): string =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i]!)).join(" | ")} |`;
  return [
    render(COLUMNS),
    render(widths.map((width) => "-".repeat(width))),
    ...rows.map(render),
  ].join("\n");
}

/** One figure of the samples that several processes took of the same thing. */
export function merge(figures: readonly Figure[]): Figure[] {
  const merged = new Map<string, Figure>();
  for (const figure of figures) {
    const before = merged.get(figure.what);
    const samples = before === undefined ? figure.samples : {
      wall: [...before.samples.wall, ...figure.samples.wall],
      processor: [...before.samples.processor, ...figure.samples.processor],
    };
    merged.set(figure.what, { ...figure, samples });
  }
  return [...merged.values()];
}
