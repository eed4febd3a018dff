/**
 * Machines whose code is written on the page: a state that is plain JSON, and an
 * `update()` that applies one command to it. The page makes a concurrent state
 * machine of each, with snapshots and a state hash.
 *
 * @module
 */

import type {
  Entry,
  IConcurrentStateMachine,
  IHash,
  ISnapshotFileCollection,
  SnapshotFile,
} from "../../mod.ts";
import { encodeShown } from "../../src/bytes.ts";
import { countRounds, EACH, ROUND, ROUNDS_MAX } from "./rounds.ts";

/** Value that JSON can carry. */
export type JSONValue =
  | null
  | boolean
  | number
  | string
  | readonly JSONValue[]
  | { readonly [key: string]: JSONValue };

/** Sources of nondeterminism that the code of a machine sees in place of the real ones. */
export interface Surroundings {
  /** Time on the clock of the replica, in milliseconds since 1970. */
  readonly now: () => number;
  /** Random number in 0…1. */
  readonly random: () => number;
}

/** Code of a machine, evaluated for one replica. */
interface Evaluated {
  readonly initial: unknown;
  readonly commands: unknown;
  readonly update: unknown;
}

/** Machine whose code was compiled and tried. */
export interface Machine {
  /** Source text. */
  readonly code: string;
  /** Commands that the page offers as buttons. */
  readonly commands: readonly string[];
  /** Evaluates the code for a new instance. */
  readonly create: (surroundings: Surroundings) => Instance;
}

/** Instance of a machine: the state of one replica. */
export interface Instance {
  /** State at the start. */
  readonly initial: JSONValue;
  /** Applies a command to a state, which it may change; returns the answer. */
  readonly update: (state: unknown, command: string) => unknown;
}

/** Error in the code of a machine, in words for the person who wrote it. */
export class ErrMachineCode extends Error {}

/** Error of code that was stopped, because it does not come to an end. */
export class ErrEndless extends ErrMachineCode {
  /** Creates the error. */
  constructor() {
    super(
      `It was stopped after ${
        ROUNDS_MAX.toLocaleString("en")
      } rounds of its loops and functions: one of them has no end`,
    );
    this.name = "Endless code";
  }
}

/** Counter of the rounds of one call. */
class Rounds {
  #count = 0;

  /** Begins to count again. */
  reset(): void {
    this.#count = 0;
  }

  /** Counts one round. */
  readonly round = (): void => {
    if (++this.#count > ROUNDS_MAX) throw new ErrEndless();
  };

  /** Goes through values, and counts each. */
  readonly each = (values: Iterable<unknown>): Iterable<unknown> =>
    this.#each(values);

  *#each(values: Iterable<unknown>): Generator<unknown> {
    for (const value of values) {
      this.round();
      yield value;
    }
  }
}

/** Creates a `Date` whose present is `now()`. */
function dateOf(now: () => number): DateConstructor {
  return new Proxy(Date, {
    construct: (target, args, newTarget): object =>
      Reflect.construct(target, args.length === 0 ? [now()] : args, newTarget),
    apply: (target): string => new target(now()).toString(),
    get: (target, key, receiver): unknown =>
      key === "now" ? now : Reflect.get(target, key, receiver),
  });
}

/** Creates a `Math` with another `random()`. */
function mathOf(random: () => number): Math {
  return Object.create(Math, { random: { value: random } }) as Math;
}

type Evaluate = (
  date: DateConstructor,
  math: Math,
  performance: { now(): number },
  crypto: undefined,
  round: () => void,
  each: (values: Iterable<unknown>) => Iterable<unknown>,
) => Evaluated;

function messageOf(error: unknown): string {
  if (error instanceof ErrEndless) return error.message;
  return error instanceof Error
    ? `${error.name}: ${error.message}`
    : String(error);
}

/**
 * Returns the path of the first part of a value that JSON cannot carry, such as
 * `state.votes`; undefined if JSON can carry all of it.
 */
