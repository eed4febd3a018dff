/**
 * Client of an etcd cluster: one connection at a time, failover between the nodes,
 * authentication, and the check that the cluster is the known one.
 *
 * This module needs Deno.
 *
 * @module
 */

import { anySignal, Backoff, notify, sleep, withResolvers } from "../async.ts";
import type { Env } from "../env.ts";
import {
  ETCD_ATTEMPT_MS_MAX,
  ETCD_CALL_MS_MAX,
  ETCD_CONNECT_MS_MAX,
  ETCD_LEADERLESS_MS_MAX,
  ETCD_PAGE_KEYS_MAX,
  ETCD_PROBE_MS,
  ETCD_PROBE_MS_MAX,
  ETCD_RETRY_FIRST_MS,
  ETCD_RETRY_LAST_MS,
} from "../limits.ts";
import { ErrClusterClosed } from "../log/errors.ts";
import type { LogQuorum } from "../log/log.ts";
import { ByteReader, ByteWriter } from "../bytes.ts";
import {
  CallError,
  certificateError,
  Connection,
  type Endpoint,
} from "./connection.ts";
import { ErrEtcdAccess, ErrEtcdUnavailable, ErrOtherEtcd } from "./errors.ts";
import type { Keys } from "./keys.ts";
import {
  decodeAuthenticate,
  decodeRange,
  decodeStatus,
  decodeTxn,
  encodeAuthenticate,
  encodeRange,
  encodeTxn,
  headerOf,
  type KeyValue,
  Method,
} from "./messages.ts";
import { type EtcdTLS, findTLSRefusal } from "./tls_refusal.ts";
import { Watches } from "./watches.ts";

/** Identity of an etcd and of the history in it, to be compared at the next start. */
export interface EtcdIdentity {
  /** Id of the etcd cluster. */
  readonly clusterID: bigint;
  /** Random id of the history, which the first `EtcdLogDB` below the prefix has stored. */
  readonly historyID: bigint;
  /** Highest revision that was seen. */
  readonly revision: number;
}

/** User of etcd. */
export interface EtcdUser {
  /** Name of the user. */
  readonly name: string;
  /** Password of the user. */
  readonly password: string;
}

/** Dependencies of an {@linkcode EtcdClient}. */
export interface EtcdClientParts {
  readonly endpoints: readonly Endpoint[];
  readonly keys: Keys;
  readonly user: EtcdUser | undefined;
  readonly tls: EtcdTLS;
  readonly known: EtcdIdentity | undefined;
  readonly env: Env;
}

/** Options of a call. */
export interface CallOptions {
  /** Longest time of all attempts, in milliseconds. */
  readonly ms: number;
  /** Ends the attempts. */
  readonly signal?: AbortSignal | undefined;
  /** Called before each attempt: from then on the request may take effect. */
  readonly onAttempt?: (() => void) | undefined;
  /** Called when an attempt was refused without an effect. */
  readonly onRefused?: (() => void) | undefined;
}

/** Time since which an etcd has no quorum that this process reaches. */
class Quorum implements LogQuorum {
  readonly #env: Env;
  #lostAt: number | undefined;
  readonly #listeners = new Set<() => void>();

  constructor(env: Env) {
    this.#env = env;
  }

  get lostAt(): number | undefined {
    return this.#lostAt;
  }

