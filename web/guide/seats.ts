/** A state machine: seats of a hall, each of which one person can book. */

import type { IFork, IRefusal, IStateMachine, Result } from "@sampan/sampan";

/** A change that a person asks for. */
export type SeatCommand =
  | { readonly type: "book"; readonly seat: string; readonly name: string }
  | { readonly type: "free"; readonly seat: string; readonly name: string };

/** Name of the person who has each booked seat, by seat. */
export type Bookings = Readonly<Record<string, string>>;

/** Kind of machine that `Seats` is. */
type SeatMachine = IStateMachine<null, Bookings>;

// Meanings of `Result.value`.
const DONE = 0n;
const TAKEN = 1n;
const INVALID = 2n;

/** Bytes of a command, as `submit()` and `propose()` take them. */
export function encode(command: SeatCommand): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(command));
}

/** Command in these bytes; undefined if they are not a command. */
export function decode(cmd: Uint8Array): SeatCommand | undefined {
  try {
    const { type, seat, name } = JSON.parse(new TextDecoder().decode(cmd));
    const isKnown = type === "book" || type === "free";
    return isKnown && typeof seat === "string" && typeof name === "string"
      ? { type, seat, name }
      : undefined;
  } catch {
    return undefined;
  }
}

/** State machine of the bookings. */
export class Seats implements SeatMachine, IFork<SeatMachine>, IRefusal {
  #taken: Map<string, string>;

  /** Creates a hall with these bookings; by default every seat is free. */
  constructor(taken: Iterable<readonly [string, string]> = []) {
    this.#taken = new Map(taken);
  }

  /** Applies one command. Its result depends on the state and the command, on nothing else. */
  update(cmd: Uint8Array): Result {
    const command = decode(cmd);
    if (command === undefined) return { value: INVALID };
    const { type, seat, name } = command;
    const holder = this.#taken.get(seat);
    if (holder !== undefined && holder !== name) {
      return { value: TAKEN, data: new TextEncoder().encode(holder) };
    }
    if (type === "book") this.#taken.set(seat, name);
    else this.#taken.delete(seat);
    return { value: DONE };
  }

  /** Reason to show to the person whose command had this result; undefined for a success. */
  refusal({ value, data }: Result): string | undefined {
    if (value === DONE) return undefined;
    return value === TAKEN
      ? `${new TextDecoder().decode(data)} has that seat`
      : "This is not a booking";
  }

  /** Answers with a copy, which the caller may keep. */
  lookup(): Bookings {
    return Object.fromEntries(this.#taken);
  }

  /** Copies the state, so that commands can be tried without changing it. */
  fork(): Seats {
    return new Seats(this.#taken);
  }

  /** Writes the whole state. */
  async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
    const state = JSON.stringify([...this.#taken]);
    await new Blob([state]).stream().pipeTo(w);
  }

  /** Replaces the whole state. */
  async recoverFromSnapshot(r: ReadableStream<Uint8Array>): Promise<void> {
    this.#taken = new Map(await new Response(r).json());
  }

  /** Does nothing: there is nothing to release. */
  close(): void {}
}
