/**
 * The hooks of the program that serves: `authenticate`, `authorize` and
 * `validate`. Each answer is checked when it comes in. A wrong answer, a throw, a
 * rejection or no answer in time is a fault of the hook, and never of the client
 * that it was asked about.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { describe, isWellFormed } from "../../describe.ts";
import type { Env } from "../../env.ts";
import { SYNC_PRINCIPAL_ID_LENGTH_MAX } from "../../limits.ts";
import { isPromise, onAbort, settleable } from "../../async.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import { ErrForbidden, ErrHookFailed, ErrUnauthenticated } from "../errors.ts";
import type {
  Action,
  CoreOptions,
  Principal,
  ValidateContext,
} from "./options.ts";

/** A principal as the server goes by it: what is read from the hook's object is read once. */
export interface Identity {
  /** The object that `authenticate` gave, for the other hooks. */
  readonly principal: Principal;
  /** Its id. */
  readonly id: string;
  /** Aborts once the principal is no longer valid. */
  readonly signal: AbortSignal | undefined;
  /** Validity from the time of the answer on, in milliseconds. */
  readonly validMs: number | undefined;
  /** True if there is no `authenticate`: all clients are this one principal, so no limit of a principal applies to it. */
  readonly isAnonymous: boolean;
}

const ANONYMOUS: Identity = {
  principal: { id: "anybody" },
  id: "anybody",
  signal: undefined,
  validMs: undefined,
  isAnonymous: true,
};

/** The hooks of one server, each bounded in time. */
export class Hooks {
  readonly #options: CoreOptions;
  readonly #env: Env;
  readonly #ms: number;
  readonly #failed: () => void;
  readonly #over = new AbortController();

  /** The hooks that are in `options`, each with `ms` milliseconds to answer; `failed` is called at each fault of one. */
  constructor(
    options: CoreOptions,
    env: Env,
    ms: number,
    failed: () => void,
  ) {
    this.#options = options;
    this.#env = env;
    this.#ms = ms;
    this.#failed = failed;
  }

  /**
   * The principal that `authenticate` finds, undefined if it finds none; it may
   * refuse by an error, too.
   *
   * @throws ErrHookFailed if it threw anything else, gave no principal, or did not answer in time
   */
  async authenticate(request: Request): Promise<Identity | undefined> {
    const { authenticate } = this.#options;
    if (authenticate === undefined) return ANONYMOUS;
    return await this.#ask(
      "authenticate",
      () => authenticate(request),
      identityOf,
    );
  }

  /**
   * True if a principal may do something, as `authorize` says; without it,
   * everything but to upload.
   *
   * @throws ErrHookFailed if it threw, answered anything but true or false, or did not answer in time
   */
  authorize(
    principal: Principal,
    clusterID: bigint,
    action: Action,
  ): MaybePromise<boolean> {
    const { authorize } = this.#options;
    if (authorize === undefined) return action !== "upload";
    return this.#ask(
      "authorize",
      () => authorize(principal, clusterID, action),
      permissionOf,
    );
  }

  /**
   * Reason for which `validate` refuses a command, if it does.
   *
   * @throws ErrHookFailed if it threw, answered anything but a text or undefined, or did not answer in time
   */
  validate(
    principal: Principal,
    cmd: Uint8Array,
    clusterID: bigint,
    context: ValidateContext,
  ): MaybePromise<string | undefined> {
    const { validate } = this.#options;
    if (validate === undefined) return undefined;
    return this.#ask(
      "validate",
      () => validate(principal, cmd, clusterID, context),
      reasonOf,
    );
  }

  /**
   * Response of `fetch` to a request that is not the server's own. Not bounded
   * in time: only its own request waits for it.
   *
   * @throws ErrHookFailed if it threw, or gave no response
   */
  async fetch(
    request: Request,
    fetch: (request: Request) => MaybePromise<Response>,
  ): Promise<Response> {
    try {
      return responseOf(await fetch(request));
    } catch (error) {
      throw this.#judge("fetch", error);
    }
  }

  #ask<T>(
    name: string,
    hook: () => unknown,
    check: (answer: unknown) => T,
  ): MaybePromise<T> {
    let answer: unknown;
    try {
      answer = settleable(hook());
      if (!isPromise(answer)) return check(answer);
    } catch (error) {
      throw this.#judge(name, error);
    }
    return this.#bounded(name, answer.then(check));
  }

  #bounded<T>(name: string, answer: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      let isOver = false;
      const end = (): void => {
        isOver = true;
        cancelTimer();
        ignore();
      };
      const fail = (error: unknown): void => {
        // An answer that is too late has no effect.
        if (isOver) return;
        end();
        reject(this.#judge(name, error));
      };
      const cancelTimer = this.#env.setTimer(
        () => fail(new Error(`No answer within ${this.#ms} ms`)),
        this.#ms,
      );
      let ignore = (): void => {};
      ignore = onAbort(this.#over.signal, fail);
      answer.then((value) => {
        end();
        resolve(value);
      }, fail);
    });
  }

  #judge(name: string, error: unknown): unknown {
    if (
      name === "authenticate" &&
      (error instanceof ErrUnauthenticated || error instanceof ErrForbidden)
    ) return error;
    if (!this.#over.signal.aborted) this.#failed();
    return new ErrHookFailed(name, error);
  }

  /** Fails every hook that has not answered: the server has stopped. */
  end(): void {
    this.#over.abort(new Error("Server has stopped"));
  }
}

