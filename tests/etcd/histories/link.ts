/**
 * TCP link between two processes that can be cut: refused, silent, or silent in one
 * direction only.
 *
 * This module needs Deno.
 *
 * @module
 */

/**
 * State of a link. `refused` closes connections and accepts none. Of the silent
 * ones, connections stay open and carry nothing, from the client (`mute`), to the
 * client (`deaf`), or both.
 */
export type LinkState = "open" | "refused" | "silent" | "mute" | "deaf";

/** Link to a port of this machine. */
export class Link implements AsyncDisposable {
  readonly #listener: Deno.TcpListener;
  #target: number;
  readonly #open = new Set<Deno.TcpConn>();
  readonly #accepting: Promise<void>;
  #state: LinkState = "open";
  #changed: PromiseWithResolvers<void> = Promise.withResolvers();

  /** Creates an open link to a port. */
  constructor(target: number) {
    this.#target = target;
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.#accepting = this.#accept();
  }

  /** Port of the link. */
  get port(): number {
    return this.#listener.addr.port;
  }

  /** Sets the port that new connections go to. */
  set target(port: number) {
    this.#target = port;
  }

  /**
   * Changes the state. When a silent link is opened, what waited in it arrives late;
   * with `drops`, its connections are closed instead.
   */
  set(state: LinkState, drops = false): void {
    this.#state = state;
    if (state === "refused" || drops) this.#closeAll();
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  #closeAll(): void {
    for (const conn of [...this.#open]) this.#close(conn);
  }

  async #accept(): Promise<void> {
    for await (const client of this.#listener) {
      if (this.#state === "refused") this.#close(client);
      else void this.#serve(client);
    }
  }

  async #serve(client: Deno.TcpConn): Promise<void> {
    this.#open.add(client);
    await this.#passable("mute");
    let server: Deno.TcpConn;
    try {
      server = await Deno.connect({
        hostname: "127.0.0.1",
        port: this.#target,
      });
      if (!this.#open.has(client)) {
        server.close();
        return;
      }
      client.setNoDelay();
      server.setNoDelay();
    } catch {
      this.#close(client);
      return;
    }
    this.#open.add(server);
    await Promise.all([
      this.#carry(client, server, "mute"),
      this.#carry(server, client, "deaf"),
    ]);
  }

  /** Waits until bytes may pass in a direction. */
  async #passable(blocked: LinkState): Promise<void> {
    while (this.#state === "silent" || this.#state === blocked) {
      await this.#changed.promise;
    }
  }

  async #carry(
    from: Deno.TcpConn,
    to: Deno.TcpConn,
    blocked: LinkState,
  ): Promise<void> {
    const buffer = new Uint8Array(32 * 1024);
    try {
      for (;;) {
        const count = await from.read(buffer);
        await this.#passable(blocked);
        if (count === null) break;
        for (let at = 0; at < count;) {
          at += await to.write(buffer.subarray(at, count));
        }
      }
    } catch {
      // An end was closed.
    }
    this.#close(from);
    this.#close(to);
  }

  #close(conn: Deno.TcpConn): void {
    this.#open.delete(conn);
    try {
      conn.close();
    } catch {
      // Closed already.
    }
  }

  /** Closes all connections and accepts no more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.set("refused");
    await this.#accepting.catch(() => {});
  }
}
