/**
 * Tokens of the principals in a simulation, and the server's hook that checks
 * them.
 *
 * @module
 */

/** Number of the token that a principal holds, and of the oldest that is valid. */
interface TokenState {
  held: number;
  good: number;
}

/** Tokens of all principals; each is the principal's name and a number. */
export class Tokens {
  readonly #tokens = new Map<string, TokenState>();
  readonly #signals = new Map<string, AbortController>();

  #of(owner: string): TokenState {
    let token = this.#tokens.get(owner);
    if (token === undefined) {
      this.#tokens.set(owner, token = { held: 1, good: 1 });
    }
    return token;
  }

  /** Token that a principal sends. */
  held(owner: string): string {
    return `${owner} ${this.#of(owner).held}`;
  }

  /** Principal of a request, undefined if its token has expired. */
  authenticate(
    request: Request,
  ): { id: string; signal: AbortSignal } | undefined {
    const [, owner, number] = /^Bearer (.*) (\d+)$/.exec(
      request.headers.get("authorization") ?? "",
    )!;
    if (Number(number) < this.#of(owner!).good) return undefined;
    let controller = this.#signals.get(owner!);
    if (controller === undefined || controller.signal.aborted) {
      this.#signals.set(owner!, controller = new AbortController());
    }
    return { id: owner!, signal: controller.signal };
  }

  /** Has the token that a principal holds expire. */
  expire(owner: string): void {
    const token = this.#of(owner);
    token.good = token.held + 1;
    this.#signals.get(owner)?.abort();
  }

  /** Gives a principal a valid token; true if it had none. */
  renew(owner: string): boolean {
    const token = this.#of(owner);
    if (token.held >= token.good) return false;
    token.held = token.good;
    return true;
  }
}
