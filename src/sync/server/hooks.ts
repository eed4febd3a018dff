/**
 * Hooks of the application: `authenticate`, `authorize`, `validate`, `fetch` and that
 * of the inspector.
 * Each result is checked. A result of the wrong type, an exception, a rejection or
 * a timeout is a fault of the hook, never of the client it was called for.
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
import { ANONYMOUS_ID } from "../messages.ts";
import type {
  Action,
  CoreOptions,
  InspectorPermission,
  Principal,
  ValidateContext,
} from "./options.ts";

/** Authenticated principal; the fields of the hook's object are read once. */
export interface Identity {
  /** Object returned by `authenticate`, passed to the other hooks. */
  readonly principal: Principal;
  /** Permanent id of the principal. */
  readonly id: string;
  /** Aborts once the principal is no longer valid. */
  readonly signal: AbortSignal | undefined;
  /** Validity from the result of the hook on, in milliseconds; undefined if it does not expire. */
  readonly validMs: number | undefined;
  /** True without an `authenticate` hook: all clients are this principal, so the limits of a principal do not apply. */
  readonly isAnonymous: boolean;
}

/** Reason given to a client that `authenticate` does not accept. */
export const NOT_AUTHENTICATED = "Token is unknown or has expired";

export const ANONYMOUS: Identity = {
  principal: { id: ANONYMOUS_ID },
  id: ANONYMOUS_ID,
  signal: undefined,
  validMs: undefined,
  isAnonymous: true,
};

/** Calls the hooks of one server, each with a timeout. */
export class Hooks {
  readonly #options: CoreOptions;
  readonly #env: Env;
  readonly #timeoutMs: number;
  readonly #failed: () => void;
  readonly #ended = new AbortController();

  /** Creates the caller of the hooks in `options`; `failed` is called at each fault of a hook. */
  constructor(
    options: CoreOptions,
    env: Env,
    timeoutMs: number,
    failed: () => void,
  ) {
    this.#options = options;
    this.#env = env;
    this.#timeoutMs = timeoutMs;
    this.#failed = failed;
  }

  /** True if an `authorize` hook is set. */
  get authorizes(): boolean {
    return this.#options.authorize !== undefined;
  }

  /** True if a `validate` hook is set. */
  get validates(): boolean {
    return this.#options.validate !== undefined;
  }

