/**
 * Presence on the boards of the demo server: who has a board open, and at which card
 * they are. It is passed on from page to page beside the log, and stored nowhere.
 *
 * This module needs Deno.
 *
 * @module
 */

import { slugOf } from "./app/names.ts";
import { parseVisit, type Visit } from "./app/visit.ts";

/** Most pages whose presence a board has. */
const BOARD_PEERS_MAX = 50;

/** Most pages whose presence a server has. */
const PEERS_MAX = 1_000;

/** Most messages that a page sends in a second; those above are dropped. */
const MESSAGES_PER_SECOND = 10;

/** Seconds without an answer to a ping, after which a page is gone. */
const SILENCE_S_MAX = 30;

/** Page with a board. */
interface Peer {
  readonly id: number;
  readonly socket: WebSocket;
  visit: Visit | undefined;
  /** Second in which it sent last, and messages that it sent then. */
  second: number;
  count: number;
}

/** Passes on who is at which board. */
export class Presence {
  readonly #boards = new Map<string, Set<Peer>>();
  #count = 0;
  #last = 0;

  /** Response to a request for the presence of a board, which opens a WebSocket; undefined for another path. */
  handle(request: Request): Response | undefined {
    const { pathname, searchParams, host } = new URL(request.url);
    if (pathname !== "/presence") return undefined;
    const board = searchParams.get("board") ?? "";
    if (board === "" || slugOf(board) !== board) {
      return new Response("board is missing or malformed\n", { status: 400 });
    }
    // A page of another site must not see who is here.
    const origin = request.headers.get("origin");
    if (origin === null || URL.parse(origin)?.host !== host) {
      return new Response("Pages of other origins are not allowed\n", {
        status: 403,
      });
    }
    const peers = this.#boards.get(board) ?? new Set();
    if (peers.size >= BOARD_PEERS_MAX || this.#count >= PEERS_MAX) {
      return new Response("Too many pages\n", { status: 503 });
    }
    let upgraded: Deno.WebSocketUpgrade;
    try {
      upgraded = Deno.upgradeWebSocket(request, {
        idleTimeout: SILENCE_S_MAX,
      });
    } catch {
      return new Response("Connect here with a WebSocket\n", { status: 426 });
    }
    this.#boards.set(board, peers);
    this.#join(board, peers, upgraded.socket);
    return upgraded.response;
  }

  #join(board: string, peers: Set<Peer>, socket: WebSocket): void {
    const id = ++this.#last;
    const peer: Peer = { id, socket, visit: undefined, second: 0, count: 0 };
    peers.add(peer);
    this.#count++;
    socket.onopen = (): void => {
      for (const { id, visit } of peers) {
        if (visit !== undefined) send(socket, { id, visit });
      }
    };
    socket.onmessage = ({ data }): void => {
      const second = Math.floor(performance.now() / 1_000);
      peer.count = second === peer.second ? peer.count + 1 : 1;
      peer.second = second;
      if (peer.count > MESSAGES_PER_SECOND) return;
      const visit = parseVisit(data);
      if (visit === undefined) return socket.close(1008, "Malformed message");
      peer.visit = visit;
      this.#tell(peers, peer);
    };
    socket.onclose = (): void => {
      if (!peers.delete(peer)) return;
      this.#count--;
      peer.visit = undefined;
      this.#tell(peers, peer);
      if (peers.size === 0) this.#boards.delete(board);
    };
  }

  #tell(peers: ReadonlySet<Peer>, peer: Peer): void {
    const { id, visit } = peer;
    for (const other of peers) {
      if (other !== peer) send(other.socket, { id, visit });
    }
  }

  /** Closes every connection. */
  close(): void {
    for (const peers of this.#boards.values()) {
      for (const { socket } of peers) socket.close(1001, "Server stops");
    }
  }
}

/** Bytes that a slow page may have before it: it misses what comes then. */
const BUFFERED_BYTES_MAX = 64 * 1024;

function send(socket: WebSocket, message: object): void {
  if (
    socket.readyState === WebSocket.OPEN &&
    socket.bufferedAmount < BUFFERED_BYTES_MAX
  ) socket.send(JSON.stringify(message));
}
