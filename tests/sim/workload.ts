/**
 * Commands and lookups of the applications in a world, each recorded in its
 * history.
 *
 * @module
 */

import {
  ErrPayloadTooBig,
  ErrProposalRefused,
  ErrProposalSkipped,
  ErrSystemBusy,
  ErrUnknownOutcome,
  type Replica,
  type Session,
  type Watch,
} from "../../mod.ts";
import { isPromise } from "../../src/async.ts";
import { ErrConnectionLost } from "../../src/sync/client/mod.ts";
import type { MaybePromise } from "../../src/statemachine/types.ts";
import type { SimulatedEnv } from "../../src/testing/simulated_clock.ts";
import type { WorldContext } from "./context.ts";
import type { Operation, OperationKind } from "./history.ts";
import {
  ALL,
  encodeCommand,
  keyOf,
  textOf,
  textOfSubmission,
} from "./machines.ts";

/** A replica in one life of its process. */
export interface Place {
  readonly process: string;
  readonly env: SimulatedEnv;
  readonly cluster: bigint;
  readonly replica: Replica;
  /** True once the process has ended: no answer reaches a caller. */
  readonly isOver: () => boolean;
  /** True once another replica has taken the place of this one, on another history. */
  readonly isReplaced: () => boolean;
}

/** Circumstances of a lookup. */
export interface LookupOptions {
  /** Returns false once an answer does not count any more. */
  readonly isPresent?: () => boolean;
  /** Returns the commands that a view may show twice. */
  readonly mayRepeat?: () => ReadonlySet<string>;
  /** Called with an answer that counts. */
  readonly answered?: (list: readonly string[]) => void;
}

/** Client session of the workload. */
interface ClientSession {
  readonly name: string;
  readonly session: Session;
  /** Process that opened it. */
  readonly process: string;
}

/** Sessions and operations of the applications. */
export class Workload {
  readonly #context: WorldContext;
  readonly #sessions = new Map<bigint, ClientSession[]>();
  #proposed = 0;
  #opened = 0;

  constructor(context: WorldContext) {
    this.#context = context;
  }

