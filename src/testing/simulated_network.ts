/**
 * Simulated network with faults: frames arrive late, stall and are lost, and the
 * two ends of a connection notice its failure at different times or not at all.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../env.ts";
import type { Transport, TransportListener } from "../sync/transport.ts";
import { generator } from "./simulated_clock.ts";

/** Close code of a WebSocket whose connection broke. */
const BROKEN = 1006;

/** Time until `close()` of a dead connection ends, in milliseconds. */
const DEAD_CLOSE_MS = 3_000;

/** Failure of a connection that neither end closed. */
export type Cut =
  /** Both ends notice at once. */
  | "clean"
  /** One end notices later and continues until then. */
  | "halves"
  /** Neither end notices, except by missing heartbeats. */
  | "silent"
  /** Frames of one direction are lost, those of the other arrive. */
  | "oneWay"
  /** Breaks after the next frames of one direction have arrived: between the parts of a message, if it has several. */
  | "midMessage";

/** All ways in which a connection fails. */
export const CUTS: readonly Cut[] = [
  "clean",
  "halves",
  "silent",
  "oneWay",
  "midMessage",
];

type Sent = Uint8Array | { readonly code: number; readonly reason: string };

/** One end of a connection. Frames that arrive do so whole and in order. */
export class NetworkEnd implements Transport {
  /** Other end of the connection. */
  other!: NetworkEnd;
  /** True once this end knows that the connection is over. */
  isOver = false;
  /** Bytes that were sent and have not arrived. */
  bufferedBytes = 0;
  /** High-water mark of `bufferedBytes`. */
  bufferedBytesMax = 0;
  /** Number of frames that arrive here before the connection breaks, 0 if it does not. */
  breakAfter = 0;
  /** Called with each frame that arrives at this end. */
  onFrame: ((frame: Uint8Array) => void) | undefined;
  readonly #env: Env;
  readonly #delay: () => number;
  #listener: TransportListener | undefined;
  #sent: Sent[] = [];
  /** Time at which the other end sent its last frame, on the clock of this end's process. */
  #sentAt = 0;
  /** Time at which that frame arrives. */
  #lastAt = 0;
  /** True if frames sent from here are lost. */
  #isDead = false;
  #isClosing = false;

  /** Creates one end in the process of `env`. */
  constructor(env: Env, delay: () => number) {
    this.#env = env;
    this.#delay = delay;
  }

  /** Sets the listener, and reports to it when the connection is open. */
  listen(listener: TransportListener): void {
    this.#listener = listener;
    this.#env.setTimer(() => {
      if (!this.isOver && !this.#isDead) listener.opened();
    }, this.#delay());
  }

  /** Sends a frame. */
  send(frame: Uint8Array): void {
    if (this.isOver || this.#isClosing) return;
    this.bufferedBytes += frame.length;
    this.bufferedBytesMax = Math.max(this.bufferedBytesMax, this.bufferedBytes);
    // Not copied: a sender that changes a frame after `send()` must be noticed.
    this.#push(frame);
  }

  #push(sent: Sent): void {
    if (this.#isDead) return;
    this.#sent.push(sent);
    const { other } = this;
    const now = other.#env.now();
    // The clock of the process may have been set back.
    if (now < other.#sentAt) other.#lastAt = now;
    other.#sentAt = now;
    other.#lastAt = Math.max(other.#lastAt, now + this.#delay());
    other.#env.setTimer(() => this.#deliver(), other.#lastAt - now);
  }

  #deliver(): void {
    const sent = this.#sent.shift();
    if (sent === undefined) return;
    const { other } = this;
    if (!(sent instanceof Uint8Array)) return other.end(sent.code, sent.reason);
    this.bufferedBytes -= sent.length;
    if (!other.isOver && !other.#isClosing) {
      other.#listener?.frame(sent.slice());
      other.onFrame?.(sent);
    }
    if (other.breakAfter > 0 && --other.breakAfter === 0) {
      this.lose();
      other.lose();
      this.end();
      other.end();
    }
  }

  /** Closes the connection, after the frames sent before. */
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
  end(code: number = BROKEN, reason: string = ""): void {
    if (this.isOver) return;
    this.isOver = true;
    this.#listener?.closed(code, reason);
  }

  /** Ends the connection at this end only, in its own process, after `ms`. */
  endLater(ms: number): void {
    this.#env.setTimer(() => this.end(), ms);
  }

  /** Delays all frames in flight to this end by `ms`. */
  stall(ms: number): void {
    this.#lastAt = Math.max(this.#lastAt, this.#env.now() + ms);
  }

  /** Loses all frames from here, in flight and later ones, except for the first in flight. */
  lose(kept = 0): void {
    this.#isDead = true;
    this.#sent.length = Math.min(this.#sent.length, kept);
  }

  /** Number of frames in flight from this end. */
  get inFlight(): number {
    return this.#sent.length;
  }
}

/** Names of the processes at the ends of a connection. */
interface Names {
  readonly client: string;
  readonly server: string;
}

/** Connections between simulated clients and servers. */
export class SimulatedNetwork {
  readonly #random: () => number;
  /** Client ends of the open connections. */
  readonly #ends = new Map<NetworkEnd, Names>();
  /** High-water mark of the bytes buffered at one end. */
  bufferedBytesMax = 0;

