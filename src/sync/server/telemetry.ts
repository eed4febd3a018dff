/**
 * Metrics and traces of a server for OpenTelemetry. Nothing is exported, at almost
 * no cost, unless the application has set OpenTelemetry up. Not for the bundles of
 * a page.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { messageOf } from "../../describe.ts";
import { INSPECTOR_LATENCIES_MAX } from "../../limits.ts";
import { otel } from "../../deps/opentelemetry.ts";

/** Counters of a server since its start. */
export class Counts {
  /** Connections that are open. */
  connections = 0;
  /** Connections that were rejected, or closed with a code other than a regular end. */
  closed = 0;
  /** Bytes of frames that were received. */
  received = 0;
  /** Bytes of frames that were sent. */
  sent = 0;
  /** Records that were appended to logs. */
  appended = 0;
  /** Records that were refused. */
  refused = 0;
  /** Records that were sent, once for each reader. */
  entries = 0;
  /** Bytes of snapshots sent. */
  snapshots = 0;
  /** Calls of a hook (`authenticate`, `authorize`, `validate` or `fetch`) that threw, returned a value of the wrong type, or timed out. */
  hookFailures = 0;
  /** Malformed requests that were answered with 400. */
  malformed = 0;
  /** Clients that were found to have diverged. */
  diverged = 0;
}

const METRICS: {
  readonly [count in keyof Counts]: readonly [unit: string, text: string];
} = {
  connections: ["{connection}", "Connections that are open"],
  closed: ["{connection}", "Connections rejected, or closed with an error"],
  received: ["By", "Bytes of frames received"],
  sent: ["By", "Bytes of frames sent"],
  appended: ["{record}", "Records appended to logs"],
  refused: ["{record}", "Records refused"],
  entries: ["{record}", "Records sent to readers"],
  snapshots: ["By", "Bytes of snapshots sent"],
  hookFailures: [
    "{call}",
    "Calls of hooks that threw, returned an invalid value or timed out",
  ],
  malformed: ["{request}", "Requests that were malformed"],
  diverged: ["{client}", "Clients whose state differs"],
};

/** Number of servers created in this process. */
let servers = 0;

/** Operation that is traced. */
export interface TracedWork {
  /** Ends the trace, with the error that the operation failed with. */
  end(error?: unknown): void;
}

/** Counters, histograms and traces of one server. */
export class Telemetry {
  /** Counters, which the parts of the server add to. */
  readonly counts: Counts = new Counts();
  readonly #tracer = otel.trace.getTracer("sampan.sync");
  readonly #append: otel.Histogram;
  /** Times of the last appends, in milliseconds, each in the place of the oldest. */
  readonly #recent: number[] = [];
  #next = 0;
  /** Attributes of each measurement and trace, which distinguish the servers of one process. */
  attributes: otel.Attributes;
  /** Stops exporting the counters. */
  readonly close: () => void;

  /** Creates counters that are exported until `close()`. */
  constructor() {
    // Replaced by the address once the server listens.
    this.attributes = { "sampan.server": ++servers };
    const meter = otel.metrics.getMeter("sampan.sync");
    this.#append = meter.createHistogram("sampan.sync.append.duration", {
      unit: "ms",
      description: "Time from the receipt of an append to its answer",
    });
    const undo = (Object.keys(METRICS) as (keyof Counts)[]).map((count) => {
      const [unit, description] = METRICS[count];
      const name = `sampan.sync.${count}`;
      // Observed at export: counting must stay a plain addition on the hot path.
      const metric = count === "connections"
        ? meter.createObservableUpDownCounter(name, { unit, description })
        : meter.createObservableCounter(name, { unit, description });
      const observe = (result: otel.ObservableResult): void =>
        result.observe(this.counts[count], this.attributes);
      metric.addCallback(observe);
      return () => metric.removeCallback(observe);
    });
    this.close = () => {
      for (const step of undo) step();
    };
  }

  /** Records the time an append took, in milliseconds. */
  appendTook(ms: number): void {
    this.#recent[this.#next++ % INSPECTOR_LATENCIES_MAX] = ms;
    this.#append.record(ms, this.attributes);
  }

  /** Median time of the last appends, and the one below which 95 % are, in milliseconds; null without any. */
  recentAppends(): {
    readonly median: number | null;
    readonly high: number | null;
  } {
    const sorted = this.#recent.toSorted((a, b) => a - b);
    const at = (share: number): number | null =>
      sorted[Math.floor(share * sorted.length)] ?? null;
    return { median: at(0.5), high: at(0.95) };
  }

  /** Starts the trace of an operation. */
  begin(name: string, attributes: Record<string, string> = {}): TracedWork {
    const span = this.#tracer.startSpan(`sampan.sync.${name}`, {
      attributes: { ...this.attributes, ...attributes },
    });
    return {
      end: (error): void => {
        if (error !== undefined) {
          span.setStatus({
            code: otel.SpanStatusCode.ERROR,
            message: messageOf(error),
          });
        }
        span.end();
      },
    };
  }
}