  /** Opens a client session. */
  openSession(place: Place): void {
    const { history } = this.#context;
    const { cluster, env, replica } = place;
    const name = `c${this.#opened++}`;
    this.#context.background(
      env,
      `openSession() in ${place.process}`,
      replica.openSession().then((session) => {
        if (place.isOver() || place.isReplaced()) return;
        history.session("opened", cluster);
        this.#of(cluster).push({ name, session, process: place.process });
      }, (error) => history.failed(error)),
    );
  }

  /** Closes a client session through one of the replicas. */
  closeSession(place: Place, number: number): void {
    const { history } = this.#context;
    const { cluster, env, replica } = place;
    const client = this.#client(place, number);
    if (client === undefined) return;
    this.#context.background(
      env,
      `closeSession() in ${place.process}`,
      replica.closeSession(client.session).then(
        () => history.session("closed", cluster),
        (error) => history.failed(error),
      ),
    );
  }

  /** Session that may be used in a process: its own, or that of another host of the same program. */
  #client(
    { cluster, process }: Place,
    number: number,
  ): ClientSession | undefined {
    const { sharesSessions } = this.#context.profile;
    const usable = this.#of(cluster).filter((client) =>
      client.process === process ||
      sharesSessions && client.process.startsWith("s") &&
        process.startsWith("s")
    );
    return usable[number];
  }

  #of(cluster: bigint): ClientSession[] {
    let sessions = this.#sessions.get(cluster);
    if (sessions === undefined) this.#sessions.set(cluster, sessions = []);
    return sessions;
  }

  /** Proposes a command; with a session, that of its number if it is open. */
  propose(
    place: Place,
    key: string,
    number: number,
    filling: number,
    abortMs: number,
    kind = "",
  ): void {
    const { history } = this.#context;
    const { cluster, env, replica, process } = place;
    const client = this.#client(place, number);
    const text = `${client?.name ?? "x"}:${this.#proposed++}:${key}:${kind}`;
    const operation = history.begin({
      process,
      cluster,
      kind: "propose",
      key,
      input: text,
      session: client?.name,
    });
    const controller = new AbortController();
    if (abortMs > 0) {
      env.setTimer(
        () =>
          controller.abort(
            new Error(`Caller of ${text} gave up after ${abortMs} ms`),
          ),
        abortMs,
      );
    }
    const proposed = replica.propose(encodeCommand(text, filling), {
      signal: controller.signal,
      ...(client === undefined ? {} : { session: client.session }),
    });
    this.#context.background(
      env,
      `propose() of ${text} in ${process}`,
      proposed.then(({ value, data }) => {
        if (place.isOver()) return;
        if (textOf(data) !== text) {
          this.#context.fail("result", `${text} has the result of another`);
        }
        history.end(operation, { kind: "ok", value: Number(value) });
      }, (error) => {
        if (place.isOver()) return;
        const isKnown = error instanceof ErrProposalRefused ||
          error instanceof ErrProposalSkipped ||
          error instanceof ErrSystemBusy ||
          error instanceof ErrPayloadTooBig ||
          error instanceof ErrConnectionLost ||
          // Any other error of a log means that nothing was appended.
          error instanceof Error && /^append\(\) failed/.test(error.message);
        if (error instanceof ErrUnknownOutcome && error.applied) {
          history.met("event", "result lost");
        }
        history.end(operation, {
          kind: isKnown ? "rejected" : "unknown",
          error,
        });
      }),
    );
  }

  /** Looks something up; `expected` returns what a view that answers at once must show, by what it shows. */
  lookup(
    place: Place,
    kind: OperationKind,
    key: string,
    expected?: (list: readonly string[]) => readonly string[],
    { isPresent = (): boolean => true, mayRepeat, answered }: LookupOptions =
      {},
  ): void {
    const { history } = this.#context;
    const { process, cluster, replica, env } = place;
    let answer: MaybePromise<unknown>;
    let failure: { readonly error: unknown } | undefined;
    try {
      answer = this.#ask(replica, kind, key);
    } catch (error) {
      failure = { error };
    }
    const operation = history.begin({
      process,
      cluster,
      kind,
      input: "",
      key: key === ALL ? undefined : key,
      // Before an answer that comes later, entries may be applied.
      expected: isPromise(answer) || failure !== undefined
        ? undefined
        : expected?.(answer as string[]),
    });
    if (failure !== undefined) {
      return history.end(operation, { kind: "rejected", ...failure });
    }
    if (!isPromise(answer)) {
      answered?.(answer as string[]);
      return this.#answered(operation, answer, mayRepeat);
    }
    this.#context.background(
      env,
      `${kind} in ${process}`,
      answer.then((answer) => {
        if (place.isOver()) return;
        // What it shows is of a history that is gone, but its caller was answered.
        if (place.isReplaced() || !isPresent()) {
          return history.answered(operation);
        }
        answered?.(answer as string[]);
        this.#answered(operation, answer, mayRepeat);
      }, (error) => {
        if (!place.isOver()) {
          history.end(operation, { kind: "rejected", error });
        }
      }),
    );
  }

  #ask(
    replica: Replica,
    kind: OperationKind,
    key: string,
  ): MaybePromise<unknown> {
    switch (kind) {
      case "read":
        return replica.read(key);
      case "naRead":
        return replica.naRead(new TextEncoder().encode(key)).then((bytes) =>
          JSON.parse(new TextDecoder().decode(bytes))
        );
      case "view":
        return replica.view.lookup(key);
      default:
        return replica.staleRead(key);
    }
  }

  #answered(
    operation: Operation,
    answer: unknown,
    mayRepeat: (() => ReadonlySet<string>) | undefined,
  ): void {
    if (mayRepeat !== undefined) operation.mayRepeat = mayRepeat();
    this.#context.history.end(operation, {
      kind: "ok",
      value: answer as string[],
    });
  }

  /** Watches a view for as long as its process lives. */
  watch(
    place: Place,
    key: string,
    isPresent: () => boolean,
    mayRepeat: () => ReadonlySet<string>,
  ): Watch<string[]> {
    const { history } = this.#context;
    const { process, cluster, replica } = place;
    const watch = replica.watch<string[]>(key);
    watch.subscribe(() => {
      const list = watch.getSnapshot();
      if (list === undefined || place.isOver()) return;
      if (place.isReplaced() || !isPresent()) return;
      const operation = history.begin({
        process,
        cluster,
        kind: "watch",
        input: "",
        key: key === ALL ? undefined : key,
      });
      this.#answered(operation, list, mayRepeat);
    });
    return watch;
  }
}

/** Committed commands of a key, queued ones and those that are being stored: what a view shows. */
export function expectedView(
  replica: Replica,
  committed: readonly string[],
  storing: readonly string[],
  key: string,
  isShown: (command: string) => boolean,
): readonly string[] {
  const list = key === ALL
    ? committed.slice()
    : committed.filter((command) => keyOf(command) === key);
  const add = (command: string): void => {
    if (!isShown(command)) return;
    if (key === ALL || keyOf(command) === key) list.push(command);
  };
  for (const submission of replica.pending()) {
    if (submission.state === "queued") add(textOfSubmission(submission));
  }
  for (const command of storing) {
    // Another tab may have sent it before this one knows that it is stored.
    if (!committed.includes(command)) add(command);
  }
  return list;
}
