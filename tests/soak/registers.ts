/**
 * Linearizability of one register whose written values are all different.
 *
 * A general search takes time exponential in the number of calls that overlap,
 * and submissions of a device that is offline overlap everything. With different
 * values each read names the write it comes from, so the calls fall into groups
 * that are contiguous in any order, and groups can be put into an order unless
 * two of them must each precede the other (Gibbons and Korach 1997, with
 * compare-and-swap as a link between two groups).
 *
 * @module
 */

/** Call on a register. A swap that took effect reads one value and writes another. */
export interface RegisterCall {
  /** Name of the call, for messages. */
  readonly name: string;
  readonly start: number;
  /** Time of the result; `Infinity` if the outcome is unknown. Calls that certainly had no effect are left out. */
  readonly end: number;
  /** Value that the call has found; null if the register was empty. */
  readonly reads?: string | null;
  /** Value that the call has written. */
  readonly writes?: string;
}

/** Values that follow each other by swaps only, and all calls that read or write them. */
class Group {
  /** Calls in steps: the first write; then, in turns, the reads of a value and the swap to the next one. */
  readonly steps: RegisterCall[][] = [];
  firstEnd = Infinity;
  lastStart = -Infinity;

  add(calls: readonly RegisterCall[]): void {
    this.steps.push([...calls]);
    for (const { start, end } of calls) {
      this.firstEnd = Math.min(this.firstEnd, end);
      this.lastStart = Math.max(this.lastStart, start);
    }
  }

  /** Two calls of which the second must precede the first, and has to follow it in real time. */
  contradiction(): readonly [RegisterCall, RegisterCall] | undefined {
    let earliest: RegisterCall | undefined;
    for (const step of this.steps.toReversed()) {
      for (const call of step) {
        if (earliest !== undefined && earliest.end < call.start) {
          return [earliest, call];
        }
      }
      for (const call of step) {
        if (earliest === undefined || call.end < earliest.end) earliest = call;
      }
    }
    return undefined;
  }

  /** Call that ended first, and the one that started last. */
  get ends(): readonly [RegisterCall, RegisterCall] {
    const calls = this.steps.flat();
    return [
      calls.find(({ end }) => end === this.firstEnd)!,
      calls.find(({ start }) => start === this.lastStart)!,
    ];
  }
}

function show({ name, start, end, reads, writes }: RegisterCall): string {
  const what = [
    ...(reads === undefined ? [] : [`reads ${reads}`]),
    ...(writes === undefined ? [] : [`writes ${writes}`]),
  ];
  return `${name} ${what.join(", ")} [${start}, ${end}]`;
}

const empty: RegisterCall = {
  name: "empty register",
  start: -Infinity,
  end: -Infinity,
};

/** Leaves out the calls of unknown outcome whose value is not found by a call that took effect: they explain nothing. */
function withEffect(calls: readonly RegisterCall[]): RegisterCall[] {
  const unknown = new Map<string | null | undefined, RegisterCall>();
  const kept: RegisterCall[] = [];
  for (const call of calls) {
    if (call.end < Infinity) kept.push(call);
    else if (call.writes !== undefined) unknown.set(call.writes, call);
  }
  // A swap found later in the list may have found the value of another one.
  for (const { reads } of kept) {
    const writer = unknown.get(reads);
    if (reads === undefined || writer === undefined) continue;
    unknown.delete(reads);
    kept.push(writer);
  }
  return kept;
}

/** Describes the contradiction in the calls on a register, which is empty at first; undefined if they are linearizable. */
export function contradictionIn(
  all: readonly RegisterCall[],
): string | undefined {
  const calls = withEffect(all);
  const writers = new Map<string | null, RegisterCall>([[null, empty]]);
  for (const call of calls) {
    const { writes } = call;
    if (writes === undefined) continue;
    const other = writers.get(writes);
    if (other !== undefined) {
      return `${show(call)}; ${show(other)} writes the same`;
    }
    writers.set(writes, call);
  }
  const readers = new Map<string | null, RegisterCall[]>();
  const swaps = new Map<string | null, RegisterCall>();
  for (const call of calls) {
    const { reads, writes } = call;
    if (reads === undefined) continue;
    if (!writers.has(reads)) return `${show(call)}, which no call has written`;
    if (writes === undefined) {
      const all = readers.get(reads);
      if (all === undefined) readers.set(reads, [call]);
      else all.push(call);
      continue;
    }
    const other = swaps.get(reads);
    if (other !== undefined) return `${show(call)}; so did ${show(other)}`;
    swaps.set(reads, call);
  }
  const groups: Group[] = [];
  let grouped = 0;
  for (const [first, writer] of writers) {
    if (writer.reads !== undefined) continue;
    const group = new Group();
    group.add([writer]);
    for (let value = first;;) {
      group.add(readers.get(value) ?? []);
      grouped++;
      const swap = swaps.get(value);
      if (swap === undefined) break;
      group.add([swap]);
      value = swap.writes!;
    }
    const found = group.contradiction();
    if (found !== undefined) {
      return `${show(found[0])} is before ${
        show(found[1])
      }, and has to follow it`;
    }
    groups.push(group);
  }
  if (grouped < writers.size) return "Swaps follow each other in a circle";
  groups.sort((one, other) => one.firstEnd - other.firstEnd);
  for (const [i, one] of groups.entries()) {
    for (let j = i + 1; j < groups.length; j++) {
      const other = groups[j]!;
      if (other.firstEnd >= one.lastStart) break;
      if (one.firstEnd >= other.lastStart) continue;
      const [[a, b], [c, d]] = [one.ends, other.ends];
      return `${show(a)} and ${show(b)} cannot be ordered with ${show(c)} and ${
        show(d)
      }`;
    }
  }
  return undefined;
}
