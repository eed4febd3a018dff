/**
 * Connection to one etcd node.
 *
 * This module needs Deno.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import {
  type ChannelCredentials,
  Client,
  type ClientDuplexStream,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from "../deps/grpc_js.ts";
import { ErrStoreFull } from "../store/errors.ts";
import { ErrEtcdAccess, ErrEtcdUnavailable } from "./errors.ts";
import { type EtcdTLS, isCertificateText, pemBuffer } from "./tls_refusal.ts";

/** Address of an etcd node. */
export interface Endpoint {
  /** URL as the application gave it, without a path. */
  readonly url: string;
  /** Host and port. */
  readonly target: string;
  /** True if the connection uses TLS. */
  readonly isSecure: boolean;
}

/**
 * Parses the URL of an etcd node.
 *
 * @throws TypeError if it is not an http or https URL with a host
 */
export function parseEndpoint(url: string): Endpoint {
  const wrong = new TypeError(
    `Endpoint is ${url}; give a URL like "http://127.0.0.1:2379", or https for TLS`,
  );
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    throw wrong;
  }
  const { protocol, hostname, port } = parsed;
  if (!/^https?:$/.test(protocol) || hostname === "") throw wrong;
  const isSecure = protocol === "https:";
  if (isSecure && /^[\d.]+$|^\[/.test(hostname)) {
    throw new TypeError(
      `Endpoint is ${url}, with an address; give the host name of the node that its certificate holds`,
    );
  }
  return {
    url: parsed.origin,
    target: `${hostname}:${port || "2379"}`,
    isSecure,
  };
}

/** Codes of answers that a repetition does not change. */
const FINAL: ReadonlySet<number> = new Set([
  status.INVALID_ARGUMENT,
  status.NOT_FOUND,
  status.ALREADY_EXISTS,
  status.PERMISSION_DENIED,
  status.RESOURCE_EXHAUSTED,
  status.FAILED_PRECONDITION,
  status.OUT_OF_RANGE,
  status.UNIMPLEMENTED,
]);

/** Failure of one attempt of a call. */
export class CallError extends Error {
  /** Code of gRPC. */
  readonly code: number;
  /** Text of etcd or of the connection. */
  readonly details: string;

  /** Creates an error from that of gRPC. */
  constructor(endpoint: Endpoint, { code, details }: ServiceError) {
    super(`etcd at ${endpoint.url}: ${details}`);
    this.code = code;
    this.details = details;
  }

  /** True if the token is unknown or too old: the call succeeds with a new one. */
  get isTokenExpired(): boolean {
    return this.code === status.UNAUTHENTICATED ||
      this.details.includes("revision in header is old");
  }

  /** True if the request was refused, and repeating it does not help. */
  get isFinal(): boolean {
    return FINAL.has(this.code) || this.isCertificate;
  }

  /** True if etcd is out of space. */
  get isFull(): boolean {
    return this.code === status.RESOURCE_EXHAUSTED &&
      this.details.includes("space exceeded");
  }

  /** True if the request is larger than etcd accepts. */
  get isTooLarge(): boolean {
    return /request is too large|message larger than max/.test(this.details);
  }

  /** True if the requested revision was compacted. */
  get isCompacted(): boolean {
    return this.code === status.OUT_OF_RANGE &&
      this.details.includes("compacted");
  }

  /** True if the connection was refused or lost: no node has answered. */
  get isLost(): boolean {
    return this.code === status.UNAVAILABLE && !this.isCertificate;
  }

  /** True if the error says that the certificate of one end is not accepted by the other. */
  get isCertificate(): boolean {
    return this.code === status.UNAVAILABLE &&
      isCertificateText(this.details);
  }

  /** Error for the application. */
  toError(): Error {
    const { message } = this;
    const options = { cause: this };
    if (this.isFull) {
      return new ErrStoreFull(
        `${message}; nothing was appended. Raise the quota of etcd, or compact and defragment it, then disarm its alarm`,
        options,
      );
    }
    if (this.isCertificate) return certificateError(message, this);
    if (
      this.code === status.PERMISSION_DENIED ||
      this.code === status.UNAUTHENTICATED ||
      /authentication failed|user name is empty|user name not found/.test(
        this.details,
      )
    ) {
      return new ErrEtcdAccess(
        `${message}; check user and password, and the role of the user`,
        options,
      );
    }
    return new ErrEtcdUnavailable(message, options);
  }
}

