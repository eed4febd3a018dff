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
