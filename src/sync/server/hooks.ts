/**
 * What the program that serves is asked: who somebody is, what they may do, and
 * whether a command is good. What it throws, or never answers, is its own fault,
 * and nobody's whose command it was asked about.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import { onAbort } from "../../nodehost/waiting.ts";
import { chain, isPromise, settleable } from "../../promises.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import { ErrForbidden, ErrHookFailed, ErrUnauthenticated } from "../errors.ts";
import type { Action, CoreOptions, Principal } from "./options.ts";

/** The hooks of one server, each bounded in time. */
export class Hooks {
  readonly #options: CoreOptions;
  readonly #env: Env;
  readonly #ms: number;
  readonly #failed: () => void;
  readonly #over = new AbortController();

  /** The hooks that are in `options`, each with `ms` milliseconds to answer; `failed` is told of each time that one did not. */
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
   * Whom `authenticate` finds; it may refuse by an error, too.
   *
   * @throws ErrHookFailed if it threw anything else, or did not answer in time
   */
  async authenticate(
    request: Request,
    anybody: Principal,
  ): Promise<Principal | undefined> {
    const { authenticate } = this.#options;
    if (authenticate === undefined) return anybody;
    // Null is what others than TypeScript's programs may say for nobody.
    return await this.#ask("authenticate", () => authenticate(request)) ??
      undefined;
  }

  /**
   * Whether somebody may do something, as `authorize` says; without it, all but
   * to upload.
   *
   * @throws ErrHookFailed if it threw, or did not answer in time
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
    );
  }

  /**
   * Why `validate` refuses a command, if it does.
   *
   * @throws ErrHookFailed if it threw, or did not answer in time
   */
  validate(
    principal: Principal,
    cmd: Uint8Array,
    clusterID: bigint,
  ): MaybePromise<string | undefined> {
    const { validate } = this.#options;
    if (validate === undefined) return undefined;
    return this.#ask("validate", () => {
      const reason = validate(principal, cmd, clusterID);
      return chain(settleable(reason), checked);
    });
  }

  #ask<T>(name: string, hook: () => MaybePromise<T>): MaybePromise<T> {
    let answer: MaybePromise<T>;
    try {
      answer = hook();
    } catch (error) {
      throw this.#judge(name, error);
    }
    const given = settleable(answer);
    return isPromise(given) ? this.#bounded(name, given) : given;
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
        // What it says too late, nobody hears.
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

  /** Nobody waits for an answer any more. */
  end(): void {
    this.#over.abort(new Error("Server has stopped"));
  }
}

/** What a refusal is for good depends on must not be a mistake. */
function checked(reason: unknown): string | undefined {
  if (reason === undefined || reason === null) return undefined;
  if (typeof reason === "string") return reason;
  throw new TypeError(`Reason is no text but ${typeof reason}`);
}
