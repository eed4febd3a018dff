/**
 * A network in which everything goes wrong that can: frames come late, stall
 * and are lost from the end, and the two ends of a connection hear of its end
 * at different times or not at all.
 *
 * @module
 */

import type { Env } from "../../src/env.ts";
import type { Transport, TransportListener } from "../../src/sync/transport.ts";

/** As a WebSocket tells of a connection that broke. */
const BROKEN = 1006;

/** How long the close of a connection that is dead takes, in milliseconds. */
const DEAD_CLOSE_MS = 3_000;

/** How a connection ends that nobody closes. */
export type Cut =
  /** Both ends hear of it at once. */
  | "clean"
  /** One end hears of it later, and goes on until then. */
  | "halves"
  /** Neither hears of it, if not by the silence. */
  | "silent";

/** One end of a connection. What it sends arrives whole and in order, as far as it arrives. */
export class NetworkEnd implements Transport {
  other!: NetworkEnd;
  isOver = false;
  bufferedBytes = 0;
  /** The most there ever was in it. */
  bufferedBytesMax = 0;
  readonly #env: Env;
  readonly #delay: () => number;
  /** Called with each frame that has arrived here. */
  onFrame: ((frame: Uint8Array) => void) | undefined;
  #listener: TransportListener | undefined;
  #sent: (Uint8Array | { code: number; reason: string })[] = [];
  /** When the last of what was sent arrives. */
  #lastAt = 0;
  /** Whether what is sent gets lost. */
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
    // Nobody changes what was sent: a copy would hide it if somebody did.
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

  /** It is over, as this end hears. */
  end(code: number, reason: string): void {
    if (this.isOver) return;
    this.isOver = true;
    this.#listener?.closed(code, reason);
  }

  /** Nothing arrives for a while, then all of it. */
  stall(ms: number): void {
    this.#lastAt = Math.max(this.#lastAt, this.#env.now() + ms);
  }

  /** Of what is on its way, and of what comes, nothing arrives but the first frames. */
  lose(kept = 0): void {
    this.#isDead = true;
    this.#sent.length = Math.min(this.#sent.length, kept);
  }

  /** As many frames as are on their way. */
  get onTheWay(): number {
    return this.#sent.length;
  }
}

/** Connections between clients and a server. */
export class Network {
  readonly #env: Env;
  readonly #random: () => number;
  /** The clients' ends of those that are open, by client. */
  readonly #ends = new Map<NetworkEnd, string>();
  /** The most bytes that ever waited at one end. */
  bufferedBytesMax = 0;

  constructor(env: Env, random: () => number) {
    this.#env = env;
    this.#random = random;
  }

  /** A connection of a client: its end, and the server's. */
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

  /** Ends a connection that was never made. */
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

  /** Connections that one end has not heard the end of. */
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

  /** Nothing of a client, or nothing to it, arrives for a while. */
  stall(client: string, ms: number): void {
    for (const end of this.#of(client)) {
      (this.#random() % 2 === 0 ? end : end.other).stall(ms);
    }
  }

  /** A process died: nothing of it arrives any more, the other end hears of it sooner or later. */
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
