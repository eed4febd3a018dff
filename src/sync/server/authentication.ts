/**
 * Authentication of one connection, from its handshake to its last token.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { onAbort, type Resolvers, withResolvers } from "../../async.ts";
import { ErrUnauthenticated } from "../errors.ts";
import { CloseCode } from "../transport.ts";
import type { ServerContext } from "./context.ts";
import {
  authenticate,
  type ConnectedPrincipal,
  type UpgradeRequest,
  Violation,
} from "./handshake.ts";
import { TokenRenewal } from "./token_renewal.ts";

/** Operations of a connection that its authentication uses. */
export interface AuthenticatedConnection {
  /** True once the connection is closed. */
  readonly isClosed: boolean;
  /** Closes the connection with a `CloseCode` and a reason. */
  close(code: number, reason: string): void;
  /** Asks the client for a new token within a time in milliseconds. */
  requestToken(withinMs: number): void;
  /** Called when the principal was revoked and another token may come: messages of either end wait. */
  suspended(): void;
  /** Called when another token was accepted: messages continue. */
  resumed(): void;
  /** Called when a token was rejected while the principal is still valid. */
  tokenRejected(error: unknown): void;
}

const REVOKED = "Token has expired or was revoked";

/** Principal of a connection and its validity. */
export class Authentication {
  readonly #server: Pick<ServerContext, "env" | "hooks" | "limits" | "quotas">;
  readonly #upgrade: UpgradeRequest;
  readonly #connection: AuthenticatedConnection;
  #state: "valid" | "suspended" | "revoked" = "valid";
  #principal: ConnectedPrincipal | undefined;
  /** Ends the listener for revocation and releases the quota of the principal. */
  #release: (() => void) | undefined;
  #renewal: TokenRenewal | undefined;
  #isRenewing = false;
  /** Newest token that was not passed to `authenticate` yet. */
  #nextToken: { readonly token: string | undefined } | undefined;
  /** Settled when the validity changes or the connection ends. */
  #changed: Resolvers<void> | undefined;

  /** Creates the authentication of a connection that began with `upgrade`. */
  constructor(
    server: Pick<ServerContext, "env" | "hooks" | "limits" | "quotas">,
    upgrade: UpgradeRequest,
    connection: AuthenticatedConnection,
  ) {
    this.#server = server;
    this.#upgrade = upgrade;
    this.#connection = connection;
  }

  /** Principal of the client; undefined before the handshake is complete. */
  get principal(): ConnectedPrincipal | undefined {
    return this.#principal;
  }

  /** True while messages wait for another token. */
  get isSuspended(): boolean {
    return this.#state === "suspended";
  }

  /** True while the principal may send and receive. */
  get isValid(): boolean {
    return this.#state === "valid" && !this.#principal?.signal?.aborted;
  }

  /**
   * Checks that the principal is valid.
   *
   * @throws ErrUnauthenticated if it is not
   */
  assertValid(): void {
    if (!this.isValid) throw new ErrUnauthenticated(REVOKED);
  }

  /**
   * Resolves once the principal is valid.
   *
   * @throws ErrUnauthenticated if the connection ends before
   */
  async untilValid(): Promise<void> {
    while (!this.isValid) {
      if (this.#connection.isClosed) throw new ErrUnauthenticated(REVOKED);
      this.#changed ??= withResolvers<void>();
      await this.#changed.promise;
    }
  }

  /**
   * Authenticates the client with its first token; undefined if the connection
   * has ended.
   *
   * @throws Violation if the client is not authenticated
   */
  async begin(
    token: string | undefined,
  ): Promise<ConnectedPrincipal | undefined> {
    const principal = await authenticate(
      this.#server,
      this.#upgrade,
      token,
    );
    if (this.#connection.isClosed || !this.#admit(principal)) return undefined;
    return principal;
  }

  /** Watches the validity of the principal from now on; `isRenewable` if the client can send new tokens. */
  start(isRenewable: boolean): void {
    this.#renewal = new TokenRenewal({
      env: this.#server.env,
      request: isRenewable
        ? (withinMs) => this.#connection.requestToken(withinMs)
        : undefined,
      expired: () => this.#revoke(),
    });
    this.#renewal.start(this.#principal!.validMs);
  }

  /** Counts the connection for a principal, in place of the one before; false if the connection has ended. */
  #admit(principal: ConnectedPrincipal): boolean {
    this.#release?.();
    this.#release = undefined;
    const release = this.#server.quotas.takeConnection(principal);
    if (release === undefined) {
      const { principalConnections } = this.#server.limits;
      this.#connection.close(
        CloseCode.TooMany,
        `You have ${principalConnections} connections already`,
      );
      return false;
    }
    let ignore: () => void;
    try {
      ignore = onAbort(principal.signal, () => this.#invalidated());
    } catch (error) {
      // A signal that is not the platform's own may throw.
      release();
      throw error;
    }
    if (this.#connection.isClosed) {
      ignore();
      release();
      return false;
    }
    this.#release = (): void => {
      ignore();
      release();
    };
    this.#principal = principal;
    return true;
  }

  #revoke(): void {
    this.#state = "revoked";
    this.#connection.close(CloseCode.Unauthenticated, REVOKED);
  }

  /** The signal of the principal has aborted. */
  #invalidated(): void {
    if (this.#connection.isClosed || this.#renewal?.isSupported !== true) {
      return this.#revoke();
    }
    this.#state = "suspended";
    this.#connection.suspended();
    this.#renewal.expireSoon();
  }

  /**
   * Replaces the token. Tokens are authenticated one at a time, and only the newest
   * counts.
   *
   * @throws Violation if the connection must end with this token
   */
  async renew(token: string | undefined): Promise<void> {
    if (this.#renewal === undefined) return;
    this.#nextToken = { token };
    if (this.#isRenewing) return;
    this.#isRenewing = true;
    try {
      while (this.#nextToken !== undefined && !this.#connection.isClosed) {
        const { token } = this.#nextToken;
        this.#nextToken = undefined;
        await this.#renewWith(token);
      }
    } finally {
      this.#isRenewing = false;
    }
  }

  async #renewWith(token: string | undefined): Promise<void> {
    const connection = this.#connection;
    let principal: ConnectedPrincipal;
    try {
      principal = await authenticate(this.#server, this.#upgrade, token);
    } catch (error) {
      if (connection.isClosed || this.#nextToken !== undefined) return;
      // While the token before is valid, another one is requested.
      const isRejected = error instanceof Violation &&
        error.code !== CloseCode.GoingAway;
      if (isRejected && this.isSuspended) throw error;
      return connection.tokenRejected(error);
    }
    if (connection.isClosed) return;
    if (principal.id !== this.#principal!.id) {
      throw new Violation(
        CloseCode.Unauthenticated,
        "Token belongs to another principal; open a connection with it",
      );
    }
    // A signal that has aborted suspends the connection within this call.
    if (!this.#admit(principal) || principal.signal?.aborted) return;
    this.#state = "valid";
    this.#renewal!.start(principal.validMs);
    this.#wake();
    connection.resumed();
  }

  #wake(): void {
    this.#changed?.resolve();
    this.#changed = undefined;
  }

  /** Ends with the connection. */
  end(): void {
    this.#renewal?.stop();
    this.#wake();
    this.#release?.();
    this.#release = undefined;
  }
}
