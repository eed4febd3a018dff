/**
 * Terminal output of a replay: the progress bar, and the table at the end.
 *
 * @module
 */

import type { Progress, ReplayReport, ReplicaStart } from "./replay.ts";

const numbers = new Intl.NumberFormat("en");

/** Number with separators between thousands. */
function group(value: number): string {
  return numbers.format(value);
}

function duration(seconds: number): string {
  const rest = Math.ceil(seconds);
  return rest < 60
    ? `${rest} s`
    : `${Math.floor(rest / 60)} min ${rest % 60} s`;
}

/** Time before which a rate mostly reflects the start, in seconds. */
const RATE_SECONDS_MIN = 0.5;

const BAR_WIDTH_MIN = 10;
const BAR_WIDTH_MAX = 40;

/** Progress of a replay as one line of at most `columns` characters. */
export function formatProgress(
  { done, total }: Progress,
  seconds: number,
  columns: number,
): string {
  const part = total === 0 ? 1 : done / total;
  const rate = seconds > 0 ? done / seconds : 0;
  const left = rate > 0 && seconds >= RATE_SECONDS_MIN
    ? `, ${duration((total - done) / rate)} left`
    : "";
  // Padded, so that the bar keeps its width while the numbers grow.
  const whole = group(total);
  const count = group(done).padStart(whole.length);
  const percent = `${Math.floor(part * 100)} %`.padStart(6);
  const rest = `${percent}  ${count} of ${whole} edits, ${
    group(Math.round(rate))
  }/s${left}`;
  const width = Math.min(BAR_WIDTH_MAX, columns - rest.length - 1);
  if (width < BAR_WIDTH_MIN) return rest.trimStart().slice(0, columns - 1);
  const filled = Math.round(part * width);
  return "█".repeat(filled) + "░".repeat(width - filled) + rest;
}

function describeStart({ how, snapshot }: ReplicaStart): string {
  const verb = { start: "", restart: "restarted ", late: "joined late " }[how];
  return snapshot === undefined
    ? `${verb}from the start`
    : `${verb}from snapshot ${group(snapshot)}`;
}

/** Result of a replay as lines; with colours if `color` is set. */
export function formatReport(report: ReplayReport, color: boolean): string {
  const paint = (code: number, text: string): string =>
    color ? `\x1b[${code}m${text}\x1b[0m` : text;
  const verdict = (good: boolean, text: string): string =>
    paint(good ? 32 : 31, text);

  const rows = report.replicas.map((replica) => [
    `${replica.nodeID}`,
    describeStart(replica.start),
    group(replica.index),
    replica.hash.toString(16).padStart(16, "0"),
    group(replica.length),
  ]);
  const head = ["replica", "came up", "index", "hash", "length", "text"];
  const right = new Set([2, 4]);
  const widths = rows.reduce(
    (widths, row) =>
      row.map((cell, i) => Math.max(cell.length, widths[i] as number)),
    head.map((cell) => cell.length),
  );
  const line = (cells: string[]): string =>
    cells.map((cell, i) =>
      right.has(i)
        ? cell.padStart(widths[i] as number)
        : cell.padEnd(widths[i] as number)
    ).join("  ");

  const lines = [
    paint(1, report.name),
    "",
    paint(2, `${line(head.slice(0, -1))}  ${head.at(-1)}`),
    ...report.replicas.map(({ sameText }, i) =>
      `${line(rows[i] as string[])}  ${
        verdict(sameText, sameText ? "equal" : "differs")
      }`
    ),
    "",
    report.logStart > 1
      ? `The log began at ${
        group(report.logStart)
      } when replica 3 joined: what was before had been cut`
      : "Nothing had been cut from the log when replica 3 joined",
    `${group(report.edits)} edits in ${report.seconds.toFixed(2)} s: ${
      paint(1, group(Math.round(report.edits / report.seconds)))
    } edits per second, three replicas applying`,
  ];
  if (report.refused > 0) {
    const edits = report.refused === 1 ? "edit was" : "edits were";
    lines.push(
      verdict(false, `${group(report.refused)} ${edits} refused`),
    );
  }
  lines.push(
    report.same
      ? verdict(true, "All replicas are the same and hold the recorded text")
      : verdict(false, "Replicas differ, or do not hold the recorded text"),
  );
  return lines.join("\n") + "\n";
}