export function notJSON(value: unknown, path = "state"): string | undefined {
  if (value === null || typeof value === "boolean") return undefined;
  if (typeof value === "string") return undefined;
  if (typeof value === "number") {
    return Number.isFinite(value) ? undefined : `${path} is ${value}`;
  }
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const found = notJSON(value[i], `${path}[${i}]`);
      if (found !== undefined) return found;
    }
    return undefined;
  }
  if (typeof value !== "object") return `${path} is ${typeof value}`;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) {
    return `${path} is a ${value.constructor?.name ?? "foreign object"}`;
  }
  for (const [key, part] of Object.entries(value)) {
    const found = notJSON(part, `${path}.${key}`);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** JSON text of a state. */
function textOf(state: unknown): string {
  const found = notJSON(state);
  if (found !== undefined) {
    throw new ErrMachineCode(
      `${found}, which a snapshot cannot carry as JSON; use plain objects, arrays, text, numbers, true, false and null`,
    );
  }
  return JSON.stringify(state);
}

/** Function of the code of a machine. */
function functionOf(code: string): Evaluate {
  return new Function(
    "Date",
    "Math",
    "performance",
    "crypto",
    ROUND,
    EACH,
    `"use strict";\n${code}\n;return {
      initial: typeof initial === "undefined" ? undefined : initial,
      commands: typeof commands === "undefined" ? undefined : commands,
      update: typeof update === "undefined" ? undefined : update,
    };`,
  ) as Evaluate;
}

/** Function of the code of a machine, which counts its rounds. */
function evaluateOf(code: string): Evaluate {
  let evaluate: Evaluate;
  try {
    evaluate = functionOf(code);
  } catch (error) {
    throw new ErrMachineCode(
      `The code is not valid JavaScript. ${messageOf(error)}`,
    );
  }
  for (const hasArrows of [true, false]) {
    try {
      return functionOf(countRounds(code, hasArrows));
    } catch {
      // A syntax that the counting does not know.
    }
  }
  return evaluate;
}

/**
 * Compiles the code of a machine, and tries each of its commands once.
 *
 * @throws ErrMachineCode that says in words what is wrong
 */
export function compile(code: string): Machine {
  const evaluate = evaluateOf(code);
  const create = (surroundings: Surroundings): Instance => {
    const { now, random } = surroundings;
    const rounds = new Rounds();
    const { initial, update } = evaluate(
      dateOf(now),
      mathOf(random),
      { now },
      undefined,
      rounds.round,
      rounds.each,
    );
    return {
      initial: initial as JSONValue,
      update(state: unknown, command: string): unknown {
        rounds.reset();
        return (update as Instance["update"])(state, command);
      },
    };
  };
  let evaluated: Evaluated;
  const rounds = new Rounds();
  try {
    evaluated = evaluate(
      dateOf(() => 0),
      mathOf(() => 0.5),
      { now: () => 0 },
      undefined,
      rounds.round,
      rounds.each,
    );
  } catch (error) {
    if (error instanceof ErrEndless) {
      throw new ErrMachineCode(
        `The code does not come to an end by itself. ${error.message}`,
      );
    }
    throw new ErrMachineCode(`The code fails at once. ${messageOf(error)}`);
  }
  const { initial, update, commands = [] } = evaluated;
  if (typeof update !== "function") {
    throw new ErrMachineCode(
      "There is no function update(state, command): write one that changes the state and returns an answer",
    );
  }
  if (typeof initial !== "object" || initial === null) {
    throw new ErrMachineCode(
      "There is no object named initial: give the state of a machine that has applied nothing, such as { count: 0 }",
    );
  }
  if (
    !Array.isArray(commands) ||
    commands.some((command) => typeof command !== "string")
  ) {
    throw new ErrMachineCode(
      `commands is ${
        JSON.stringify(commands)
      }, not a list of texts: give the commands that the page offers as buttons`,
    );
  }
  textOf(initial);
  const tried = create({ now: () => 0, random: () => 0.5 });
  const state = JSON.parse(textOf(tried.initial)) as unknown;
  for (const command of commands as string[]) {
    try {
      tried.update(state, command);
    } catch (error) {
      if (error instanceof ErrEndless) {
        throw new ErrMachineCode(
          `update() does not return from the command “${command}”. ${error.message}`,
        );
      }
      throw new ErrMachineCode(
        `update() throws at the command “${command}”. ${messageOf(error)}`,
      );
    }
    textOf(state);
  }
  return { code, commands: commands as string[], create };
}

const FNV_OFFSET = 0xcbf29ce484222325n;
const FNV_PRIME = 0x100000001b3n;

/** Computes the FNV-1a hash of bytes. */
function hashOf(bytes: Uint8Array): bigint {
  let hash = FNV_OFFSET;
  for (const byte of bytes) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * FNV_PRIME);
  }
  return hash;
}

