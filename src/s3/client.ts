/**
 * Signed requests to one bucket of an S3 service, repeated where that may help.
 *
 * This module needs Deno.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { abortable, anySignal, Backoff, sleep, timeLimit } from "../async.ts";
import { AwsClient } from "../deps/aws4fetch.ts";
import { messageOf } from "../describe.ts";
import type { Env } from "../env.ts";
import {
  S3_ANSWER_BYTES_MAX,
  S3_ATTEMPTS_MAX,
  S3_REQUEST_MS_MAX,
  S3_RETRY_FIRST_MS,
  S3_RETRY_LAST_MS,
  S3_SLOW_MS_MAX,
} from "../limits.ts";
import { readResponseText } from "../response_text.ts";
import { answerError, noListError, unreachableError } from "./errors.ts";

/** Bucket of a service, with the credentials for it. */
export interface S3Bucket {
  /** Name of the bucket. */
  readonly bucket: string;
  /** URL of the service, such as `https://s3.eu-central-1.amazonaws.com`; the bucket is the first part of each path. */
  readonly endpoint: string;
  /** Region of the bucket. */
  readonly region: string;
  /** Id of the access key. */
  readonly accessKeyId: string;
  /** Secret of the access key. */
  readonly secretAccessKey: string;
  /** Token of temporary credentials. */
  readonly sessionToken: string | undefined;
}

/** Dependencies of an {@linkcode S3Client}. */
export interface S3ClientParts extends S3Bucket {
  readonly env: Env;
  /** Sends a signed request. */
  readonly fetch: (request: Request) => Promise<Response>;
  /** Ends all requests. */
  readonly signal: AbortSignal;
}

/** Request to a bucket. */
export interface S3Call {
  readonly method: "GET" | "PUT" | "POST" | "DELETE";
  /** Key of an object; the bucket itself by default. */
  readonly key?: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array<ArrayBuffer>;
  /** Names the request in messages. */
  readonly what: string;
}

/** Parsed listing of a bucket. */
export interface S3Listing {
  /** Keys of the objects. */
  readonly keys: readonly string[];
  /** Beginnings of keys up to the delimiter. */
  readonly prefixes: readonly string[];
}

/** Client of one bucket. */
export class S3Client {
  readonly #parts: S3ClientParts;
  readonly #base: string;
  readonly #signer: AwsClient;

