/**
 * Calls of the leader by a follower. A call waits while no leader is known. If the
 * leader changes before it has answered, an append is of unknown outcome, and
 * everything else is asked of the next leader.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { onAbort, withResolvers } from "../async.ts";
import { ErrUnknownOutcome } from "../log/errors.ts";
import { errorOf } from "../worker/sent_error.ts";
import type { CallMessage, Calls, Method } from "./messages.ts";
import type { TabGroup } from "./tab_group.ts";

/** Internal error of a call while this tab leads: the caller asks its own log instead. */
export class LeadsHere extends Error {}

/** Options of a call. */
export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called with each part that arrives before the answer. */
  readonly onPart?: (bytes: Uint8Array) => void;
  /** Called when the call is asked once more: parts begin again. */
  readonly onAgain?: () => void;
}

interface Call {
  readonly clusterID: bigint;
  readonly method: Method;
  readonly args: unknown;
  readonly options: CallOptions;
  /** Id under which it was sent last: each sending has another, so that what answers an earlier one is ignored. */
  id: number;
  /** Leader that it was sent to; undefined before. */
  sentTo: string | undefined;
  readonly resolve: (answer: unknown) => void;
  readonly reject: (reason: unknown) => void;
}

/** Calls of one tab. */
export class TabCalls {
  readonly #group: TabGroup;
  readonly #calls = new Map<number, Call>();
  #sent = 0;
  /** Reason of `end()`. */
  #ended: unknown;

  /** Creates the calls of a tab. */
  constructor(group: TabGroup) {
    this.#group = group;
  }

  /**
   * Calls the leader.
   *
   * @throws LeadsHere once this tab leads
   * @throws ErrUnknownOutcome if it is not known whether an append took effect
   */
  call<M extends Method>(
    clusterID: bigint,
    method: M,
    args: Calls[M]["args"],
    options: CallOptions = {},
  ): Promise<Calls[M]["answer"]> {
    if (this.#group.isLeading || this.#group.isVoid) {
      return Promise.reject(new LeadsHere());
    }
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const { promise, resolve, reject } = withResolvers<unknown>();
    const call: Call = {
      id: ++this.#sent,
      clusterID,
      method,
      args,
      options,
      sentTo: undefined,
      resolve,
      reject,
    };
    this.#calls.set(call.id, call);
    const answered = this.#group.awaiting();
    const ignore = onAbort(options.signal, (reason) => {
      this.#calls.delete(call.id);
      reject(reason);
    });
    this.#send(call);
    return promise.finally(() => {
      answered();
      ignore();
    }) as Promise<Calls[M]["answer"]>;
  }

  #send(call: Call): void {
    const { leader } = this.#group;
    if (leader === undefined || !this.#calls.delete(call.id)) return;
    if (call.sentTo !== undefined) call.options.onAgain?.();
    call.sentTo = leader;
    const id = call.id = ++this.#sent;
    this.#calls.set(id, call);
    const { method, args } = call;
    const message = { kind: "call", id, method, args } as const;
    this.#group.postTo(leader, message, call.clusterID);
  }

  /** Takes an answer. */
  received(message: CallMessage): void {
    const call = this.#calls.get(message.id);
    if (call === undefined) return;
    switch (message.kind) {
      case "part":
        return call.options.onPart?.(message.bytes);
      case "answer":
        this.#calls.delete(message.id);
        return call.resolve(message.answer);
      case "failed":
        this.#calls.delete(message.id);
        return call.reject(errorOf(message.error));
      case "again":
        return this.#send(call);
    }
  }

  /** Ends the appends that were sent, as their leader is gone. */
  lost(): void {
    for (const [id, call] of [...this.#calls]) {
      if (call.method !== "append" || call.sentTo === undefined) continue;
      this.#calls.delete(id);
      call.reject(
        new ErrUnknownOutcome(
          `The tab that leads cluster ${call.clusterID} was replaced before it answered`,
        ),
      );
    }
  }

  /** Asks the new leader; if this tab leads, ends the calls. */
  led(): void {
    this.lost();
    const isHere = this.#group.isLeading || this.#group.isVoid;
    for (const [id, call] of [...this.#calls]) {
      if (!isHere) this.#send(call);
      else {
        this.#calls.delete(id);
        call.reject(new LeadsHere());
      }
    }
  }

  /** Ends all calls with a reason, and later ones, too. */
  end(reason: unknown): void {
    this.#ended = reason;
    for (const { reject } of this.#calls.values()) reject(reason);
    this.#calls.clear();
  }
}
