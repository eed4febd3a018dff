/**
 * Path of a client's appends into the log of one cluster.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  ErrClusterClosed,
  ErrUnknownOutcome,
  type Refusal,
} from "../../log/errors.ts";
import type { LogTurn, Records } from "../../log/log.ts";
import { ErrOrderLost } from "../../log/order_errors.ts";
import { Backoff, chain, isPromise, sleep } from "../../async.ts";
import { ErrStoreCorrupted, ErrStoreVanished } from "../../store/errors.ts";
import { type ErrHookFailed, ErrUnauthenticated } from "../errors.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import {
  SYNC_REFUSED_COMMANDS,
  SYNC_RETRY_FIRST_MS,
  SYNC_VALIDATE_RETRY_LAST_MS,
} from "../../limits.ts";
import { ErrNewerCode, ErrOtherAuthor } from "../../statemachine/errors.ts";
import { type Append, WaitCode, WAITS_VERSION } from "../messages.ts";
import type { Admission, Admitted, Blocked } from "./admission.ts";
import type { ChannelConnection } from "./channel_connection.ts";
import type { ServerContext } from "./context.ts";
import type { ServedCluster } from "./served_cluster.ts";

/** Reason sent to a client whose appends wait. */
const BLOCKED =
  "Server cannot validate a command now; it is queued and validated again";

/** Code of the cause for which a command waits; undefined for a fault of the server. */
function waitCodeOf(cause: unknown): number | undefined {
  if (cause instanceof ErrNewerCode) return WaitCode.OlderServer;
  return cause instanceof ErrOtherAuthor ? WaitCode.OtherAuthor : undefined;
}

/** True if some of an append that has failed is in the log, or may be later. */
function mayBeInLog(
  error: unknown,
  outcomes: readonly PromiseSettledResult<number>[],
): boolean {
  return error instanceof ErrUnknownOutcome ||
    outcomes.some((one) =>
      one.status === "fulfilled" || one.reason instanceof ErrUnknownOutcome
    );
}

/** Append that awaits its answer. */
interface PendingAppend {
  readonly message: Append;
  readonly records: Records;
  /** Bytes of the client's credit that the append uses. */
  readonly credit: number;
  /** Time of its receipt. */
  readonly receivedAt: number;
  /** First record that was not admitted or refused yet. */
  first: number;
  /** Index of the first record of each part that was appended to the log. */
  readonly parts: MaybePromise<number>[];
  /** Number of records appended. */
  appended: number;
  /** Number of records refused, including those replaced by a skip record of their session. */
  refused: number;
  readonly refusals: Refusal[];
}

/** Dependencies of an {@linkcode AppendPipeline}. */
export interface AppendPipelineOptions {
  /** Number of the channel. */
  readonly channel: number;
  /** Cluster to append to. */
  readonly cluster: ServedCluster;
  /** Admission control of the records. */
  readonly admission: Admission;
  /** Connection of the channel. */
  readonly connection: ChannelConnection;
  /** Services of the server. */
  readonly server: Pick<ServerContext, "env" | "scheduler" | "telemetry">;
}

/**
 * Passes the appends of one channel through admission control into the log, in
 * order, and answers them. Admission is sequential; appends to the log overlap.
 */
export class AppendPipeline {
  readonly #options: AppendPipelineOptions;
  /** Settles once all appends received so far are admitted; undefined if they are. */
  #admitting: Promise<void> | undefined;
  readonly #drained = new AbortController();
  /** Set once an append was abandoned: those behind it must not be in the log either. */
  #isAbandoned = false;
  #isClosed = false;

  /** Creates an empty pipeline. */
  constructor(options: AppendPipelineOptions) {
    this.#options = options;
  }