  /**
   * Principal of a request, as `authenticate` finds it; the anonymous principal
   * without that hook.
   *
   * @throws ErrUnauthenticated if the request has no valid principal
   * @throws ErrForbidden if the hook throws it
   * @throws ErrHookFailed if the hook throws anything else, returns no principal, or times out
   */
  async authenticate(request: Request): Promise<Identity> {
    const { authenticate } = this.#options;
    if (authenticate === undefined) return ANONYMOUS;
    const identity = await this.#call(
      "authenticate",
      () => authenticate(request),
      identityOf,
    );
    if (identity === undefined || identity.signal?.aborted) {
      throw new ErrUnauthenticated(NOT_AUTHENTICATED);
    }
    return identity;
  }

  /**
   * True if `authorize` permits an action; without that hook, reading and writing
   * are permitted and uploading is not.
   *
   * @throws ErrHookFailed if the hook throws, returns anything but true or false, or times out
   */
  authorize(
    principal: Principal,
    clusterID: bigint,
    action: Action,
  ): MaybePromise<boolean> {
    const { authorize } = this.#options;
    if (authorize === undefined) return action !== "upload";
    return this.#call(
      "authorize",
      () => authorize(principal, clusterID, action),
      permissionOf,
    );
  }

  /**
   * Reason for which `validate` refuses a command; undefined if it accepts it.
   *
   * @throws ErrHookFailed if the hook throws, returns anything but a string or undefined, or times out
   */
  validate(
    principal: Principal,
    cmd: Uint8Array,
    clusterID: bigint,
    context: ValidateContext,
  ): MaybePromise<string | undefined> {
    const { validate } = this.#options;
    if (validate === undefined) return undefined;
    return this.#call(
      "validate",
      () => validate(principal, cmd, clusterID, context),
      reasonOf,
    );
  }

  /**
   * Permission to inspect the server, as the inspector's `authorize` returns it;
   * undefined if there is no permission.
   *
   * @throws ErrHookFailed if the hook throws, returns anything else, or times out
   */
  async inspect(request: Request): Promise<InspectorPermission | undefined> {
    const { inspector } = this.#options;
    if (inspector === undefined) return undefined;
    return await this.#call(
      "inspector.authorize",
      () => inspector.authorize(request),
      inspectionOf,
    );
  }

  /**
   * Response of `fetch` to a request that the server does not handle itself. It
   * has no timeout: no other request waits for it.
   *
   * @throws ErrHookFailed if the hook throws, or returns anything but an unused `Response`
   */
  async fetch(
    request: Request,
    fetch: (request: Request) => MaybePromise<Response>,
  ): Promise<Response> {
    try {
      return responseOf(await fetch(request));
    } catch (error) {
      throw this.#fault("fetch", error);
    }
  }

  #call<T>(
    name: string,
    hook: () => unknown,
    check: (result: unknown) => T,
  ): MaybePromise<T> {
    let result: unknown;
    try {
      result = settleable(hook());
      if (!isPromise(result)) return check(result);
    } catch (error) {
      throw this.#fault(name, error);
    }
    return this.#withTimeout(name, result.then(check));
  }

  #withTimeout<T>(name: string, result: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      let isOver = false;
      const end = (): void => {
        isOver = true;
        cancelTimer();
        ignore();
      };
      const fail = (error: unknown): void => {
        // A result after the timeout has no effect.
        if (isOver) return;
        end();
        reject(this.#fault(name, error));
      };
      const cancelTimer = this.#env.setTimer(
        () => fail(new Error(`No answer within ${this.#timeoutMs} ms`)),
        this.#timeoutMs,
      );
      let ignore = (): void => {};
      ignore = onAbort(this.#ended.signal, fail);
      result.then((value) => {
        end();
        resolve(value);
      }, fail);
    });
  }

  /** Error of a hook as its caller sees it; counts it unless it is a rejection by `authenticate`. */
  #fault(name: string, error: unknown): unknown {
    if (
      name === "authenticate" &&
      (error instanceof ErrUnauthenticated || error instanceof ErrForbidden)
    ) return error;
    if (!this.#ended.signal.aborted) this.#failed();
    return new ErrHookFailed(name, error);
  }

  /** Fails every hook that has not settled, as the server has stopped. */
  end(): void {
    this.#ended.abort(
      new Error("shutdown() ended the server before the hook returned"),
    );
  }
}

const PRINCIPAL_FORM =
  'answer with { id: "…" }, or with undefined, null or false for a request that is not authenticated';

/** Principal in a result of `authenticate`; undefined if the request is not authenticated. */
function identityOf(answer: unknown): Identity | undefined {
  // `ok && { id }` returns false.
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
      }, has a lone surrogate and could not be told apart from other such ids`,
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

/** Permission in a result of `authorize`. Only `true` permits: a truthy reason for a refusal must not. */
function permissionOf(answer: unknown): boolean {
  if (typeof answer === "boolean") return answer;
  throw new TypeError(
    `Answer is ${describe(answer)}; answer with true or false`,
  );
}

/** Permission in a result of the inspector's `authorize`; undefined without one. */
function inspectionOf(answer: unknown): InspectorPermission | undefined {
  if (answer === undefined || answer === null || answer === false) {
    return undefined;
  }
  const { clusters, commands, act } = (answer ?? {}) as InspectorPermission;
  const isList = Array.isArray(clusters) &&
    clusters.every((id) => typeof id === "bigint");
  if (clusters === "all" || isList) {
    return {
      clusters: clusters === "all" ? "all" : [...clusters],
      // Only `true` permits.
      commands: commands === true,
      act: act === true,
    };
  }
  throw new TypeError(
    `Answer is ${
      describe(answer)
    }; answer with { clusters: "all" } or { clusters: [1n] }, or with undefined, null or false to refuse`,
  );
}

/** Reason for a refusal in a result of `validate`; undefined if the command is accepted. */
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