const PRINCIPAL_FORM =
  'answer with { id: "…" }, or with undefined, null or false for a request that is not authenticated';

/** The principal in an answer of `authenticate`. */
function identityOf(answer: unknown): Identity | undefined {
  // False comes from `ok && { id }`.
  if (answer === undefined || answer === null || answer === false) {
    return undefined;
  }
  if (typeof answer !== "object") {
    throw new TypeError(
      `Answer is ${describe(answer)}, not a principal; ${PRINCIPAL_FORM}`,
    );
  }
  const principal = answer as Principal;
  const id: unknown = principal.id;
  if (typeof id !== "string" || id === "") {
    throw new TypeError(
      `Id of the principal is ${
        describe(id)
      }, not a string of at least one character; ${PRINCIPAL_FORM}`,
    );
  }
  if (id.length > SYNC_PRINCIPAL_ID_LENGTH_MAX) {
    throw new TypeError(
      `Id of the principal has ${id.length} characters, over the limit of ${SYNC_PRINCIPAL_ID_LENGTH_MAX}`,
    );
  }
  if (!isWellFormed(id)) {
    throw new TypeError(
      `Id of the principal, ${
        describe(id)
      }, has a lone surrogate: it could not be told from other such ids`,
    );
  }
  const signal: unknown = principal.signal ?? undefined;
  if (signal !== undefined && !isAbortSignal(signal)) {
    throw new TypeError(
      `Signal of the principal is ${describe(signal)}, not an AbortSignal`,
    );
  }
  const validMs: unknown = principal.validMs ?? undefined;
  if (validMs !== undefined && !(typeof validMs === "number" && validMs > 0)) {
    throw new TypeError(
      `validMs of the principal is ${
        describe(validMs)
      }, not a number of milliseconds from now on`,
    );
  }
  return { principal, id, signal, validMs, isAnonymous: false };
}

/** True if a value can be used as an AbortSignal, also one of another realm. */
export function isAbortSignal(value: unknown): value is AbortSignal {
  return typeof value === "object" && value !== null &&
    typeof (value as AbortSignal).aborted === "boolean" &&
    typeof (value as AbortSignal).addEventListener === "function";
}

/** Only true is a permission: a truthy reason for a refusal must not become one. */
function permissionOf(answer: unknown): boolean {
  if (typeof answer === "boolean") return answer;
  throw new TypeError(
    `Answer is ${describe(answer)}; answer with true or false`,
  );
}

/** Reason for a refusal, in an answer of `validate`. */
function reasonOf(answer: unknown): string | undefined {
  if (answer === undefined || answer === null) return undefined;
  if (typeof answer === "string") return answer;
  throw new TypeError(
    `Answer is ${
      describe(answer)
    }; answer with the reason as a string, or with undefined for a command that is allowed`,
  );
}

function responseOf(answer: unknown): Response {
  if (answer instanceof Response && !answer.bodyUsed) return answer;
  throw new TypeError(
    answer instanceof Response
      ? "Body of the response was read already; answer with a new Response, or with a clone()"
      : `Answer is ${
        describe(answer)
      }; answer with a Response, with status 404 for what is not there`,
  );
}
