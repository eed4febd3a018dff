/**
 * Errors on their way to another thread, which keep class name, message and stack.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { messageOf } from "../describe.ts";
import { WORKER_ERRORS_MAX } from "../limits.ts";
import { SampanError } from "../statemachine/errors.ts";

/** Error as it is sent. */
export interface SentError {
  /** Number of the error in the thread that has sent it first. */
  readonly number: number;
  /** True if it goes back to that thread, where it is the same object again. */
  readonly isReturned: boolean;
  readonly name: string;
  readonly message: string;
  readonly stack: string | undefined;
  /** Names that `instanceof` compares, of the class and those it extends; empty for an error of another library. */
  readonly classes: readonly string[];
  /** Own properties beside those above. */
  readonly properties: Readonly<Record<string, unknown>>;
  readonly cause: SentError | undefined;
}

/** Longest chain of causes that is sent, in errors. */
const CAUSES_MAX = 4;

const NATIVE: readonly ErrorConstructor[] = [
  EvalError,
  RangeError,
  ReferenceError,
  SyntaxError,
  TypeError,
  URIError,
];

/** Identity of an error that is another object where it is received. */
const COPY: Pick<SentError, "number" | "isReturned"> = {
  number: 0,
  isReturned: false,
};

/** Form in which an error, or another value that was thrown, is sent. */
export function formOf(
  error: unknown,
  identity: Pick<SentError, "number" | "isReturned"> = COPY,
  depth = 0,
): SentError {
  const { name, stack, cause } = Object(error) as Partial<Error>;
  const isError = error instanceof Error;
  return {
    ...identity,
    name: isError && typeof name === "string" ? name : "Error",
    message: messageOf(error),
    stack: typeof stack === "string" ? stack : undefined,
    classes: error instanceof SampanError ? classesOf(error) : [],
    properties: isError ? propertiesOf(error) : {},
    cause: isError && cause !== undefined && depth < CAUSES_MAX
      ? formOf(cause, COPY, depth + 1)
      : undefined,
  };
}

function classesOf(error: SampanError): string[] {
  const classes: string[] = [];
  let prototype: unknown = error;
  while ((prototype = Object.getPrototypeOf(prototype)) !== null) {
    const { constructor } = prototype as { constructor: unknown };
    if (
      typeof constructor === "function" &&
      Object.hasOwn(constructor, "errorName")
    ) classes.push((constructor as typeof SampanError).errorName);
  }
  return classes;
}

/** Own enumerable properties that can be sent. */
function propertiesOf(error: Error): Record<string, unknown> {
  const properties: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(error)) {
    if (key === "name" || key === "cause") continue;
    try {
      properties[key] = structuredClone(value);
    } catch {
      // A function, or an object of a class with private state.
    }
  }
  return properties;
}

/** Classes of received errors, by their names from the base class on. */
const received = new Map<string, typeof SampanError>();

/** Class that `instanceof` takes for the one with these names, the most special first. */
function classOf(names: readonly string[]): typeof SampanError {
  const [errorName, ...rest] = names;
  if (errorName === undefined || rest.length === 0) return SampanError;
  const key = names.join(" ");
  let found = received.get(key);
  if (found === undefined) {
    const Base = classOf(rest);
    const own: string = errorName;
    found = class extends Base {
      static override readonly errorName: string = own;
    };
    received.set(key, found);
  }
  return found;
}

/** Error as it was thrown in the other thread: `instanceof` and `name` say the same. */
export function errorOf(sent: SentError): Error {
  const { name, message, stack, classes, properties } = sent;
  const cause = sent.cause && errorOf(sent.cause);
  const options = cause === undefined ? {} : { cause };
  let error: Error;
  if (classes.length > 0) {
    const Class = classOf(classes) as unknown as ErrorConstructor;
    error = new Class(message, options);
  } else {
    const Class = NATIVE.find((one) => one.name === name) ?? Error;
    error = new Class(message, options);
    if (error.name !== name) error.name = name;
  }
  Object.assign(error, properties);
  if (stack !== undefined) {
    Object.defineProperty(error, "stack", {
      value: stack,
      configurable: true,
      writable: true,
    });
  }
  return error;
}

/** Errors that one thread has sent to another and received from it. */
export class SentErrors {
  /** Errors of this thread that were sent last, by number. */
  readonly #own = new Map<number, unknown>();
  #sent = 0;
  /** Numbers of errors of the other thread. */
  readonly #received = new WeakMap<Error, number>();

  /** Form in which an error, or another value that was thrown, is sent. */
  sent(error: unknown): SentError {
    const known = this.#received.get(error as Error);
    if (known !== undefined) {
      return formOf(error, { number: known, isReturned: true });
    }
    const number = ++this.#sent;
    this.#own.set(number, error);
    this.#own.delete(number - WORKER_ERRORS_MAX);
    return formOf(error, { number, isReturned: false });
  }

  /** Error that was received: the same object if it is one of this thread that comes back. */
  received(sent: SentError): unknown {
    const { number, isReturned } = sent;
    if (isReturned && this.#own.has(number)) return this.#own.get(number);
    const error = errorOf(sent);
    this.#received.set(error, number);
    return error;
  }
}
