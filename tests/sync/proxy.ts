/**
 * Proxy between a server and its clients that simulates an unreliable network: it
 * cuts connections, delays data, stalls, and loses the last bytes before a cut. Its
 * faults are drawn from a seed.
 *
 * This module needs Deno.
 *
 * @module
 */

import { randomOf } from "../../src/testing/seeded_globals.ts";

/** Fault rates of the network. */
export interface FaultRates {
  /** Percentage of connections that are cut before they carry any data. */
  readonly refusedPercent: number;
  /** Largest number of bytes that a connection carries before it is cut. */
  readonly bytesMax: number;
  /** Longest delay of a chunk, in milliseconds. */
  readonly delayMsMax: number;
  /** Number of chunks in a thousand that stall. */
  readonly stallPermille: number;
  /** Longest stall, in milliseconds. */
  readonly stallMsMax: number;
}

/** Fault rates at which every fault is frequent. */
export const STORM: FaultRates = {
  refusedPercent: 15,
  bytesMax: 400_000,
  delayMsMax: 8,
  stallPermille: 10,
  stallMsMax: 250,
};

/** Proxy to a port of this machine. */
export class Proxy implements AsyncDisposable {
  readonly #listener: Deno.TcpListener;
  readonly #target: number;
  readonly #random: () => number;
  readonly #open = new Set<Deno.TcpConn>();
  readonly #accepting: Promise<void>;
  #faultRates: FaultRates | undefined;
  #isDown = false;
  /** Number of connections that were cut. */
  cuts = 0;

  /** Starts a proxy to port `target`, with faults drawn from `seed`. */
  constructor(
    target: number,
    seed: number,
    faultRates: FaultRates | undefined,
  ) {
    this.#target = target;
    this.#random = randomOf(seed);
    this.#faultRates = faultRates;
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.#accepting = this.#accept();
  }

  /** Port of the proxy. */
  get port(): number {
    return this.#listener.addr.port;
  }

  /** Sets the fault rates from now on; undefined for no faults. */
  set faultRates(faultRates: FaultRates | undefined) {
    this.#faultRates = faultRates;
  }

  /** True to let nothing through. */
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
      const faultRates = this.#faultRates;
      const isRefused = faultRates !== undefined &&
        this.#below(100) < faultRates.refusedPercent;
      if (this.#isDown || isRefused) {
        this.#cut(client);
        continue;
      }
      void this.#serve(client, faultRates);
    }
  }

  async #serve(
    client: Deno.TcpConn,
    faultRates: FaultRates | undefined,
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
      left: faultRates ? this.#below(faultRates.bytesMax) : Infinity,
    };
    await Promise.all([
      this.#carry(client, server, carried, faultRates),
      this.#carry(server, client, carried, faultRates),
    ]);
    this.#close(client);
    this.#close(server);
  }

  /** Copies bytes in one direction until an end closes or a fault cuts the connection. */
  async #carry(
    from: Deno.TcpConn,
    to: Deno.TcpConn,
    carried: { left: number },
    faultRates: FaultRates | undefined,
  ): Promise<void> {
    const buffer = new Uint8Array(16 * 1024);
    try {
      for (;;) {
        const count = await from.read(buffer);
        if (count === null) break;
        if (faultRates !== undefined) await this.#wait(faultRates);
        // Bytes past the limit are lost, possibly in the middle of a frame.
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
      // An end was closed.
    }
    this.#close(from);
    this.#close(to);
  }

  async #wait(faultRates: FaultRates): Promise<void> {
    const ms = this.#below(1000) < faultRates.stallPermille
      ? this.#below(faultRates.stallMsMax)
      : this.#below(faultRates.delayMsMax);
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
      // Closed already.
    }
  }

  /** Cuts every connection and accepts no more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.cut();
    await this.#accepting.catch(() => {});
  }
}

/** Reaction of a gateway to an oversized frame. */
export type Refusal = "1009" | "reset";

/**
 * Gateway that passes small WebSocket frames, and ends a connection at a larger one
 * in either direction, with the close code of the WebSocket protocol or without.
 */
export class FrameGateway implements AsyncDisposable {
  readonly #listener: Deno.TcpListener;
  readonly #target: number;
  readonly #frameBytesMax: number;
  readonly #refusal: Refusal;
  readonly #open = new Set<Deno.TcpConn>();
  readonly #accepting: Promise<void>;
  /** Sizes of the rejected frames, in bytes. */
  readonly refused: number[] = [];

  /** Starts a gateway to `target`. */
  constructor(target: number, frameBytesMax: number, refusal: Refusal) {
    this.#target = target;
    this.#frameBytesMax = frameBytesMax;
    this.#refusal = refusal;
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.#accepting = this.#accept();
  }

  /** URL of the gateway. */
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
          // A socket closed with unread data would send a reset instead.
          while (await client.read(buffer) !== null);
        }
        break;
      }
    } catch {
      // An end was closed.
    }
    for (const conn of [from, to]) {
      this.#open.delete(conn);
      try {
        conn.close();
      } catch {
        // Closed already.
      }
    }
  }

  /** Cuts every connection and accepts no more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const conn of this.#open) conn.close();
    await this.#accepting.catch(() => {});
  }
}

/** Parses one direction of a WebSocket from its handshake on. */
class Frames {
  readonly #max: number;
  #isOpen = false;
  /** Bytes received of the handshake or of a frame header. */
  #head: number[] = [];
  /** Bytes missing of the frame. */
  #left = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /** Parses received bytes; returns those before the first oversized frame, and the size of that frame. */
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

  /** Zero once the handshake is complete. */
  #handshake(): number | undefined {
    const end = String.fromCharCode(...this.#head.slice(-4));
    if (end !== "\r\n\r\n") return undefined;
    this.#isOpen = true;
    return 0;
  }

  /** Size of the frame, once its header is complete. */
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