  /** Creates a network whose delays follow from a seed. */
  constructor(seed: number) {
    this.#random = generator(seed);
  }

  /** Connects a client process to a server process; returns the two ends. */
  connect(
    client: string,
    clientEnv: Env,
    server: string,
    serverEnv: Env,
  ): [client: NetworkEnd, server: NetworkEnd] {
    const random = generator(this.#random());
    const far = 1 + random() % 40;
    const delay = (): number => far + random() % 10;
    const here = new NetworkEnd(clientEnv, delay);
    const there = new NetworkEnd(serverEnv, delay);
    here.other = there;
    there.other = here;
    this.#ends.set(here, { client, server });
    return [here, there];
  }

  /** Creates the client's end of a connection attempt that fails. */
  refuse(env: Env): NetworkEnd {
    const end = new NetworkEnd(env, () => 1);
    end.other = new NetworkEnd(env, () => 1);
    end.lose();
    end.other.lose();
    end.endLater(5);
    return end;
  }

  /** Client ends of the connections of a process, or of all. */
  #of(process: string | undefined): NetworkEnd[] {
    const found: NetworkEnd[] = [];
    for (const [end, { client, server }] of this.#ends) {
      for (const { bufferedBytesMax } of [end, end.other]) {
        this.bufferedBytesMax = Math.max(
          this.bufferedBytesMax,
          bufferedBytesMax,
        );
      }
      if (end.isOver && end.other.isOver) this.#ends.delete(end);
      else if (
        process === undefined || client === process || server === process
      ) found.push(end);
    }
    return found;
  }

  /** Number of connections of which one end has not noticed that they are over, of one process or all. */
  open(process?: string): number {
    return this.#of(process).length;
  }

  /** Cuts the connections of a process, or all. */
  cut(process: string | undefined, how: Cut): void {
    for (const end of this.#of(process)) {
      const [a, b] = this.#random() % 2 === 0
        ? [end, end.other]
        : [end.other, end];
      if (how === "midMessage") {
        b.breakAfter = 1 + this.#random() % 3;
        continue;
      }
      a.lose(this.#random() % (a.inFlight + 1));
      if (how === "oneWay") continue;
      b.lose(this.#random() % (b.inFlight + 1));
      if (how === "silent") continue;
      a.end();
      if (how === "clean") b.end();
      else b.endLater(1 + this.#random() % 4_000);
    }
  }

  /** Delays all frames in flight from a process, or all to it. */
  stall(process: string, ms: number): void {
    for (const end of this.#of(process)) {
      (this.#random() % 2 === 0 ? end : end.other).stall(ms);
    }
  }

  /** Ends the connections of a process that died; the other ends notice later. */
  die(process: string): void {
    for (const end of this.#of(process)) {
      const [dead, alive] = this.#ends.get(end)!.client === process
        ? [end, end.other]
        : [end.other, end];
      dead.lose(this.#random() % (dead.inFlight + 1));
      alive.lose();
      dead.isOver = true;
      alive.endLater(1 + this.#random() % 1_000);
    }
  }
}
