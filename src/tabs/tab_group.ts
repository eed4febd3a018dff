/**
 * Tabs of one origin under a name, as one of them sees them: which tab leads, and
 * the lease of the stores that the leader has.
 *
 * The page holds the lock of the name while it leads. A tab that gets the lock puts
 * a token with a higher epoch into each store before it reads one, so that an
 * earlier leader that is thawed cannot write. After each wait the code checks that it
 * is still the same hold.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { Backoff, notify } from "../async.ts";
import { messageOf } from "../describe.ts";
import {
  RETRY_LAST_MS,
  TAB_CHANNELS_MAX,
  TAB_IDLE_PING_MS,
  TAB_PATIENCE_MS_MAX,
  TAB_PING_MS,
  TAB_RETRY_FIRST_MS,
  TAB_ROLL_MS,
  TAB_SILENCE_ROUNDS,
} from "../limits.ts";
import type { LeaseMember, StoreLease } from "../store/lease.ts";
import { ErrStoreLocked, ErrStoreVersion } from "../store/errors.ts";
import {
  describeCode,
  type Envelope,
  type GroupMessage,
  type TabMessage,
} from "./messages.ts";
import type { LifeEvent, TabChannel, TabPlatform } from "./platform.ts";
import type { OtherTab, TabState } from "./tab_state.ts";

/** Parts of a tab that depend on who leads. */
export interface GroupListener {
  /** True while the tab shows a submission that is not decided. */
  readonly hasQueued: boolean;
  /** Called with the state after each change. */
  changed(state: TabState): void;
  /** Called once this tab leads, or another tab is known to lead with another epoch. */
  led(): void;
  /** Called when this tab leads no more, or its leader has left; in the turn in which it happens. */
  lost(): void;
  /** Called when this tab leads, and another one has asked whether it does. */
  asked(): void;
  /** Called with each message of another tab. */
  message(message: TabMessage, envelope: Envelope): void;
}

const TOKEN = /^tabs:(\d+):(\d+):[0-9a-f]+$/;

/** Token of a leader. */
interface Token {
  readonly epoch: number;
  readonly code: number;
}

function parseToken(token: string | undefined): Token | undefined {
  const [, epoch, code] = TOKEN.exec(token ?? "") ?? [];
  return epoch === undefined
    ? undefined
    : { epoch: Number(epoch), code: Number(code) };
}

/** Tabs under one name, as one of them sees them. */
export class TabGroup implements StoreLease {
  /** Random id of this tab. */
  readonly id: string;
  readonly #name: string;
  readonly #code: number;
  readonly #platform: TabPlatform;
  readonly #listener: GroupListener;
  readonly #members: LeaseMember[] = [];
  #state: TabState = "joining";
  /** Time at which it entered that state, on the tab's clock, in milliseconds. */
  #enteredAt: number;
  /** Answers to the last question what the tabs are, by their ids. */
  #roll = new Map<string, OtherTab>();
  /** Reason for the states `memory` and `outdated`, as text for the user. */
  #reason: string | undefined;
  /** Highest epoch that this tab knows. */
  #epoch = 0;
  /** Id of the leader of that epoch, if it is known. */
  #leader: string | undefined;
  /** Token of the lease, while this tab leads or takes the lead. */
  #token: string | undefined;
  /** Number of times that this tab has begun to wait for the lock, or left it. */
  #hold = 0;
  #release: (() => void) | undefined;
  #cancelRequest: (() => void) | undefined;
  #common: TabChannel | undefined;
  #own: TabChannel | undefined;
  /** Channels to other tabs, by their ids, the oldest first. */
  readonly #channels = new Map<string, TabChannel>();
  #unwatch: (() => void) | undefined;
  #cancelRound: (() => void) | undefined;
  /** Time of the next round on the tab's clock, in milliseconds; only while one is planned. */
  #roundAt = 0;
  #cancelRetry: (() => void) | undefined;
  readonly #backoff: Backoff;
  /** Rounds in a row in which the leader was not heard. */
  #silentRounds = 0;
  /** True if the leader was heard since the last round. */
  #isHeard = false;
  /** True if the last round has asked the leader whether it is there. */
  #isAsked = false;
  /** True if this tab has heard itself since the leader was last heard. */
  #isChannelWorking = false;
  /** Epoch of the leader from which this tab has stolen the lock last. */
  #stolenFrom = -1;
  /** Rounds of silence after which the lock is stolen. */
  #patience = TAB_SILENCE_ROUNDS;
  /** Calls to the leader that have no answer yet. */
  #pendingCalls = 0;

