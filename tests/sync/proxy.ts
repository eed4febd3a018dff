/**
 * A proxy between a server and its clients that does to connections what
 * networks do: it cuts them, delays what they carry, stalls, and loses the end
 * of what was sent before a cut. What it does is drawn from a seed.
 *
 * This module needs Deno.
 *
 * @module
 */

import { randomOf } from "../../src/testing/clock.ts";

/** How bad the network is. */
export interface Weather {
  /** How many connections of a hundred are cut before they have carried anything. */
  readonly refusedPercent: number;
  /** Bytes a connection carries before it is cut, at most. */
  readonly bytesMax: number;
  /** The longest delay of a piece, in milliseconds. */
  readonly delayMsMax: number;
  /** How many pieces of a thousand stall. */
  readonly stallPermille: number;
  /** How long a stall lasts, in milliseconds, at most. */
  readonly stallMsMax: number;
}

/** A rainy day, in which everything that can happen happens often. */
export const STORM: Weather = {
  refusedPercent: 15,
  bytesMax: 400_000,
  delayMsMax: 8,
  stallPermille: 10,
  stallMsMax: 250,
};

/** A proxy to a port of this machine. */
export class Proxy implements AsyncDisposable {
  readonly #listener: Deno.TcpListener;
  readonly #target: number;
  readonly #random: () => number;
  readonly #open = new Set<Deno.TcpConn>();
  readonly #accepting: Promise<void>;
  #weather: Weather | undefined;
  #isDown = false;
  /** Connections it has cut. */
  cuts = 0;

  /** A proxy to `target`, with the weather that `seed` brings. */
  constructor(target: number, seed: number, weather: Weather | undefined) {
    this.#target = target;
    this.#random = randomOf(seed);
    this.#weather = weather;
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.#accepting = this.#accept();
  }

  /** The port it listens on. */
  get port(): number {
    return this.#listener.addr.port;
  }

  /** The weather from now on; undefined for none. */
  set weather(weather: Weather | undefined) {
    this.#weather = weather;
  }

  /** Whether nothing gets through. */
  set isDown(isDown: boolean) {
    this.#isDown = isDown;
    if (isDown) this.cut();
  }

  /** Cuts every connection. */
  cut(): void {
    for (const conn of [...this.#open]) this.#close(conn);
  }

  #below(max: number): number {
    return this.#random() % Math.max(1, max);
  }

  async #accept(): Promise<void> {
    for await (const client of this.#listener) {
      const weather = this.#weather;
      const isRefused = weather !== undefined &&
        this.#below(100) < weather.refusedPercent;
      if (this.#isDown || isRefused) {
        this.#cut(client);
        continue;
      }
      void this.#serve(client, weather);
    }
  }

  async #serve(
    client: Deno.TcpConn,
    weather: Weather | undefined,
  ): Promise<void> {
    let server: Deno.TcpConn;
    try {
      server = await Deno.connect({
        hostname: "127.0.0.1",
        port: this.#target,
      });
    } catch {
      this.#cut(client);
      return;
    }
    client.setNoDelay();
    server.setNoDelay();
    this.#open.add(client).add(server);
    const carried = {
      left: weather ? this.#below(weather.bytesMax) : Infinity,
    };
    await Promise.all([
      this.#carry(client, server, carried, weather),
      this.#carry(server, client, carried, weather),
    ]);
    this.#close(client);
    this.#close(server);
  }

  /** Carries bytes one way until one end, or the weather, has enough. */
  async #carry(
    from: Deno.TcpConn,
    to: Deno.TcpConn,
    carried: { left: number },
    weather: Weather | undefined,
  ): Promise<void> {
    const buffer = new Uint8Array(16 * 1024);
    try {
      for (;;) {
        const count = await from.read(buffer);
        if (count === null) break;
        if (weather !== undefined) await this.#wait(weather);
        // What does not fit any more is lost, in the middle of a frame.
        const most = Math.min(count, carried.left);
        carried.left -= most;
        for (let at = 0; at < most;) {
          at += await to.write(buffer.subarray(at, most));
        }
        if (carried.left <= 0) {
          this.cuts++;
          break;
        }
      }
    } catch {
      // One of them was closed.
    }
    this.#close(from);
    this.#close(to);
  }

  async #wait(weather: Weather): Promise<void> {
    const ms = this.#below(1000) < weather.stallPermille
      ? this.#below(weather.stallMsMax)
      : this.#below(weather.delayMsMax);
    if (ms > 0) await new Promise((resolve) => setTimeout(resolve, ms));
  }

  #cut(conn: Deno.TcpConn): void {
    this.cuts++;
    this.#close(conn);
  }

  #close(conn: Deno.TcpConn): void {
    this.#open.delete(conn);
    try {
      conn.close();
    } catch {
      // It is closed already.
    }
  }

  /** Cuts every connection and takes no more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.cut();
    await this.#accepting.catch(() => {});
  }
}

/** Reaction of a gateway to a frame that is too large. */
export type Refusal = "1009" | "reset";