  /** Creates a client; it connects with its first request. */
  constructor(parts: S3ClientParts) {
    const { endpoint, bucket, region, accessKeyId, secretAccessKey } = parts;
    this.#parts = parts;
    this.#base = `${endpoint.replace(/\/+$/, "")}/${bucket}`;
    this.#signer = new AwsClient({
      accessKeyId,
      secretAccessKey,
      region,
      service: "s3",
      ...(parts.sessionToken === undefined
        ? {}
        : { sessionToken: parts.sessionToken }),
    });
  }

  async #signed(
    { method, key, query = {}, headers, body }: S3Call,
    signal: AbortSignal,
  ): Promise<Request> {
    const url = new URL(
      key === undefined ? this.#base : `${this.#base}/${key}`,
    );
    for (const [name, value] of Object.entries(query)) {
      url.searchParams.set(name, value);
    }
    const hash = createHash("sha256").update(body ?? new Uint8Array(0))
      .digest("hex");
    return await this.#signer.sign(url.href, {
      method,
      headers: {
        ...headers,
        // The service refuses bytes that have changed on the way.
        "x-amz-content-sha256": hash,
      },
      ...(body === undefined ? {} : { body }),
      redirect: "manual",
      signal,
    });
  }

  /**
   * Sends a request; resolves to its response, whose body the caller reads or cancels,
   * or to undefined if there is no such object or upload.
   *
   * @throws ErrS3 if the service refuses it, or does not answer
   * @throws ErrStoreFull if the service has no room
   */
  async send(call: S3Call): Promise<Response | undefined> {
    const { env, signal } = this.#parts;
    const backoff = new Backoff(env, S3_RETRY_FIRST_MS, S3_RETRY_LAST_MS);
    for (let attempt = 1;; attempt++) {
      signal.throwIfAborted();
      let error: Error;
      let mayHelp = true;
      try {
        const response = await this.#attempt(call);
        const { status } = response;
        if (status >= 200 && status < 300) return response;
        const body = await this.#text(response);
        const code = /<Code>([^<]*)/.exec(body)?.[1];
        if (
          status === 404 && (code === "NoSuchKey" || code === "NoSuchUpload" ||
            code === undefined && call.key !== undefined)
        ) return undefined;
        error = answerError(call.what, status, body);
        mayHelp = status >= 500 && status !== 507 || status === 429 ||
          code === "RequestTimeout";
      } catch (cause) {
        signal.throwIfAborted();
        error = unreachableError(
          call.what,
          this.#parts.endpoint,
          cause,
          messageOf(cause),
        );
      }
      if (!mayHelp || attempt === S3_ATTEMPTS_MAX) throw error;
      await sleep(env, backoff.next(), signal);
    }
  }

  async #attempt(call: S3Call): Promise<Response> {
    const { env, fetch, signal } = this.#parts;
    const limit = timeLimit(env, S3_REQUEST_MS_MAX, "No answer");
    const either = anySignal(signal, limit.signal);
    try {
      const request = await this.#signed(call, signal);
      const answered = fetch(request);
      try {
        return await abortable(answered, either.signal);
      } catch (error) {
        // One that comes too late is not read.
        answered.then((late) => late.body?.cancel(), () => {}).catch(() => {});
        throw error;
      }
    } finally {
      either.release();
      limit.release();
    }
  }

  async #text(response: Response): Promise<string> {
    const { env } = this.#parts;
    const limit = timeLimit(env, S3_SLOW_MS_MAX, "Answer was not complete");
    try {
      const { text, isWhole } = await readResponseText(
        response,
        S3_ANSWER_BYTES_MAX,
        limit.signal,
      );
      return isWhole ? text : "";
    } finally {
      limit.release();
    }
  }

  /** Sends a request whose answer has no body that matters; false if there is no such object or upload. */
  async done(call: S3Call): Promise<boolean> {
    const response = await this.send(call);
    await response?.body?.cancel();
    return response !== undefined;
  }

  /** Sends a request; resolves to the text of its answer, undefined if there is no such object or upload. */
  async text(call: S3Call): Promise<string | undefined> {
    const response = await this.send(call);
    return response && await this.#text(response);
  }

  /**
   * Lists keys that begin with a prefix; with a delimiter, their beginnings up to it.
   *
   * @throws ErrS3 if the answer is no list, as that of a proxy or of another service
   */
  async list(prefix: string, delimiter?: string): Promise<S3Listing> {
    const keys: string[] = [];
    const prefixes: string[] = [];
    const what = "the list of snapshots";
    let token: string | undefined;
    do {
      const response = (await this.send({
        method: "GET",
        query: {
          "list-type": "2",
          prefix,
          ...(delimiter === undefined ? {} : { delimiter }),
          ...(token === undefined ? {} : { "continuation-token": token }),
        },
        what,
      }))!;
      const text = await this.#text(response);
      if (!/<ListBucketResult[\s/>]/.test(text)) {
        throw noListError(what, this.#parts.endpoint, response.status, text);
      }
      const valueOf = (part: string, name: string): string | undefined =>
        new RegExp(`<${name}>([^<]*)</${name}>`).exec(part)?.[1];
      for (const [, part] of text.matchAll(/<Contents>(.*?)<\/Contents>/gs)) {
        const key = valueOf(part!, "Key");
        if (key !== undefined) keys.push(key);
      }
      for (
        const [, part] of text.matchAll(
          /<CommonPrefixes>(.*?)<\/CommonPrefixes>/gs,
        )
      ) {
        const found = valueOf(part!, "Prefix");
        if (found !== undefined) prefixes.push(found);
      }
      token = valueOf(text, "IsTruncated") === "true"
        ? valueOf(text, "NextContinuationToken")?.replaceAll("&amp;", "&")
        : undefined;
    } while (token !== undefined);
    return { keys, prefixes };
  }
}
