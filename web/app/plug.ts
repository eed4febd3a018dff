/**
 * A switch for the network: connections begin only while it is plugged in, and
 * end when it is pulled, as on a train that enters a tunnel.
 *
 * This module runs in a browser.
 *
 * @module
 */

import {
  CloseCode,
  connectSocket,
  type Transport,
} from "../../src/sync/client/mod.ts";

/** Connections by WebSocket, until the plug is pulled; all tabs of the device have one, and it stays pulled over a reload. Dispatches `change`. */
export class Plug extends EventTarget {
  readonly #key: string;
  #isIn: boolean;
  readonly #open = new Set<Transport>();

  /** Plug of a device, in the position in which it was left. */
  constructor(device: string) {
    super();
    this.#key = `plug ${device}`;
    this.#isIn = localStorage.getItem(this.#key) !== "pulled";
    addEventListener("storage", (event) => {
      const { key, newValue } = event as StorageEvent;
      if (key === this.#key) this.#move(newValue !== "pulled");
    });
  }

  /** True if connections are possible. */
  get isIn(): boolean {
    return this.#isIn;
  }

  /** Pulls the plug, or puts it in again. */
  set isIn(isIn: boolean) {
    localStorage.setItem(this.#key, isIn ? "in" : "pulled");
    this.#move(isIn);
  }

  #move(isIn: boolean): void {
    this.#isIn = isIn;
    if (isIn) {
      this.dispatchEvent(new Event("change"));
      return;
    }
    for (const transport of this.#open) {
      transport.close(CloseCode.Normal, "The plug was pulled");
    }
    this.dispatchEvent(new Event("change"));
  }

  /** Sends a request over HTTP; with the plug pulled, one that fails. */
  readonly fetch = (url: string, init: RequestInit): Promise<Response> =>
    this.#isIn
      ? fetch(url, init)
      : Promise.reject(new TypeError("fetch() failed: the plug is pulled"));

  /** Begins a connection; with the plug pulled, one that ends at once. */
  readonly connect = (url: string): Transport => {
    if (!this.#isIn) return unplugged();
    const transport = connectSocket(url);
    this.#open.add(transport);
    return {
      listen: (listener): void =>
        transport.listen({
          opened: () => listener.opened(),
          frame: (bytes) => listener.frame(bytes),
          closed: (code, reason) => {
            this.#open.delete(transport);
            listener.closed(code, reason);
          },
        }),
      send: (frame): void => transport.send(frame),
      close: (code, reason): void => transport.close(code, reason),
      get bufferedBytes(): number {
        return transport.bufferedBytes;
      },
    };
  };
}

/** A connection that fails, as one does where there is no network. */
function unplugged(): Transport {
  return {
    listen: ({ closed }): void =>
      void setTimeout(() => closed(1006, "The plug is pulled")),
    send(): void {},
    close(): void {},
    bufferedBytes: 0,
  };
}