  set isReached(isReached: boolean) {
    if (isReached === (this.#lostAt === undefined)) return;
    this.#lostAt = isReached ? undefined : this.#env.now();
    for (const listener of [...this.#listeners]) notify(listener);
  }

  watch(listener: () => void): () => void {
    const own = (): void => listener();
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }
}

/** Client of an etcd cluster. Calls are repeated on the node that is live, so each request must be idempotent. */
export class EtcdClient {
  /** Watches, which go on by themselves on the next connection. */
  readonly watches: Watches;
  readonly #parts: EtcdClientParts;
  readonly #quorum: Quorum;
  readonly #backoff: Backoff;
  #at = 0;
  #connection: Connection | undefined;
  /** Settles once the connection under way is open, or all nodes have refused. */
  #connecting: Promise<Connection> | undefined;
  #cancelProbe: (() => void) | undefined;
  /** Connection whose node is being asked whether it is live. */
  #probed: Connection | undefined;
  /** Time of the first answer without a leader, undefined while there is one. */
  #leaderless: number | undefined;
  #clusterID: bigint | undefined;
  #historyID: bigint | undefined;
  #revision: number;
  /** Last failure of each node. */
  readonly #failures = new Map<string, Error>();
  /** Aborts when the client is closed. */
  readonly #closing = new AbortController();

  /** Creates a client, which connects with the first call. */
  constructor(parts: EtcdClientParts) {
    const { known, env } = parts;
    this.#parts = parts;
    this.#clusterID = known?.clusterID;
    this.#historyID = known?.historyID;
    this.#revision = known?.revision ?? 0;
    this.#quorum = new Quorum(env);
    this.#backoff = new Backoff(env, ETCD_RETRY_FIRST_MS, ETCD_RETRY_LAST_MS);
    this.watches = new Watches({
      connect: () => this.#connect(),
      failed: (connection) => this.#suspect(connection),
      refused: (connection, reason) =>
        this.#lose(
          connection,
          new ErrEtcdAccess(
            `etcd at ${connection.endpoint.url} refuses a watch: ${reason}`,
          ),
        ),
      pause: () => this.#pause(this.#backoff.next()),
    });
  }

  /** Identity of the etcd; undefined before the first connection. */
  get identity(): EtcdIdentity | undefined {
    return this.#clusterID === undefined || this.#historyID === undefined
      ? undefined
      : {
        clusterID: this.#clusterID,
        historyID: this.#historyID,
        revision: this.#revision,
      };
  }

  /** Reach of the etcd, with the delay of a probe at most. */
  get quorum(): LogQuorum {
    return this.#quorum;
  }

  /** URL of the node in use. */
  get endpoint(): string | undefined {
    return this.#connection?.endpoint.url;
  }

  /**
   * Calls etcd, and repeats the call until it succeeds, is refused, or the time is over.
   *
   * @throws ErrEtcdUnavailable if there was no answer in time
   * @throws ErrEtcdAccess if etcd refuses this client
   * @throws ErrOtherEtcd if no node belongs to the known etcd
   * @throws CallError if etcd refuses the request
   */
  async call(
    method: string,
    request: Uint8Array,
    options: CallOptions,
  ): Promise<Uint8Array> {
    const { env } = this.#parts;
    const { ms, signal, onAttempt, onRefused } = options;
    const end = env.now() + ms;
    const backoff = new Backoff(env, ETCD_RETRY_FIRST_MS, ETCD_RETRY_LAST_MS);
    let last: unknown;
    for (;;) {
      signal?.throwIfAborted();
      const left = end - env.now();
      if (left <= 0) throw this.#unavailable(ms, last);
      const connection = await this.#connectWithin(left, ms, last, signal);
      const revision = this.#revision;
      onAttempt?.();
      try {
        const limit = Math.max(
          1,
          Math.min(end - env.now(), ETCD_ATTEMPT_MS_MAX),
        );
        // Answered by one member, whose revision may be an older one.
        if (method === Method.LeaseKeepAlive) {
          return await connection.exchange(method, request, limit);
        }
        const response = await connection.call(method, request, limit);
        this.#check(connection, response, revision);
        return response;
      } catch (error) {
        if (!(error instanceof CallError)) throw error;
        last = error;
        this.#closing.signal.throwIfAborted();
        if (error.isTokenExpired && this.#parts.user !== undefined) {
          onRefused?.();
          await this.#renewToken(connection);
        } else if (error.isFinal) {
          onRefused?.();
          const known = error.toError();
          throw known instanceof ErrEtcdAccess ? known : error;
        } else {
          this.#suspect(connection);
        }
      }
      await this.#pause(Math.min(backoff.next(), end - env.now()), signal);
    }
  }

  /** Calls etcd within `ETCD_CALL_MS_MAX`, with errors for the application. */
  async request(
    method: string,
    request: Uint8Array,
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    try {
      return await this.call(method, request, { ms: ETCD_CALL_MS_MAX, signal });
    } catch (error) {
      throw error instanceof CallError ? error.toError() : error;
    }
  }

  /** Lists a range of keys as they are at one revision: the newest, unless one is given. */
  async list(
    { key, end }: { readonly key: Uint8Array; readonly end: Uint8Array },
    options: { readonly keysOnly?: boolean; readonly revision?: number } = {},
  ): Promise<{ kvs: readonly KeyValue[]; revision: number }> {
    const found: KeyValue[] = [];
    let { revision } = options;
    for (let from = key;;) {
      const { kvs, more, header } = decodeRange(
        await this.request(
          Method.Range,
          encodeRange({
            key: from,
            end,
            revision,
            limit: ETCD_PAGE_KEYS_MAX,
            keysOnly: options.keysOnly,
          }),
        ),
      );
      for (const kv of kvs) found.push(kv);
      revision ??= header.revision;
      if (!more) return { kvs: found, revision };
      // The next key after the last one.
      const last = kvs.at(-1)!.key;
      from = new Uint8Array(last.length + 1);
      from.set(last);
    }
  }

  #unavailable(ms: number, cause: unknown): ErrEtcdUnavailable {
    const failures = [...this.#failures.values()];
    const refusal = failures.find((error) => error instanceof ErrEtcdAccess);
    const last = refusal ?? cause ?? failures.at(-1);
    const why = last instanceof Error ? `: ${last.message}` : "";
    return new ErrEtcdUnavailable(
      `No answer of etcd with a quorum within ${Math.round(ms)} ms${why}`,
      { cause: last },
    );
  }

  /** Waits; the wait ends with the client, or when `signal` aborts. */
  async #pause(ms: number, signal?: AbortSignal): Promise<void> {
    if (ms <= 0) return;
    const either = anySignal(this.#closing.signal, signal);
    try {
      await sleep(this.#parts.env, ms, either.signal);
    } finally {
      either.release();
    }
  }

  async #connectWithin(
    left: number,
    ms: number,
    last: unknown,
    signal: AbortSignal | undefined,
  ): Promise<Connection> {
    if (this.#connection !== undefined) return this.#connection;
    const connecting = this.#connect();
    const late = withResolvers<never>();
    const cancel = this.#parts.env.setTimer(
      () => late.reject(this.#unavailable(ms, last)),
      left,
    );
    const aborted = (): void => late.reject(signal!.reason);
    signal?.addEventListener("abort", aborted);
    try {
      return await Promise.race([connecting, late.promise]);
    } finally {
      cancel();
      signal?.removeEventListener("abort", aborted);
    }
  }

  // -------------------------------------------------------------- connections

  /**
   * Returns the connection, opening one to the first node that is live.
   *
   * @throws ErrEtcdAccess if all nodes refuse this client, or ErrOtherEtcd if none belongs to the known etcd
   */
  async #connect(): Promise<Connection> {
    this.#closing.signal.throwIfAborted();
    if (this.#connection !== undefined) return this.#connection;
    return await (this.#connecting ??= this.#open().finally(() =>
      this.#connecting = undefined
    ));
  }

  async #open(): Promise<Connection> {
    const { endpoints, tls } = this.#parts;
    for (;;) {
      this.#failures.clear();
      for (let tried = 0; tried < endpoints.length; tried++) {
        const endpoint = endpoints[this.#at % endpoints.length]!;
        const connection = new Connection(endpoint, tls);
        try {
          await this.#begin(connection);
          this.#closing.signal.throwIfAborted();
          this.#connection = connection;
          this.#failures.clear();
          this.#backoff.reset();
          this.#leaderless = undefined;
          // Its first transaction was answered, which takes a quorum.
          this.#quorum.isReached = true;
          this.#probeLater();
          return connection;
        } catch (error) {
          connection.close();
          this.#closing.signal.throwIfAborted();
          this.#at++;
          const failure = await this.#failureOf(endpoint, error);
          this.#closing.signal.throwIfAborted();
          this.#failures.set(endpoint.url, failure);
        }
      }
      this.#quorum.isReached = false;
      const failures = [...this.#failures.values()];
      // A node that is down may be one that accepts this client.
      if (failures.every(isRefusal)) throw failures[0]!;
      await this.#pause(this.#backoff.next());
    }
  }

  /** Finds why a connection was not opened: the call may have lost the reason of a refusal. */
  async #failureOf(endpoint: Endpoint, error: unknown): Promise<Error> {
    if (!(error instanceof CallError)) return error as Error;
    const { tls, env } = this.#parts;
    if (error.isLost && endpoint.isSecure) {
      const refusal = await findTLSRefusal(
        endpoint.target,
        tls,
        env,
        ETCD_CONNECT_MS_MAX,
      );
      if (refusal !== undefined) {
        return certificateError(
          `etcd at ${endpoint.url}: ${refusal.message}`,
          refusal,
        );
      }
    }
    return error.toError();
  }

  /** Authenticates on a new connection, and checks that it leads to the known etcd. */
  async #begin(connection: Connection): Promise<void> {
    await this.#authenticate(connection);
    const { keys, env } = this.#parts;
    const key = keys.history;
    const id = this.#historyID ?? env.random64();
    const read = [{ range: { key } }];
    const revision = this.#revision;
    // An id that is known is never written again: its absence shows another history.
    const success = this.#historyID === undefined
      ? [{ put: key, value: new ByteWriter(8).u64(id).finish() }]
      : read;
    const response = await connection.call(
      Method.Txn,
      encodeTxn([{ key, modRevision: 0 }], success, read),
      ETCD_CONNECT_MS_MAX,
    );
    const { succeeded, ranges } = decodeTxn(response);
    const [found] = ranges[0] ?? [];
    const stored = succeeded && this.#historyID === undefined
      ? id
      : found === undefined
      ? undefined
      : new ByteReader(found.value).u64();
    const { clusterID } = headerOf(response);
    if (this.#clusterID !== undefined && clusterID !== this.#clusterID) {
      throw new ErrOtherEtcd(
        `etcd at ${connection.endpoint.url} has cluster id ${
          hex(clusterID)
        }, not ${hex(this.#clusterID)}`,
      );
    }
    if (stored !== id && this.#historyID !== undefined) {
      throw new ErrOtherEtcd(
        `etcd at ${connection.endpoint.url} has ${
          stored === undefined ? "no history" : `history ${hex(stored)}`
        }, not ${hex(id)}`,
      );
    }
    this.#check(connection, response, revision);
    this.#clusterID = clusterID;
    this.#historyID = stored;
  }

  /** Authenticates again; a node that does not answer is left for the next one. */
  async #renewToken(connection: Connection): Promise<void> {
    try {
      await this.#authenticate(connection);
    } catch (error) {
      if (!(error instanceof CallError)) throw error;
      const known = error.toError();
      if (known instanceof ErrEtcdAccess) throw known;
      this.#suspect(connection);
    }
  }

  async #authenticate(connection: Connection): Promise<void> {
    const { user } = this.#parts;
    if (user === undefined) return;
    try {
      connection.token = decodeAuthenticate(
        await connection.call(
          Method.Authenticate,
          encodeAuthenticate(user.name, user.password),
          ETCD_CONNECT_MS_MAX,
        ),
      );
    } catch (error) {
      if (!(error instanceof CallError)) throw error;
      // An etcd without users accepts every client.
      if (error.details.includes("authentication is not enabled")) return;
      throw error;
    }
  }

