/**
 * History of a soak: what all its processes have written down, and what must hold
 * of it.
 *
 * @module
 */

import type {
  Line,
  Operation,
  Replay,
  ReplicaReport,
  Series,
  Way,
} from "./record.ts";
import { contradictionIn, type RegisterCall } from "./registers.ts";

/** Operation of a process, with its outcome as far as it is known. */
interface Call {
  readonly name: string;
  readonly client: string;
  readonly cluster: number;
  readonly life: number;
  readonly key: string;
  readonly operation: Operation;
  readonly way: Way | undefined;
  readonly series: Series | undefined;
  readonly startMs: number;
  endMs?: number;
  /** Value found by a read, or by a swap that failed; undefined for a command that was applied. */
  found?: string | null | undefined;
  outcome: "none" | "result" | "rejected" | "unknown";
  /** True for a submission whose promise has resolved. */
  isDurable: boolean;
}

/** Lines of all processes of one world. */
export class History {
  readonly #calls = new Map<string, Call>();
  /** Last number of each series of a cluster: called, durable, and applied. */
  readonly #called = new Map<string, number>();
  readonly #durable = new Map<string, number>();
  readonly #applied = new Map<string, number>();
  /** Violations that were found. */
  readonly violations: string[] = [];
  /** Number of comparisons of a view with the committed state and what is pending. */
  views = 0;

  /** Number of operations. */
  get size(): number {
    return this.#calls.size;
  }

  /** Number of commands that were acknowledged. */
  get acknowledged(): number {
    return [...this.#calls.values()].filter(isAcknowledged).length;
  }

  /** Adds a violation. */
  violate(text: string): void {
    this.violations.push(text);
  }

  /** Adds a line of a process. */
  add(client: string, life: number, line: Line): void {
    switch (line.type) {
      case "started":
        return this.#start(client, life, line);
      case "call": {
        const { name, cluster, key, operation, way, series, ms } = line;
        this.#calls.set(name, {
          name,
          client,
          cluster,
          life,
          key,
          operation,
          way,
          series,
          startMs: ms,
          outcome: "none",
          isDurable: false,
        });
        raise(this.#called, cluster, series);
        return;
      }
      case "durable": {
        const call = this.#calls.get(line.name)!;
        call.isDurable = true;
        raise(this.#durable, call.cluster, call.series);
        return;
      }
      case "result": {
        const call = this.#calls.get(line.name);
        if (call === undefined) {
          return this.violate(`${line.name} has a result and was not called`);
        }
        if (call.outcome === "result" && call.way !== "outbox") {
          return this.violate(`${line.name} has two results`);
        }
        call.endMs ??= line.ms;
        call.found = line.found;
        call.outcome = "result";
        if (call.found === undefined) {
          raise(this.#applied, call.cluster, call.series);
        }
        return;
      }
      case "rejected":
      case "unknown":
        this.#calls.get(line.name)!.outcome = line.type;
        return;
      case "violation":
        return this.violate(`${client}, life ${life}: ${line.text}`);
      case "checked":
        this.views += line.views;
    }
  }

  #start(
    client: string,
    life: number,
    { cluster, submitted, pending }: Line & { type: "started" },
  ): void {
    const series = `${cluster} n/${client}`;
    const durable = this.#durable.get(series) ?? 0;
    const called = this.#called.get(series) ?? 0;
    if (submitted < durable || submitted > called) {
      this.violate(
        `${client} starts life ${life} with ${submitted} submissions in cluster ${cluster}, has called ${called}, of which ${durable} are durable`,
      );
    }
    // What was not stored is not submitted any more, and its number is used again.
    this.#called.set(series, submitted);
    this.#durable.set(series, submitted);
    for (const name of pending) {
      const call = this.#calls.get(name);
      if (call === undefined) this.violate(`${name} is pending, but unknown`);
      else call.isDurable = true;
    }
  }

  /** Checks the states of all replicas of a cluster, when nothing is pending any more. */
  checkReports(
    cluster: number,
    reports: ReadonlyMap<string, ReplicaReport>,
  ): void {
    const [[first, right]] = reports as unknown as [[string, ReplicaReport]];
    for (const [client, { index, hash, pending }] of reports) {
      if (index !== right.index || hash !== right.hash || pending !== 0) {
        this.violate(
          `Cluster ${cluster}: ${client} ends at ${index} with hash ${hash} and ${pending} pending, ${first} at ${right.index} with ${right.hash}`,
        );
      }
    }
    for (const [series, called] of this.#called) {
      const [number, key] = series.split(" ") as [string, string];
      if (Number(number) !== cluster) continue;
      const found = right.series[key] ?? 0;
      const least = Math.max(
        this.#durable.get(series) ?? 0,
        this.#applied.get(series) ?? 0,
      );
      if (found >= least && found <= called) continue;
      this.violate(
        `Cluster ${cluster}: ${key} ends at ${found}; ${least} were acknowledged, ${called} called`,
      );
    }
  }

  /** Checks that the calls on each register are linearizable. */
  checkRegisters(): void {
    const registers = new Map<string, RegisterCall[]>();
    for (const call of this.#calls.values()) {
      const { cluster, key, operation, outcome } = call;
      // Without an effect: a call that finds its value finds one that was never written.
      if (outcome === "rejected") continue;
      if (operation.type === "read" && outcome !== "result") continue;
      const register = `${cluster} ${key}`;
      const calls = registers.get(register) ?? [];
      calls.push(registerCall(call));
      registers.set(register, calls);
    }
    for (const [register, calls] of registers) {
      const contradiction = contradictionIn(calls);
      if (contradiction !== undefined) {
        this.violate(`Register ${register}: ${contradiction}`);
      }
    }
  }

  /** Checks a replay of the log of a cluster, which is complete, against the state of a replica. */
  checkReplay(
    cluster: number,
    client: string,
    { index, hash }: ReplicaReport,
    replay: Replay,
  ): void {
    if (replay.hash !== hash) {
      this.violate(
        `Cluster ${cluster}: replay of ${client} has hash ${replay.hash} at ${index}, its replica ${hash}`,
      );
    }
    this.#checkOrder(cluster, replay.names);
  }

  #checkOrder(cluster: number, applied: readonly string[]): void {
    const places = new Map(applied.map((name, i) => [name, i]));
    if (places.size !== applied.length) {
      const twice = applied.filter((name, i) => places.get(name) !== i);
      this.violate(`Cluster ${cluster} applied ${twice} more than once`);
    }
    const calls = [...this.#calls.values()].filter((call) =>
      call.cluster === cluster && call.operation.type !== "read"
    );
    const last = new Map<string, Call>();
    for (const call of calls) {
      const { name, client, life, way, outcome } = call;
      const place = places.get(name);
      if (place === undefined) {
        if (isAcknowledged(call)) {
          this.violate(`${name} was acknowledged, and is not in the log`);
        }
        continue;
      }
      if (outcome === "rejected") {
        this.violate(`${name} was rejected, and is in the log`);
      }
      if (way === "alone") continue;
      const session = way === "outbox" ? client : `${client}.${life}`;
      const before = last.get(session);
      if (before !== undefined && places.get(before.name)! > place) {
        this.violate(`${name} was applied before ${before.name}`);
      }
      last.set(session, call);
    }
    this.#checkTime(cluster, calls, places);
  }

