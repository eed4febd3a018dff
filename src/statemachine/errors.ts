/**
 * The errors of the state machine contract, and the base every error class of
 * this project builds on.
 *
 * This module is browser compatible.
 *
 * @module
 */

/**
 * Base of every error this project throws. `instanceof` goes by the class's
 * name rather than by its identity, so that it holds between two copies of the
 * code in one program, say a page's bundle and a machine imported by URL (T5).
 */
export abstract class SampanError extends Error {
  /** The name `instanceof` goes by; each class states its own. */
  static readonly errorName: string = "SampanError";

  /** An error with a message and, where another error led to it, that as `cause`. */
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    // Own names, not `constructor.name`: minifiers change that one.
    this.name = new.target.errorName;
  }

  /** Whether `value` is an error of this class, or of one derived from it, from any copy of the code. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    if (typeof value !== "object" || value === null) return false;
    if (!Object.hasOwn(this, "errorName")) {
      return Function.prototype[Symbol.hasInstance].call(this, value);
    }
    let prototype: unknown = value;
    while ((prototype = Object.getPrototypeOf(prototype)) !== null) {
      const { constructor } = prototype as { constructor: unknown };
      if (
        typeof constructor === "function" &&
        Object.hasOwn(constructor, "errorName") &&
        (constructor as typeof SampanError).errorName === this.errorName
      ) return true;
    }
    return false;
  }
}

/**
 * The receiving side of a streamed snapshot is gone: what a write to the
 * stream given to `saveSnapshot()` fails with then, and what `saveSnapshot()`
 * passes on to end that transfer, and nothing else (D9).
 */
export class ErrSnapshotStreaming extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrSnapshotStreaming";
  /** An error that may tell in `cause` what happened to the receiver. */
  constructor(message?: string, options?: ErrorOptions) {
    super(message ?? "Snapshot receiver is gone", options);
  }
}

/**
 * `open()` of an on-disk machine gave up because the replica is being stopped:
 * the reason of the signal it was given, and no failure when thrown after that
 * signal has aborted (D2).
 */
export class ErrOpenStopped extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrOpenStopped";
  /** An error for an `open()` that did not complete. */
  constructor(message?: string, options?: ErrorOptions) {
    super(message ?? "Open did not complete", options);
  }
}

/**
 * Saving or recovering a snapshot gave up because the replica is being closed
 * or the snapshot is no longer wanted: the reason of the signal the method was
 * given, and no failure when thrown after that signal has aborted (R8).
 */
export class ErrSnapshotStopped extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrSnapshotStopped";
  /** An error for a snapshot that was stopped. */
  constructor(message?: string, options?: ErrorOptions) {
    super(message ?? "Snapshot was stopped", options);
  }
}

/**
 * What `saveSnapshot()` throws when the machine itself chooses not to make this
 * snapshot: it is dropped, whoever asked for it is told, and the machine goes
 * on (R7).
 */
export class ErrSnapshotAborted extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrSnapshotAborted";
  /** An error for a snapshot the machine chose not to make. */
  constructor(message?: string, options?: ErrorOptions) {
    super(message ?? "Snapshot was aborted by the machine", options);
  }
}

/** The machine does not implement the optional interface that was asked for (E1, E2). */
export class ErrNotImplemented extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrNotImplemented";
  /** An error for a feature the machine does not have. */
  constructor(message?: string, options?: ErrorOptions) {
    super(
      message ?? "Machine does not implement the requested feature",
      options,
    );
  }
}