  /** Checks the header of a linearizable response: revisions never go back within one history. */
  #check(
    { endpoint }: Connection,
    response: Uint8Array,
    revisionBefore: number,
  ): void {
    const { clusterID, revision } = headerOf(response);
    if (this.#clusterID !== undefined && clusterID !== this.#clusterID) {
      throw new ErrOtherEtcd(
        `etcd at ${endpoint.url} has cluster id ${hex(clusterID)}, not ${
          hex(this.#clusterID)
        }`,
      );
    }
    if (revision < revisionBefore) {
      throw new ErrOtherEtcd(
        `etcd at ${endpoint.url} is at revision ${revision}, and was at ${revisionBefore} before: it was restored from a backup`,
      );
    }
    this.#revision = Math.max(this.#revision, revision);
  }

  /** Notes that a call or a watch has failed: the node is asked at once whether it is live. */
  #suspect(connection: Connection): void {
    if (connection !== this.#connection || this.#probed === connection) return;
    this.#cancelProbe?.();
    this.#cancelProbe = undefined;
    // Never rejects: a failure is the loss of the connection.
    void this.#probe(connection);
  }

  #probeLater(): void {
    const connection = this.#connection;
    if (connection === undefined || this.#closing.signal.aborted) return;
    this.#cancelProbe = this.#parts.env.setTimer(() => {
      this.#cancelProbe = undefined;
      // Never rejects: a failure is the loss of the connection.
      void this.#probe(connection);
    }, ETCD_PROBE_MS);
  }

  /** Asks a node whether it is live. */
  async #probe(connection: Connection): Promise<void> {
    this.#probed = connection;
    let failure: Error | undefined;
    try {
      const { leader } = decodeStatus(
        await connection.call(
          Method.Status,
          new Uint8Array(0),
          ETCD_PROBE_MS_MAX,
        ),
      );
      const now = this.#parts.env.now();
      // An election takes a second or two, on every node.
      this.#leaderless = leader === 0n ? this.#leaderless ?? now : undefined;
      if (now - (this.#leaderless ?? now) >= ETCD_LEADERLESS_MS_MAX) {
        failure = new ErrEtcdUnavailable(
          `etcd at ${connection.endpoint.url} has no leader`,
        );
      }
    } catch (error) {
      // A refusal is an answer of a live node.
      if (!(error instanceof CallError && error.isFinal)) {
        failure = error as Error;
      }
    }
    // Another connection has probes of its own.
    if (connection !== this.#connection) return;
    this.#probed = undefined;
    if (failure !== undefined) return this.#lose(connection, failure);
    this.#quorum.isReached = this.#leaderless === undefined;
    if (this.#leaderless === undefined) this.#backoff.reset();
    this.#probeLater();
  }

  /** Gives up a connection; its calls fail and are repeated on the next one. */
  #lose(connection: Connection, error: Error): void {
    if (connection !== this.#connection) return;
    this.#failures.set(connection.endpoint.url, error);
    this.#connection = undefined;
    this.#quorum.isReached = false;
    this.#at++;
    this.watches.lost();
    connection.close();
  }

  /** Closes the connection; calls under way fail with ErrClusterClosed. */
  close(): void {
    if (this.#closing.signal.aborted) return;
    this.#cancelProbe?.();
    this.#closing.abort(
      new ErrClusterClosed("EtcdLogDB is closed; create another one"),
    );
    this.watches.close();
    this.#connection?.close();
    this.#connection = undefined;
  }
}

function isRefusal(error: Error): boolean {
  return error instanceof ErrOtherEtcd || error instanceof ErrEtcdAccess;
}

function hex(id: bigint): string {
  return id.toString(16);
}
