/**
 * What a server counts and measures, as OpenTelemetry sees it: nothing is
 * exported, and next to nothing is paid, unless the program that serves has set
 * OpenTelemetry up. Not for the bundles of a page.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { messageOf } from "../../describe.ts";
import { otel } from "../../deps/opentelemetry.ts";

/** What is counted from the start of a server on. */
export class Counts {
  /** Connections that are open. */
  connections = 0;
  /** Connections that were refused or cut, by whatever code but for an end in peace. */
  closed = 0;
  /** Bytes of frames that came. */
  received = 0;
  /** Bytes of frames that were sent. */
  sent = 0;
  /** Records that were added to logs. */
  appended = 0;
  /** Records that were refused. */
  refused = 0;
  /** Records sent to readers, once for each. */
  entries = 0;
  /** Bytes of snapshots sent. */
  snapshots = 0;
  /** Times that a hook (`authenticate`, `authorize`, `validate` or `fetch`) threw, gave an answer of the wrong kind, or none in time. */
  hookFailures = 0;
  /** Requests that were malformed, and answered by 400. */
  malformed = 0;
  /** Clients whose state was found to differ (H12). */
  diverged = 0;
}

const METRICS: {
  readonly [count in keyof Counts]: readonly [unit: string, text: string];
} = {
  connections: ["{connection}", "Connections that are open"],
  closed: ["{connection}", "Connections refused or cut"],
  received: ["By", "Bytes of frames received"],
  sent: ["By", "Bytes of frames sent"],
  appended: ["{record}", "Records added to logs"],
  refused: ["{record}", "Records refused"],
  entries: ["{record}", "Records sent to readers"],
  snapshots: ["By", "Bytes of snapshots sent"],
  hookFailures: [
    "{call}",
    "Hooks that threw, answered wrongly or did not answer",
  ],
  malformed: ["{request}", "Requests that were malformed"],
  diverged: ["{client}", "Clients whose state differs"],
};

/** Servers of this process so far. */
let servers = 0;

/** A piece of work that is traced. */
export interface TracedWork {
  /** It is done, or failed with that. */
  end(error?: unknown): void;
}

/** The counts of one server, its measures and its traces. */
export class Telemetry {
  /** What was counted; whoever counts adds to it. */
  readonly counts: Counts = new Counts();
  readonly #tracer = otel.trace.getTracer("sampan.sync");
  readonly #append: otel.Histogram;
  /** Attributes of each measurement and trace: what tells two servers of one process apart. */
  attributes: otel.Attributes;
  /** Takes the counts out of what is exported. */
  readonly close: () => void;

  /** Counts that are exported until `close()`. */
  constructor() {
    // Until it is known where the server listens.
    this.attributes = { "sampan.server": ++servers };
    const meter = otel.metrics.getMeter("sampan.sync");
    this.#append = meter.createHistogram("sampan.sync.append.duration", {
      unit: "ms",
      description: "From an append that came to its answer",
    });
    const undo = (Object.keys(METRICS) as (keyof Counts)[]).map((count) => {
      const [unit, description] = METRICS[count];
      const name = `sampan.sync.${count}`;
      // Read when they are exported: a frame to a thousand readers is one sum.
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

  /** An append was answered. */
  appendTook(ms: number): void {
    this.#append.record(ms, this.attributes);
  }

  /** Begins a piece of work. */
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