  /** Checks that no command was applied before one that had ended when it was called. */
  #checkTime(
    cluster: number,
    calls: readonly Call[],
    places: ReadonlyMap<string, number>,
  ): void {
    const found = calls.filter(({ name }) => places.has(name));
    const ended = found.filter(({ outcome }) => outcome === "result")
      .sort((a, b) => a.endMs! - b.endMs!);
    let at = 0;
    let latest: Call | undefined;
    for (const call of found.sort((a, b) => a.startMs - b.startMs)) {
      for (; at < ended.length && ended[at]!.endMs! < call.startMs; at++) {
        const one = ended[at]!;
        if (
          latest === undefined ||
          places.get(one.name)! > places.get(latest.name)!
        ) latest = one;
      }
      if (
        latest !== undefined &&
        places.get(latest.name)! > places.get(call.name)!
      ) {
        this.violate(
          `Cluster ${cluster}: ${call.name} was called when ${latest.name} had ended, and is before it in the log`,
        );
      }
    }
  }
}

/** Effect of a call on its register; a swap that failed is a read. */
function registerCall(
  { name, operation, found, startMs, endMs = Infinity }: Call,
): RegisterCall {
  const times = { name, start: startMs, end: endMs };
  if (found !== undefined) return { ...times, reads: found };
  return operation.type === "swap"
    ? { ...times, reads: operation.expected, writes: name }
    : { ...times, writes: name };
}

function isAcknowledged({ operation, outcome, isDurable }: Call): boolean {
  return operation.type !== "read" && (isDurable || outcome === "result");
}

function raise(
  numbers: Map<string, number>,
  cluster: number,
  series: Series | undefined,
): void {
  if (series === undefined) return;
  const key = `${cluster} ${series.key}`;
  numbers.set(key, Math.max(numbers.get(key) ?? 0, series.number));
}