/**
 * A gateway that lets WebSockets through whose frames are small, and ends those
 * with a larger one, either way: by the code of the WebSocket protocol for that,
 * or without a word.
 */
export class FrameGateway implements AsyncDisposable {
  readonly #listener: Deno.TcpListener;
  readonly #target: number;
  readonly #frameBytesMax: number;
  readonly #refusal: Refusal;
  readonly #open = new Set<Deno.TcpConn>();
  readonly #accepting: Promise<void>;
  /** Frames it has refused, by their size in bytes. */
  readonly refused: number[] = [];

  /** A gateway to `target`. */
  constructor(target: number, frameBytesMax: number, refusal: Refusal) {
    this.#target = target;
    this.#frameBytesMax = frameBytesMax;
    this.#refusal = refusal;
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.#accepting = this.#accept();
  }

  /** Address at which it is reached. */
  get url(): string {
    return `ws://127.0.0.1:${this.#listener.addr.port}/sync`;
  }

  async #accept(): Promise<void> {
    for await (const client of this.#listener) {
      const server = await Deno.connect({
        hostname: "127.0.0.1",
        port: this.#target,
      });
      this.#open.add(client).add(server);
      void Promise.all([
        this.#carry(client, server, client),
        this.#carry(server, client, client),
      ]);
    }
  }

  async #carry(
    from: Deno.TcpConn,
    to: Deno.TcpConn,
    client: Deno.TcpConn,
  ): Promise<void> {
    const buffer = new Uint8Array(16 * 1024);
    const frames = new Frames(this.#frameBytesMax);
    try {
      for (;;) {
        const count = await from.read(buffer);
        if (count === null) break;
        const { passed, refused } = frames.take(buffer.subarray(0, count));
        for (let at = 0; at < passed.length;) {
          at += await to.write(passed.subarray(at));
        }
        if (refused === undefined) continue;
        this.refused.push(refused);
        if (this.#refusal === "1009") {
          await client.write(new Uint8Array([0x88, 2, 0x03, 0xf1]));
          // Closed with something unread, it would be reset instead.
          while (await client.read(buffer) !== null);
        }
        break;
      }
    } catch {
      // One of them was closed.
    }
    for (const conn of [from, to]) {
      this.#open.delete(conn);
      try {
        conn.close();
      } catch {
        // It is closed already.
      }
    }
  }

  /** Cuts every connection and takes no more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const conn of this.#open) conn.close();
    await this.#accepting.catch(() => {});
  }
}

/** Follows one way of a WebSocket from its handshake on. */
class Frames {
  readonly #max: number;
  #isOpen = false;
  /** Bytes of the handshake, or of the head of a frame, that have come. */
  #head: number[] = [];
  /** Bytes of the frame that are still to come. */
  #left = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /** Takes what has come: gives what may pass, up to the first frame that is too large, and the size of that. */
  take(bytes: Uint8Array): { passed: Uint8Array; refused?: number } {
    const passed = new Uint8Array(this.#head.length + bytes.length);
    let length = 0;
    for (let i = 0; i < bytes.length; i++) {
      if (this.#left > 0) {
        const part = bytes.subarray(i, i + this.#left);
        passed.set(part, length);
        length += part.length;
        this.#left -= part.length;
        i += part.length - 1;
        continue;
      }
      this.#head.push(bytes[i]!);
      const size = this.#isOpen ? this.#size() : this.#handshake();
      if (size === undefined) continue;
      if (size > this.#max) {
        return { passed: passed.subarray(0, length), refused: size };
      }
      passed.set(this.#head, length);
      length += this.#head.length;
      this.#head = [];
      this.#left = size;
    }
    return { passed: passed.subarray(0, length) };
  }

  /** Zero once the handshake has come. */
  #handshake(): number | undefined {
    const end = String.fromCharCode(...this.#head.slice(-4));
    if (end !== "\r\n\r\n") return undefined;
    this.#isOpen = true;
    return 0;
  }

  /** Size of the frame, once its head has come. */
  #size(): number | undefined {
    const [, second] = this.#head;
    if (second === undefined) return undefined;
    const short = second & 0x7f;
    const width = short === 126 ? 2 : short === 127 ? 8 : 0;
    const mask = second & 0x80 ? 4 : 0;
    if (this.#head.length < 2 + width + mask) return undefined;
    if (width === 0) return short;
    return this.#head.slice(2, 2 + width).reduce((sum, b) => sum * 256 + b, 0);
  }
}