  /** Creates the group as a tab sees it that joins with `join()`. */
  constructor(
    name: string,
    code: number,
    platform: TabPlatform,
    listener: GroupListener,
  ) {
    const { env } = platform;
    this.id = env.random64().toString(16);
    this.#name = `sampan-tabs/${name}`;
    this.#code = code;
    this.#platform = platform;
    this.#listener = listener;
    this.#enteredAt = env.now();
    this.#backoff = new Backoff(env, TAB_RETRY_FIRST_MS, RETRY_LAST_MS);
  }

  /** State of this tab. */
  get state(): TabState {
    return this.#state;
  }

  /** Reason for the states `memory` and `outdated`, as text for the user. */
  get reason(): string | undefined {
    return this.#reason;
  }

  /** Highest epoch that this tab knows. */
  get epoch(): number {
    return this.#epoch;
  }

  /** True while this tab leads. */
  get isLeading(): boolean {
    return this.#state === "leading";
  }

  /** Id of another tab that leads; undefined if none is known, or this one leads. */
  get leader(): string | undefined {
    return this.#state === "following" || this.#state === "orphaned"
      ? this.#leader
      : undefined;
  }

  // ---------------------------------------------------------------- messages

  /** Sends a message to all other tabs. */
  post(message: TabMessage, clusterID?: bigint): void {
    this.#common?.post(this.#sealed(message, clusterID));
  }

  /** Sends a message to one tab. */
  postTo(tab: string, message: TabMessage, clusterID?: bigint): void {
    if (this.#common === undefined) return;
    this.#channelTo(tab).post(this.#sealed(message, clusterID));
  }

  /** Channel to a tab: one for all messages, which keeps their order. */
  #channelTo(tab: string): TabChannel {
    const channels = this.#channels;
    let channel = channels.get(tab);
    if (channel === undefined) {
      channel = this.#platform.openChannel!(`${this.#name}/${tab}`, undefined);
      channels.set(tab, channel);
      if (channels.size > TAB_CHANNELS_MAX) {
        const oldest = channels.keys().next().value!;
        channels.get(oldest)!.close();
        channels.delete(oldest);
      }
    }
    return channel;
  }