/** Error for certificates that are not accepted. */
export function certificateError(
  message: string,
  cause: Error,
): ErrEtcdAccess {
  return new ErrEtcdAccess(
    `${message}; check ca, cert and key of the option tls`,
    { cause },
  );
}

const serialize = (value: Uint8Array): Buffer =>
  Buffer.from(value.buffer, value.byteOffset, value.byteLength);
/** Response as plain bytes: `slice()` of a Buffer makes no copy, and machines get views of it. */
const deserialize = (value: Buffer): Uint8Array =>
  new Uint8Array(value.buffer, value.byteOffset, value.byteLength);

/** Stream of watches on one connection. */
export interface WatchStream {
  /** Sends a request. */
  send(request: Uint8Array): void;
  /** Ends the stream. */
  close(): void;
}

/** Connection to one etcd node, which is never reopened. */
export class Connection {
  readonly endpoint: Endpoint;
  readonly #client: Client;
  /** Calls under way. */
  readonly #calls = new Set<{ cancel(): void }>();
  #metadata = new Metadata();

  /** Creates a connection, which opens with the first call. */
  constructor(endpoint: Endpoint, tls: EtcdTLS) {
    this.endpoint = endpoint;
    this.#client = new Client(endpoint.target, secure(endpoint, tls), {
      "grpc.max_receive_message_length": -1,
      "grpc.max_send_message_length": -1,
      "grpc.enable_retries": 0,
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 1_000,
      // Closing this connection must not touch another one to the same node.
      "grpc.use_local_subchannel_pool": 1,
      "grpc.service_config_disable_resolution": 1,
    });
  }

  /** Sets the token that is sent with each call. */
  set token(token: string) {
    this.#metadata = new Metadata();
    this.#metadata.set("token", token);
  }

  /**
   * Makes one attempt of a call.
   *
   * @throws CallError if it fails, or has no answer after `ms` milliseconds
   */
  call(method: string, request: Uint8Array, ms: number): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        method,
        serialize,
        deserialize,
        request,
        this.#metadata,
        { deadline: Date.now() + ms },
        (error, value) => {
          this.#calls.delete(call);
          if (error === null) resolve(value!);
          else reject(new CallError(this.endpoint, error));
        },
      );
      this.#calls.add(call);
    });
  }

  /**
   * Makes one request on a stream and returns its first response.
   *
   * @throws CallError if it fails, or has no answer after `ms` milliseconds
   */
  exchange(
    method: string,
    request: Uint8Array,
    ms: number,
  ): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const stream: ClientDuplexStream<Uint8Array, Uint8Array> = this.#client
        .makeBidiStreamRequest(
          method,
          serialize,
          deserialize,
          this.#metadata,
          { deadline: Date.now() + ms },
        );
      this.#calls.add(stream);
      stream.on("data", (message: Uint8Array) => {
        resolve(message);
        stream.cancel();
      });
      // After the response it says that the stream was cancelled.
      stream.on("error", (error: ServiceError) => {
        this.#calls.delete(stream);
        reject(new CallError(this.endpoint, error));
      });
      stream.write(request);
    });
  }

  /** Opens a stream of watches, which ends if the node has no leader. */
  watch(
    method: string,
    received: (message: Uint8Array) => void,
    ended: (error: CallError) => void,
  ): WatchStream {
    const metadata = this.#metadata.clone();
    metadata.set("hasleader", "true");
    const stream: ClientDuplexStream<Uint8Array, Uint8Array> = this.#client
      .makeBidiStreamRequest(method, serialize, deserialize, metadata);
    let isClosed = false;
    const end = (error: ServiceError): void => {
      if (isClosed) return;
      isClosed = true;
      ended(new CallError(this.endpoint, error));
    };
    stream.on("data", (message: Uint8Array) => {
      if (!isClosed) received(message);
    });
    stream.on("error", end);
    stream.on("end", () =>
      end(
        { code: status.UNAVAILABLE, details: "Watch ended" } as ServiceError,
      ));
    return {
      send: (request) => {
        stream.write(request);
      },
      close: () => {
        isClosed = true;
        stream.cancel();
      },
    };
  }

  /** Closes the connection; its calls fail. */
  close(): void {
    // Otherwise calls to a node that is frozen would wait for their deadline.
    for (const call of [...this.#calls]) call.cancel();
    this.#client.close();
  }
}

function secure({ isSecure }: Endpoint, tls: EtcdTLS): ChannelCredentials {
  return isSecure
    ? credentials.createSsl(
      pemBuffer(tls.ca),
      pemBuffer(tls.key),
      pemBuffer(tls.cert),
    )
    : credentials.createInsecure();
}
