/**
 * Replaces `Error` in a process that runs worlds by a constructor that captures no
 * stack: in Deno that takes some microseconds, whatever `Error.stackTraceLimit` says.
 * Imported before the code whose errors extend it; `SIMULATION_STACKS=1` leaves the
 * stacks.
 *
 * @module
 */

/** Error without a stack. */
function StacklessError(
  this: { message?: string; cause?: unknown },
  message?: string,
  options?: ErrorOptions,
): void {
  if (message !== undefined) this.message = `${message}`;
  if (options !== undefined && "cause" in options) this.cause = options.cause;
}

if (Deno.args.includes("--worker") && !Deno.env.has("SIMULATION_STACKS")) {
  const native = Error;
  StacklessError.prototype = native.prototype;
  Object.setPrototypeOf(StacklessError, native);
  // The errors of the platform still have their stacks, and obey this limit.
  Object.defineProperty(StacklessError, "stackTraceLimit", {
    get: () => native.stackTraceLimit,
    set: (limit) => native.stackTraceLimit = limit,
  });
  globalThis.Error = StacklessError as unknown as ErrorConstructor;
}