  #sealed(message: TabMessage, clusterID?: bigint): TabMessage & Envelope {
    return {
      ...message,
      from: this.id,
      epoch: this.#epoch,
      code: this.#code,
      ...(clusterID === undefined ? {} : { clusterID }),
    };
  }

  readonly #heard = (data: unknown): void => {
    const message = data as TabMessage & Envelope;
    if (this.#common === undefined) return;
    if (message.from === this.id) {
      if (message.kind === "echo") this.#isChannelWorking = true;
      return;
    }
    if (message.code > this.#code) return this.#outdate(message.code);
    const wasLeading = this.#state === "leading" || this.#state === "opening";
    if (message.epoch > this.#epoch) {
      this.#epoch = message.epoch;
      this.#leader = undefined;
      if (wasLeading) this.#stepDown();
    }
    if (message.epoch === this.#epoch && message.from === this.#leader) {
      this.#isHeard = true;
      this.#silentRounds = 0;
      if (this.#state === "orphaned" && message.kind !== "leaving") {
        this.#enter("following");
      }
    }
    switch (message.kind) {
      case "hello":
        return this.#answer(message.from);
      case "ping":
        return this.#pinged(message.from);
      case "leading":
        return this.#onLeading(message);
      case "leaving":
        return this.#onLeaving(message);
      case "demand":
        return this.handOver();
      case "roll":
        return this.postTo(message.from, this.#here());
      case "here":
        return this.#onHere(message);
      case "echo":
        return;
      default:
        // Followers may not know yet who leads: what they say counts all the same.
        if (
          message.epoch === this.#epoch || message.kind === "added" ||
          this.isLeading && message.kind === "call"
        ) this.#listener.message(message, message);
    }
  };

  #here(): Extract<GroupMessage, { readonly kind: "here" }> {
    const { env, life } = this.#platform;
    const sinceMs = env.now() - this.#enteredAt;
    const { isVisible } = life;
    return { kind: "here", state: this.#state, sinceMs, isVisible };
  }

  #onHere(
    { from, code, state, sinceMs, isVisible }:
      & Extract<GroupMessage, { readonly kind: "here" }>
      & Envelope,
  ): void {
    if (this.#roll.size >= TAB_CHANNELS_MAX) return;
    this.#roll.set(from, { id: from, state, code, sinceMs, isVisible });
  }

  /** Asks the other tabs what they are, and lists those that answer in time, the leader first. */
  async others(): Promise<readonly OtherTab[]> {
    if (this.#common === undefined) return [];
    this.#roll.clear();
    this.post({ kind: "roll" });
    const { env } = this.#platform;
    await new Promise<void>((resolve) => env.setTimer(resolve, TAB_ROLL_MS));
    const rank = ({ state }: OtherTab): number => state === "leading" ? 0 : 1;
    return [...this.#roll.values()].sort((one, other) =>
      rank(one) - rank(other) || (one.id < other.id ? -1 : 1)
    );
  }

  #answer(tab: string): void {
    if (this.#state !== "leading" && this.#state !== "opening") return;
    this.postTo(tab, { kind: "leading", isReady: this.isLeading });
  }

  /** Answers a ping once a transaction has shown that this tab still leads. */
  #pinged(tab: string): void {
    if (this.#state === "opening") return this.#answer(tab);
    if (this.#state !== "leading") return;
    const hold = this.#hold;
    this.verify().then(() => {
      if (hold !== this.#hold) return;
      this.#listener.asked();
      this.#answer(tab);
    }, () => {
      // Another tab leads, or the store fails: this tab does not answer.
    });
  }

  /**
   * Resolves once a transaction in each store has shown that this tab leads, or if
   * it is a device of its own.
   *
   * @throws ErrStoreLocked if another tab leads
   */
  async verify(): Promise<void> {
    if (this.isVoid) return;
    const hold = this.#hold;
    try {
      await Promise.all(this.#members.map(({ verify }) => verify?.()));
    } catch (error) {
      if (hold === this.#hold && error instanceof ErrStoreLocked) {
        this.depose();
      }
      throw error;
    }
  }

  #onLeading(
    { from, epoch, code, isReady }:
      & Extract<GroupMessage, { readonly kind: "leading" }>
      & Envelope,
  ): void {
    if (code < this.#code) {
      // Older code leaves the lead when it hears of newer code.
      this.post({ kind: "hello" });
    }
    if (epoch < this.#epoch) return;
    this.#isHeard = true;
    this.#silentRounds = 0;
    if (!isReady || !this.#isWaiting) return;
    if (this.#leader === from && this.#state === "following") return;
    this.#leader = from;
    this.#enter("following");
    this.#patience = TAB_SILENCE_ROUNDS;
    this.#listener.led();
  }

  #onLeaving({ from, epoch }: Envelope): void {
    if (epoch !== this.#epoch || from !== this.#leader) return;
    this.#leader = undefined;
    if (this.#state !== "following") return;
    this.#enter("orphaned");
    this.#listener.lost();
  }

  // -------------------------------------------------------------- life cycle

  /** Joins the tabs: requests the lock, and asks who leads. */
  join(): void {
    if (this.#state === "gone") return;
    const { locks, openChannel, life } = this.#platform;
    if (locks === undefined || openChannel === undefined) {
      return this.#toMemory(
        globalThis.isSecureContext === false
          ? "Tabs share nothing here, since the page is not in a secure context and has no Web Locks: serve it over https, or open it at http://localhost"
          : "Tabs share nothing here, since this browser has no Web Locks: use one of 2022 or later",
      );
    }
    if (this.#claiming.length === 0) {
      return this.#toMemory(
        "Tabs share nothing here, since the host has no store that tabs can share: give it an outbox, snapshots or a log in IndexedDB",
      );
    }
    try {
      this.#common = openChannel(this.#name, this.#heard);
      this.#own = openChannel(`${this.#name}/${this.id}`, this.#heard);
    } catch (error) {
      return this.#refused(error);
    }
    this.#unwatch ??= life.watch((event) => this.#onLife(event));
    this.#enter("joining");
    this.#request(false);
    this.post({ kind: "hello" });
  }

  /** Goes on in memory, since the browser lets this page neither share nor store. */
  #refused(error: unknown): void {
    this.#toMemory(
      `Tabs share nothing here, since the browser refuses it, as in a private window or if site data is blocked: ${
        messageOf(error)
      }`,
    );
  }

  #toMemory(reason: string): void {
    this.#reason = reason;
    this.#leave();
    this.#enter("memory");
    this.#listener.led();
  }

  /** True if there is no other tab for which this one waits. */
  get #isWaiting(): boolean {
    const state = this.#state;
    return state === "joining" || state === "following" || state === "orphaned";
  }

  #enter(state: TabState): void {
    if (this.#state === state || this.#state === "gone") return;
    this.#state = state;
    this.#enteredAt = this.#platform.env.now();
    this.watchLeader();
    this.#listener.changed(state);
  }

  #onLife(event: LifeEvent): void {
    switch (event) {
      case "hide":
      case "freeze":
        if (this.#common === undefined) return;
        this.#leave();
        return this.#enter("cached");
      case "show":
      case "resume":
        if (this.#state === "cached") this.join();
        return;
      case "visibility":
        return this.#onVisibility();
    }
  }

  /** Asks the leader at once whether it is there, or looks for what was missed while this tab leads. */
  #onVisibility(): void {
    if (this.isLeading) return this.#listener.asked();
    this.watchLeader();
    if (!this.#platform.life.isVisible || !this.#isWaiting) return;
    this.#cancelRound?.();
    this.#cancelRound = undefined;
    this.#isHeard = this.#isAsked = false;
    this.#round();
    this.watchLeader();
  }

  /** Leaves the tabs in this turn: closes the stores, releases the lock and closes the channels. */
  #leave(): void {
    const wasLeading = this.#state === "leading" || this.#state === "opening";
    this.#hold++;
    this.#cancelRound?.();
    this.#cancelRetry?.();
    this.#cancelRound = this.#cancelRetry = undefined;
    this.#isAsked = false;
    if (this.#common !== undefined && this.#state !== "memory") {
      this.#listener.lost();
    }
    this.#dropLease();
    if (wasLeading) this.post({ kind: "leaving" });
    this.#cancelRequest?.();
    this.#cancelRequest = undefined;
    this.#release?.();
    this.#release = undefined;
    this.#leader = undefined;
    this.#common?.close();
    this.#own?.close();
    this.#common = this.#own = undefined;
    for (const channel of this.#channels.values()) channel.close();
    this.#channels.clear();
  }

  #dropLease(): void {
    this.#token = undefined;
    for (const { release } of this.#members) release?.();
  }

  /** Closes the tab. */
  close(): void {
    if (this.#state === "gone") return;
    this.#unwatch?.();
    this.#leave();
    this.#enter("gone");
  }

  #outdate(code: number): void {
    if (this.#state === "outdated") return;
    this.#reason = `Another tab runs version ${
      describeCode(code)
    } of this application's code, and this one ${
      describeCode(this.#code)
    }: reload the page`;
    this.#leave();
    this.#enter("outdated");
  }

  // -------------------------------------------------------------------- lock

  /** Requests the lock; with `steal`, takes it from a holder that does not answer. */
  #request(steal: boolean): void {
    this.#cancelRequest?.();
    const hold = ++this.#hold;
    const waiting = new AbortController();
    let isGranted = false;
    this.#cancelRequest = () => waiting.abort();
    this.#platform.locks!.request(
      this.#name,
      steal ? { steal } : { signal: waiting.signal },
      () => {
        isGranted = true;
        if (hold !== this.#hold) return Promise.resolve();
        this.#cancelRequest = undefined;
        return new Promise<void>((release) => {
          this.#release = release;
          // Never rejects: a failure is a state.
          void this.#open(hold);
        });
      },
    ).catch((error) => {
      if (hold !== this.#hold) return;
      if (isGranted) return this.#stepDown();
      const { name } = Object(error) as Partial<Error>;
      if (name === "SecurityError" && this.#epoch === 0) {
        return this.#refused(error);
      }
      this.#requestLater(error);
    });
  }

  #requestLater(error: unknown): void {
    this.#reason = messageOf(error);
    this.#cancelRetry?.();
    this.#cancelRetry = this.#platform.env.setTimer(() => {
      this.#cancelRetry = undefined;
      this.#request(false);
    }, this.#backoff.next());
  }

  /** Takes the lead: puts the token of a new epoch into each store. */
  async #open(hold: number): Promise<void> {
    const hadLeader = this.#state === "following" ||
      this.#state === "orphaned";
    if (hadLeader) this.#listener.lost();
    this.#leader = undefined;
    this.#enter("opening");
    const isFirst = this.#epoch === 0;
    try {
      let epoch = this.#epoch + 1;
      const nonce = this.#platform.env.random64().toString(16);
      for (const [i, { claim }] of this.#claiming.entries()) {
        await claim((token) => {
          const present = this.#checked(token);
          const known = present?.epoch ?? 0;
          if (i === 0) epoch = Math.max(epoch, known + 1);
          // Another tab has taken the lead in the meantime.
          else if (known > epoch) throw this.#deposedError();
          return `tabs:${epoch}:${this.#code}:${nonce}`;
        });
        if (hold !== this.#hold) return;
      }
      this.#epoch = epoch;
      this.#token = `tabs:${epoch}:${this.#code}:${nonce}`;
    } catch (error) {
      if (hold !== this.#hold) return;
      this.#failed(error, isFirst);
      return;
    }
    for (const { forget } of this.#members) forget?.();
    this.#reason = undefined;
    this.#backoff.reset();
    this.#enter("leading");
    this.post({ kind: "leading", isReady: true });
    this.#listener.led();
  }

  get #claiming(): { claim: NonNullable<LeaseMember["claim"]> }[] {
    return this.#members.flatMap(({ claim }) =>
      claim === undefined ? [] : [{ claim }]
    );
  }

  /** Parses the token of a store; throws if newer code has written it. */
  #checked(token: string | undefined): Token | undefined {
    const present = parseToken(token);
    if (present !== undefined && present.code > this.#code) {
      throw new ErrStoreVersion(
        this.#code,
        `Version ${
          describeCode(present.code)
        } of this application's code has used the stores, and this is ${
          describeCode(this.#code)
        }: reload the page`,
      );
    }
    return present;
  }

  /** Handles stores that could not be taken over. */
  #failed(error: unknown, isFirst: boolean): void {
    if (error instanceof ErrStoreVersion && this.#outdatedBy(error)) return;
    if (isFirst && !(error instanceof ErrStoreLocked)) {
      return this.#toMemory(
        `Tabs share nothing here, since nothing can be stored: ${
          messageOf(error)
        }`,
      );
    }
    // Another tab may have more luck.
    this.#hold++;
    this.#release?.();
    this.#release = undefined;
    this.#dropLease();
    this.#enter(isFirst ? "joining" : "orphaned");
    this.#requestLater(error);
  }

  #outdatedBy(error: ErrStoreVersion): boolean {
    this.#reason = error.message;
    this.#leave();
    this.#enter("outdated");
    return true;
  }

  /** Ends the lead of this tab, whose lock was stolen or which another tab has replaced; it joins again as a follower. */
  #stepDown(): void {
    this.#hold++;
    this.#listener.lost();
    this.#dropLease();
    this.#release?.();
    this.#release = undefined;
    this.#leader = undefined;
    this.#enter("orphaned");
    this.#request(false);
    this.post({ kind: "hello" });
  }

  /** Reports that a write has failed because another tab leads. */
  depose(): void {
    if (this.#state === "leading" || this.#state === "opening") {
      this.#stepDown();
    }
  }

  /** Asks the leader to leave the lead to this tab; a leader that does not answer is replaced. */
  demand(): void {
    if (this.#isWaiting) this.post({ kind: "demand" });
  }

  /** Leaves the lead to a waiting tab, and becomes its follower. */
  handOver(): void {
    if (this.#state !== "leading") return;
    this.post({ kind: "leaving" });
    this.#stepDown();
  }

  // ------------------------------------------------------- leader that is silent

  /** Counts a call that waits for the leader, until the returned function is called. */
  awaiting(): () => void {
    this.#pendingCalls++;
    this.watchLeader();
    return () => void this.#pendingCalls--;
  }

  /** True while something waits for the leader, or it is not known who leads. */
  get #isOpen(): boolean {
    return this.#pendingCalls > 0 ||
      this.#platform.life.isVisible &&
        (this.#state !== "following" || this.#listener.hasQueued);
  }

  /** Time up to the next round, in milliseconds; undefined if there need be none. */
  get #roundMs(): number | undefined {
    if (!this.#isWaiting || this.#common === undefined) return undefined;
    const { isVisible } = this.#platform.life;
    if (this.#isOpen || isVisible && this.#isAsked) return TAB_PING_MS;
    return isVisible ? TAB_IDLE_PING_MS : undefined;
  }

  /**
   * Checks in rounds that the leader answers: often while something waits for it, and
   * seldom while nothing does and the page is visible. To be called when something
   * begins to wait.
   */
  watchLeader(): void {
    const ms = this.#roundMs;
    if (ms === undefined) return;
    const { env } = this.#platform;
    if (this.#cancelRound !== undefined) {
      if (this.#roundAt <= env.now() + ms) return;
      this.#cancelRound();
    }
    this.#roundAt = env.now() + ms;
    this.#cancelRound = env.setTimer(() => {
      this.#cancelRound = undefined;
      if (this.#roundMs === undefined) this.#isAsked = false;
      else this.#round();
      this.watchLeader();
    }, ms);
  }

  #round(): void {
    if (this.#isHeard || !this.#isAsked) {
      this.#silentRounds = 0;
      // An answer is enough while nothing waits.
      this.#isAsked = this.#isOpen || !this.#isAsked;
      this.#isHeard = false;
      if (this.#isAsked) this.post({ kind: "ping" });
      return;
    }
    this.#silentRounds++;
    // Chromium gives the lock of a page in the back/forward cache to the next one
    // when a tab asks for the list.
    this.#platform.locks!.query().catch(() => {});
    this.post({ kind: "ping" });
    const probe = this.#platform.openChannel!(this.#name, undefined);
    probe.post(this.#sealed({ kind: "echo" }));
    probe.close();
    if (this.#silentRounds > 1 && this.#state === "following") {
      this.#enter("orphaned");
    }
    if (
      this.#silentRounds < this.#patience || !this.#isChannelWorking ||
      this.#stolenFrom === this.#epoch
    ) return;
    this.#stolenFrom = this.#epoch;
    this.#isChannelWorking = false;
    this.#silentRounds = 0;
    this.#patience = Math.min(
      2 * this.#patience,
      TAB_PATIENCE_MS_MAX / TAB_PING_MS,
    );
    this.#request(true);
  }

  // ------------------------------------------------------------------- lease

  /** Adds a store, or a part that remembers what a store has. */
  add(member: LeaseMember): void {
    this.#members.push(member);
  }

  /** True while this tab leads, or takes the lead. */
  get isHeld(): boolean {
    return this.#token !== undefined;
  }

  /** True if nothing can be stored. */
  get isVoid(): boolean {
    return this.#state === "memory";
  }

  #deposedError(): ErrStoreLocked {
    return new ErrStoreLocked(
      `Another tab leads the tabs of ${
        this.#name.slice(12)
      }: nothing was written`,
    );
  }

  /**
   * Begins a write; see {@linkcode StoreLease.guard}.
   *
   * @throws ErrStoreLocked if this tab does not lead
   */
  guard(isShared: boolean): (token: string | undefined) => Error | undefined {
    const own = this.#token;
    if (own === undefined && !isShared) throw this.#deposedError();
    return (token) => {
      if (own !== undefined && token === own) return undefined;
      const present = parseToken(token);
      if (present !== undefined && present.code > this.#code) {
        return new ErrStoreVersion(
          this.#code,
          `Version ${
            describeCode(present.code)
          } of this application's code has used the stores, and this is ${
            describeCode(this.#code)
          }: reload the page`,
        );
      }
      if (isShared && present !== undefined) return undefined;
      if (own !== undefined) queueMicrotask(() => notify(() => this.depose()));
      return this.#deposedError();
    };
  }
}
