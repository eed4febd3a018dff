/**
 * Simulated network with faults: frames arrive late, stall and are lost, and the
 * two ends of a connection notice its failure at different times or not at all.
 *
 * @module
 */

import type { Env } from "../../src/env.ts";
import type { Transport, TransportListener } from "../../src/sync/transport.ts";

/** Close code of a WebSocket whose connection broke. */
const BROKEN = 1006;

/** Time until `close()` of a dead connection ends, in milliseconds. */
const DEAD_CLOSE_MS = 3_000;

/** Failure of a connection that neither end closed. */
export type Cut =
  /** Both ends notice at once. */
  | "clean"
  /** One end notices later and goes on until then. */
  | "halves"
  /** Neither end notices, except by missing heartbeats. */
  | "silent";

/** One end of a connection. Frames that arrive do so whole and in order. */
export class NetworkEnd implements Transport {
  other!: NetworkEnd;
  isOver = false;
  bufferedBytes = 0;
  /** High-water mark of `bufferedBytes`. */
  bufferedBytesMax = 0;
  readonly #env: Env;
  readonly #delay: () => number;
  /** Called with each frame that arrives at this end. */
  onFrame: ((frame: Uint8Array) => void) | undefined;
  #listener: TransportListener | undefined;
  #sent: (Uint8Array | { code: number; reason: string })[] = [];
  /** Time at which the last frame sent arrives. */
  #lastAt = 0;
  /** True if frames sent from here are lost. */
  #isDead = false;
  #isClosing = false;

  constructor(env: Env, delay: () => number) {
    this.#env = env;
    this.#delay = delay;
  }

  listen(listener: TransportListener): void {
    this.#listener = listener;
    this.#env.setTimer(() => {
      if (!this.isOver && !this.#isDead) listener.opened();
    }, this.#delay());
  }

  send(frame: Uint8Array): void {
    if (this.isOver || this.#isClosing) return;
    this.bufferedBytes += frame.length;
    this.bufferedBytesMax = Math.max(this.bufferedBytesMax, this.bufferedBytes);
    // Not copied: a sender that changes a frame after `send()` must be noticed.
    this.#push(frame);
  }

  #push(what: Uint8Array | { code: number; reason: string }): void {
    if (this.#isDead) return;
    this.#sent.push(what);
    const now = this.#env.now();
    this.#lastAt = Math.max(this.#lastAt, now + this.#delay());
    this.#env.setTimer(() => this.#deliver(), this.#lastAt - now);
  }

  #deliver(): void {
    const what = this.#sent.shift();
    if (what === undefined) return;
    const { other } = this;
    if (!(what instanceof Uint8Array)) return other.end(what.code, what.reason);
    this.bufferedBytes -= what.length;
    if (!other.isOver && !other.#isClosing) {
      other.#listener?.frame(what.slice());
      other.onFrame?.(what);
    }
  }

  close(code: number, reason: string): void {
    if (this.isOver || this.#isClosing) return;
    this.#isClosing = true;
    this.#push({ code, reason });
    const isDead = this.#isDead;
    this.#env.setTimer(
      () => isDead ? this.end(BROKEN, "") : this.end(code, reason),
      isDead ? DEAD_CLOSE_MS : 1,
    );
  }

  /** Ends the connection at this end only. */
  end(code: number, reason: string): void {
    if (this.isOver) return;
    this.isOver = true;
    this.#listener?.closed(code, reason);
  }

  /** Delays all frames in flight by `ms`. */
  stall(ms: number): void {
    this.#lastAt = Math.max(this.#lastAt, this.#env.now() + ms);
  }

  /** Loses all frames, in flight and later ones, except for the first in flight. */
  lose(kept = 0): void {
    this.#isDead = true;
    this.#sent.length = Math.min(this.#sent.length, kept);
  }

  /** Number of frames in flight from this end. */
  get onTheWay(): number {
    return this.#sent.length;
  }
}

/** Connections between clients and a server. */
export class Network {
  readonly #env: Env;
  readonly #random: () => number;
  /** Client ends of the open connections, with the name of the client. */
  readonly #ends = new Map<NetworkEnd, string>();
  /** High-water mark of the bytes buffered at one end. */
  bufferedBytesMax = 0;

  constructor(env: Env, random: () => number) {
    this.#env = env;
    this.#random = random;
  }

  /** Connects a client; returns its end and the server's. */
  connect(client: string): [NetworkEnd, NetworkEnd] {
    const far = 1 + this.#random() % 40;
    const delay = (): number => far + this.#random() % 10;
    const here = new NetworkEnd(this.#env, delay);
    const there = new NetworkEnd(this.#env, delay);
    here.other = there;
    there.other = here;
    this.#ends.set(here, client);
    return [here, there];
  }

  /** Fails a connection attempt. */
  refuse(end: NetworkEnd): void {
    this.#env.setTimer(() => end.end(BROKEN, ""), 5);
  }

  #of(client: string | undefined): NetworkEnd[] {
    const found: NetworkEnd[] = [];
    for (const [end, name] of this.#ends) {
      for (const { bufferedBytesMax } of [end, end.other]) {
        this.bufferedBytesMax = Math.max(
          this.bufferedBytesMax,
          bufferedBytesMax,
        );
      }
      if (end.isOver && end.other.isOver) this.#ends.delete(end);
      else if (client === undefined || name === client) found.push(end);
    }
    return found;
  }

  /** Number of connections whose end one side has not noticed. */
  get open(): number {
    return this.#of(undefined).length;
  }

  /** Cuts the connections of a client, or of all. */
  cut(client: string | undefined, how: Cut): void {
    for (const end of this.#of(client)) {
      const ends = this.#random() % 2 === 0
        ? [end, end.other]
        : [end.other, end];
      for (const half of ends) {
        half.lose(this.#random() % (half.onTheWay + 1));
      }
      if (how === "silent") continue;
      ends[0]!.end(BROKEN, "");
      if (how === "clean") ends[1]!.end(BROKEN, "");
      else {
        this.#env.setTimer(
          () => ends[1]!.end(BROKEN, ""),
          1 + this.#random() % 4_000,
        );
      }
    }
  }

  /** Delays all frames from a client, or all to it. */
  stall(client: string, ms: number): void {
    for (const end of this.#of(client)) {
      (this.#random() % 2 === 0 ? end : end.other).stall(ms);
    }
  }

  /** Cuts the connections of a process that died; the other ends notice later. */
  die(client: string | undefined, side: "client" | "server"): void {
    for (const end of this.#of(client)) {
      const [dead, alive] = side === "client"
        ? [end, end.other]
        : [end.other, end];
      dead.lose(this.#random() % (dead.onTheWay + 1));
      alive.lose();
      dead.isOver = true;
      this.#env.setTimer(
        () => alive.end(BROKEN, ""),
        1 + this.#random() % 1_000,
      );
    }
  }
}
