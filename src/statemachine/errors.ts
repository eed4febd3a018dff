/**
 * Errors of the state machine contract, and the base class of all errors of this
 * project.
 *
 * This module is browser compatible.
 *
 * @module
 */

/**
 * Base class of all errors that this project throws. `instanceof` compares class
 * names rather than identities, so that it works across two copies of the code in
 * one program, such as a page's bundle and a machine imported by URL (T5).
 */
export abstract class SampanError extends Error {
  /** Name that `instanceof` compares; every class has its own. */
  static readonly errorName: string = "SampanError";

  /** Creates an error with a message and, optionally, a `cause`. */
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    // Not `constructor.name`, which minifiers change.
    this.name = new.target.errorName;
  }

  /** True if `value` is an error of this class or of a subclass, from any copy of the code. */
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

/** Thrown by a call to something that is closed: a host, replica, log or store. */
export class ErrClosed extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName: string = "ErrClosed";
}

/**
 * Thrown by writes to the stream of `saveSnapshot()` when the receiver of a
 * streamed snapshot is gone. Rethrown from there, it ends only that transfer (D9).
 */
export class ErrSnapshotStreaming extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrSnapshotStreaming";
  /** Creates an error; `cause` may be the receiver's error. */
  constructor(message?: string, options?: ErrorOptions) {
    super(message ?? "Snapshot receiver is gone", options);
  }
}

/**
 * Reason of the signal of `open()` when the replica is stopped. Thrown after that
 * signal has aborted, it is not a failure (D2).
 */
export class ErrOpenStopped extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrOpenStopped";
  /** Creates an error for an `open()` that was stopped. */
  constructor(message?: string, options?: ErrorOptions) {
    super(message ?? "Opening the machine was stopped", options);
  }
}

/**
 * Reason of the signal of `saveSnapshot()` or `recoverFromSnapshot()` when the
 * replica is closed or the snapshot was dropped. Thrown after that signal has
 * aborted, it is not a failure (R8).
 */
export class ErrSnapshotStopped extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrSnapshotStopped";
  /** Creates an error for a snapshot that was stopped. */
  constructor(message?: string, options?: ErrorOptions) {
    super(message ?? "Snapshot was stopped", options);
  }
}

/**
 * Thrown by `saveSnapshot()` when the machine declines to save this snapshot: it
 * is dropped, a request for it rejects with this error, and the replica continues
 * (R7).
 */
export class ErrSnapshotAborted extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrSnapshotAborted";
  /** Creates an error for a snapshot that the machine declined to save. */
  constructor(message?: string, options?: ErrorOptions) {
    super(message ?? "Snapshot was aborted by the machine", options);
  }
}

/** Thrown when the machine lacks the optional interface that a call needs (E1, E2). */
export class ErrNotImplemented extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrNotImplemented";
  /** Creates an error for an optional interface that the machine lacks. */
  constructor(message?: string, options?: ErrorOptions) {
    super(
      message ?? "Machine does not implement the requested feature",
      options,
    );
  }
}

/**
 * Thrown where code that is loaded when it is first needed could not be loaded, by a
 * page without a network that has not cached all files of its build. Nothing is lost:
 * the next call tries again.
 */
export class ErrCodeNotLoaded extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrCodeNotLoaded";
  /** Creates an error for code that does `what`; `cause` is why it was not loaded. */
  constructor(what: string, options?: ErrorOptions) {
    super(
      `Code that ${what} is not on this device, and could not be loaded: have the service worker cache all files of the build, and try again with a network, or reload the page`,
      options,
    );
  }
}

/**
 * Thrown by a machine at a command, a change or a state that only newer code of the
 * application knows: load the newer code. Nothing is lost: a replica that meets it
 * stops answering and keeps its queue, and a server does not order such a command.
 */
export class ErrNewerCode extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrNewerCode";
}

/**
 * Thrown by `admit()` of a machine for a command whose author is not the principal
 * that sends it: the command waits until its author signs in.
 */
export class ErrOtherAuthor extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrOtherAuthor";
}
