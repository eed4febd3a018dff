/**
 * A machine that notices what goes wrong on the way to it: each client counts,
 * so a command that is lost, doubled or out of order is one with another number
 * than is expected.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { IStateMachine, Result } from "../../mod.ts";

/** What a {@linkcode JournalMachine} answers, whatever it is asked. */
export interface Journal {
  /** The last number of each client. */
  readonly last: Readonly<Record<string, number>>;
  /** The first commands that were not the next of their client. */
  readonly wrong: readonly string[];
}

/** The kinds of wrong commands that are kept, at most. */
const WRONG_MAX = 20;

/** The command with a number, counted from 1, of a client. */
export function entry(client: string, number: number): Uint8Array {
  return new TextEncoder().encode(`${client} ${number}`);
}

/** Counts per client, and a hash of all commands in their order. */
export class JournalMachine implements IStateMachine {
  #last = new Map<string, number>();
  #wrong: string[] = [];
  #high = 0x811c9dc5;
  #low = 0x01000193;

  update(cmd: Uint8Array): Result {
    const [client, number] = new TextDecoder().decode(cmd).split(" ") as [
      string,
      string,
    ];
    const last = this.#last.get(client) ?? 0;
    if (Number(number) !== last + 1 && this.#wrong.length < WRONG_MAX) {
      this.#wrong.push(`${client} ${number} after ${last}`);
    }
    this.#last.set(client, Number(number));
    for (const byte of cmd) {
      this.#high = Math.imul(this.#high ^ byte, 0x01000193);
      this.#low = Math.imul(this.#low + byte, 0x85ebca6b) ^ this.#high >>> 15;
    }
    return { value: BigInt(number) };
  }

  lookup(): Journal {
    return { last: Object.fromEntries(this.#last), wrong: [...this.#wrong] };
  }

  getHash(): bigint {
    return BigInt(this.#high >>> 0) << 32n | BigInt(this.#low >>> 0);
  }

  async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
    const state = [[...this.#last], this.#wrong, this.#high, this.#low];
    const writer = w.getWriter();
    await writer.write(new TextEncoder().encode(JSON.stringify(state)));
    await writer.close();
  }

  async recoverFromSnapshot(r: ReadableStream<Uint8Array>): Promise<void> {
    const [last, wrong, high, low] = await new Response(r).json();
    this.#last = new Map(last);
    this.#wrong = wrong;
    this.#high = high;
    this.#low = low;
  }

  close(): void {}
}