const decoder = new TextDecoder();

/** Concurrent state machine around an instance of the code on the page. */
export class PageMachine
  implements IConcurrentStateMachine<null, string>, IHash {
  readonly #instance: Instance;
  readonly #applied: (index: number) => void;
  #state: unknown;

  /** Creates a machine in its initial state; `applied` is called with the index of each entry that it applies. */
  constructor(instance: Instance, applied: (index: number) => void) {
    this.#instance = instance;
    this.#applied = applied;
    this.#state = JSON.parse(textOf(instance.initial));
  }

  /** Applies committed entries in the order of the log. */
  update(entries: Entry[]): Entry[] {
    for (const entry of entries) {
      const command = decoder.decode(entry.cmd);
      const answer = this.#instance.update(this.#state, command);
      textOf(this.#state);
      const text = answer === undefined ? "" : JSON.stringify(answer) ?? "";
      entry.result = { value: 0n, data: encodeShown(text) };
      this.#applied(entry.index);
    }
    return entries;
  }

  /** Returns the state as JSON. */
  lookup(): string {
    return textOf(this.#state);
  }

  /** Captures the state as JSON. */
  prepareSnapshot(): string {
    return textOf(this.#state);
  }

  /** Writes the captured state. */
  async saveSnapshot(
    state: unknown,
    w: WritableStream<Uint8Array>,
    _files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ): Promise<void> {
    stopped.throwIfAborted();
    const writer = w.getWriter();
    await writer.write(encodeShown(state as string));
    await writer.close();
  }

  /** Replaces the state by a saved one. */
  async recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    _files: readonly SnapshotFile[],
    _stopped: AbortSignal,
  ): Promise<void> {
    const decoder = new TextDecoder();
    const reader = r.getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      text += decoder.decode(value, { stream: true });
    }
    this.#state = JSON.parse(text);
  }

  /** Computes the hash of the state. */
  getHash(): bigint {
    return hashOf(encodeShown(textOf(this.#state)));
  }

  /** Has nothing to free. */
  close(): void {}
}

/** Names by which people compare hashes, with the colour that goes with each. */
const COLOURS: readonly (readonly [name: string, hue: number])[] = [
  ["rose", 350],
  ["coral", 14],
  ["amber", 38],
  ["gold", 50],
  ["lime", 80],
  ["leaf", 110],
  ["mint", 152],
  ["teal", 176],
  ["sky", 198],
  ["blue", 220],
  ["iris", 248],
  ["plum", 278],
  ["orchid", 300],
  ["pink", 326],
];

/** Hash as people compare it. */
export interface HashName {
  /** A colour and two hexadecimal digits, such as `teal 3f`. */
  readonly text: string;
  /** Hue of the colour, in degrees. */
  readonly hue: number;
  /** Hue that the digits stand for, in degrees. */
  readonly second: number;
}

/** Names a hash. */
export function hashName(hash: bigint): HashName {
  // The low bits of FNV-1a are its weakest.
  const mixed = (hash ^ hash >> 29n) & 0xffffffffn;
  const [name, hue] = COLOURS[Number(mixed >> 8n) % COLOURS.length]!;
  const low = Number(mixed & 0xffn);
  // Neighbours get hues that are far apart.
  const digits = low.toString(16).padStart(2, "0");
  return { text: `${name} ${digits}`, hue, second: low * 97 % 256 / 256 * 360 };
}