  /** Appends what admission control accepts, after the appends before it. */
  append(message: Append, records: Records, credit: number): void {
    const { connection, server: { env, scheduler } } = this.#options;
    const pending: PendingAppend = {
      message,
      records,
      credit,
      receivedAt: env.now(),
      first: 0,
      parts: [],
      appended: 0,
      refused: 0,
      refusals: [],
    };
    const done = this.#admitting === undefined
      ? this.#process(pending)
      : this.#admitting.then(() =>
        scheduler.run(connection, () => this.#process(pending))
      );
    if (!isPromise(done)) return;
    const admitting = this.#admitting = done.then(() => {
      if (this.#admitting === admitting) this.#admitting = undefined;
    });
  }

  /** Settles, without an error, once the append is admitted and its answer is on its way. */
  #process(pending: PendingAppend): MaybePromise<void> {
    const fail = (error: unknown): void => this.#fail(pending, error);
    try {
      const done = chain(
        this.#admit(pending),
        (blocked): MaybePromise<void> =>
          blocked === undefined
            ? this.#answer(pending)
            : this.#retry(pending, blocked),
      );
      return isPromise(done) ? done.catch(fail) : undefined;
    } catch (error) {
      fail(error);
    }
  }

  #admit(pending: PendingAppend): MaybePromise<Blocked | undefined> {
    if (this.#isAbandoned) throw this.#drained.signal.reason;
    const { admission, connection: { authentication } } = this.#options;
    const failed = (error: unknown): Promise<Blocked | undefined> => {
      if (!(error instanceof ErrUnauthenticated)) throw error;
      // Admission starts over with the principal of the next token.
      return authentication.untilValid().then(() => this.#admit(pending));
    };
    try {
      const admitted = admission.admit(
        pending.records,
        pending.first,
        (admitted, turn) => this.#commit(pending, admitted, turn),
      );
      return isPromise(admitted) ? admitted.catch(failed) : admitted;
    } catch (error) {
      return failed(error);
    }
  }

  /** Retries a blocked record with backoff. Appends behind it on this channel wait; other clients are unaffected. */
  async #retry(pending: PendingAppend, first: Blocked): Promise<void> {
    const { channel, cluster: { clusterID }, connection, server: { env } } =
      this.#options;
    const { signal } = this.#drained;
    const backoff = new Backoff(
      env,
      SYNC_RETRY_FIRST_MS,
      SYNC_VALIDATE_RETRY_LAST_MS,
    );
    let reported: string | undefined;
    try {
      // Parts before the blocked record must be in the log before it.
      await Promise.all(pending.parts);
      for (let blocked: Blocked | undefined = first; blocked !== undefined;) {
        const { at, error }: Blocked = blocked;
        pending.first = at;
        const wait = backoff.next();
        const code = waitCodeOf(error.cause);
        if (code === undefined) {
          connection.log("error", `${error.hook} failed`, { clusterID, error });
        } else if (reported !== error.message) {
          connection.log("warn", "command waits", { clusterID, error });
        }
        this.#report(code, error, wait, reported);
        reported = error.message;
        await sleep(env, wait, signal);
        blocked = await this.#admit(pending);
        if (blocked !== undefined && blocked.at > at) backoff.reset();
      }
    } catch (error) {
      this.#isAbandoned ||= signal.aborted;
      throw error;
    } finally {
      if (!this.#isClosed) {
        connection.sender.send({ type: "held", channel, reason: "" });
      }
    }
    this.#answer(pending);
  }

  /** Tells the client that its appends wait. */
  #report(
    code: number | undefined,
    { message, cause }: ErrHookFailed,
    waitMs: number,
    reported: string | undefined,
  ): void {
    const { channel, connection: { sender, version } } = this.#options;
    const reason = code === undefined ? BLOCKED : (cause as Error).message;
    if (code !== undefined && version >= WAITS_VERSION) {
      const retryMs = Math.ceil(waitMs);
      sender.send({ type: "waits", channel, code, retryMs, reason });
    } else if (
      code === undefined ? reported === undefined : reported !== message
    ) {
      sender.send({ type: "held", channel, reason });
    }
  }

  /**
   * Appends admitted records to the log; returns the index of each part.
   *
   * @throws ErrUnauthenticated if the principal is not valid any more
   */
  #commit(
    pending: PendingAppend,
    { parts, refusals, refused, upTo }: Admitted,
    turn: LogTurn | undefined,
  ): readonly MaybePromise<number>[] {
    const { cluster, connection, server: { telemetry } } = this.#options;
    // The principal may have been revoked during admission.
    connection.authentication.assertValid();
    pending.first = upTo;
    telemetry.counts.refused += refused;
    pending.refused += refused;
    pending.refusals.push(...refusals);
    return parts.map((part) => {
      const appended = (turn ?? cluster.log).append(part);
      if (isPromise(appended)) {
        appended.catch(() => {
          // Reported by #fail().
        });
      }
      pending.parts.push(appended);
      pending.appended += part.ends.length;
      return appended;
    });
  }

  /** Answers once all parts are in the log. */
  #answer(pending: PendingAppend): void {
    const { connection, server: { env, telemetry } } = this.#options;
    const { message: { stream, lengths }, parts, refused, refusals } = pending;
    const answer = (first: number): void => {
      telemetry.counts.appended += pending.appended;
      telemetry.appendTook(env.now() - pending.receivedAt);
      connection.answer(stream, {
        type: "appended",
        stream,
        first,
        refused: refusals.map(({ at }) => at),
        // A reason equal to the one before is sent as an empty string.
        reasons: refusals.map(({ reason }, i) =>
          reason === refusals[i - 1]?.reason ? "" : reason
        ),
      });
      // Refused records cost extra, so that their client has to slow down.
      const commands = lengths.length + refused * SYNC_REFUSED_COMMANDS;
      connection.appendProcessed(pending.credit, commands);
    };
    const [first = 0, ...others] = parts;
    const appended = others.length === 0 && !isPromise(first)
      // After the records, for which the other clients wait.
      ? env.turn().then(() => answer(first))
      : Promise.all(parts).then(([first]) => answer(first!));
    appended.catch((error) => this.#fail(pending, error));
  }

  /** Reports an append that has failed, once all its parts are settled: only then it is known if some of it is in the log. */
  #fail(pending: PendingAppend, error: unknown): void {
    const { cluster, connection } = this.#options;
    const { parts } = pending;
    // A failure of the log itself is logged once for the cluster.
    const isLogged = cluster.storageError !== undefined ||
      error instanceof ErrStoreCorrupted || error instanceof ErrStoreVanished;
    if (error !== this.#drained.signal.reason && !isLogged) {
      const { clusterID } = cluster;
      connection.log("error", "append failed", { clusterID, error });
    }
    if (parts.length === 0) return this.#answerFailed(pending, error, []);
    // Never rejects: a failed answer closes its connection.
    void Promise.allSettled(parts).then((outcomes) =>
      this.#answerFailed(pending, error, outcomes)
    );
  }

  #answerFailed(
    { message: { stream, lengths }, credit }: PendingAppend,
    error: unknown,
    outcomes: readonly PromiseSettledResult<number>[],
  ): void {
    const { cluster: { clusterID }, connection } = this.#options;
    const isUnknown = mayBeInLog(error, outcomes);
    const message = error instanceof ErrOrderLost
      ? isUnknown
        ? `Server has lost its turn to append to cluster ${clusterID} between these commands, and some are in the log; read the state before you propose the others again`
        : `Server has lost its turn to append to cluster ${clusterID}; the command is not in the log and never will be, so propose it again`
      : "Server could not append to its log; the operator's log has the cause";
    connection.answer(stream, {
      type: "failed",
      stream,
      unknown: isUnknown,
      message,
    });
    connection.appendProcessed(credit, lengths.length);
  }

  /** Fails blocked appends, and those behind them, instead of retrying. */
  drain(): void {
    this.#drained.abort(new ErrClusterClosed());
  }

  /** Ends with the channel. */
  close(): void {
    this.#isClosed = true;
    this.drain();
  }
}
