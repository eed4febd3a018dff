/**
 * Errors of the snapshot store on S3.
 *
 * This module needs Deno.
 *
 * @module
 */

import { clipText } from "../bytes.ts";
import { SampanError } from "../statemachine/errors.ts";
import { ErrStoreFull } from "../store/errors.ts";

/**
 * Thrown when an S3 service refuses a request, or does not answer. The message says
 * what to do. What was written before is kept, and the snapshot that was being written
 * is not listed.
 */
export class ErrS3 extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrS3";
  /** Code of the service, such as `NoSuchBucket`; `Unreachable` if there was no answer. */
  readonly code: string;
  /** HTTP status, 0 if there was no answer. */
  readonly status: number;
  /** Creates an error for an answer, or for none. */
  constructor(
    code: string,
    status: number,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.code = code;
    this.status = status;
  }
}

/** Advice for the codes that a setup leads to. */
const ADVICE: readonly (readonly [codes: RegExp, advice: string])[] = [
  [
    /^(InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|ExpiredToken|AuthorizationHeaderMalformed|InvalidArgument)$/,
    "check accessKeyId, secretAccessKey, sessionToken and region",
  ],
  [
    /^(AccessDenied|Forbidden|AllAccessDisabled|AccountProblem)$/,
    "check the credentials, and allow them s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on its objects",
  ],
  [/^NoSuchBucket$/, "create the bucket, or correct its name"],
  [
    /^(RequestTimeTooSkewed|RequestExpired)$/,
    "set the clock of this machine: it differs from that of the service by more than it accepts",
  ],
  [
    /^(PermanentRedirect|TemporaryRedirect|IllegalLocationConstraintException|MovedPermanently)$/,
    "correct endpoint and region: the bucket is elsewhere",
  ],
  [
    /^(SlowDown|ServiceUnavailable|InternalError|RequestTimeout|Throttling)/,
    "the service is overloaded or failing; the next snapshot is tried again",
  ],
];

/** Codes of services that have no room. */
const FULL = /StorageFull|QuotaExceeded|InsufficientStorage|StorageLimit/;

/** Error for an answer of a service to a request for `what`. */
export function answerError(
  what: string,
  status: number,
  body: string,
): Error {
  const part = (name: string): string | undefined =>
    new RegExp(`<${name}>([^<]{1,300})`).exec(body)?.[1];
  const code = part("Code") ??
    (status === 403
      ? "Forbidden"
      : status >= 300 && status < 400
      ? "MovedPermanently"
      : `${status}`);
  const text = `S3 refused ${what} with status ${status}, ${code}${
    part("Message") === undefined ? "" : `: ${part("Message")}`
  }`;
  if (status === 507 || FULL.test(code)) {
    return new ErrStoreFull(`${text}; make room in the bucket`);
  }
  const advice = ADVICE.find(([codes]) => codes.test(code))?.[1] ??
    "see the documentation of the service for the code";
  return new ErrS3(code, status, `${text}; ${advice}`);
}

/** Error for an answer to a request for `what` that is not the list that it should be. */
export function noListError(
  what: string,
  endpoint: string,
  status: number,
  body: string,
): ErrS3 {
  return new ErrS3(
    "NoList",
    status,
    `S3 at ${endpoint} answered a request for ${what} with status ${status} and no list, but "${
      clipText(body.trim(), 100)
    }"; check that endpoint is an S3 service, and no proxy or page`,
  );
}

/** Error for a request for `what` to which there was no answer. */
export function unreachableError(
  what: string,
  endpoint: string,
  cause: unknown,
  reason: string,
): ErrS3 {
  return new ErrS3(
    "Unreachable",
    0,
    `S3 at ${endpoint} did not answer a request for ${what}: ${reason}; check endpoint, and the network and the certificate of the service`,
    { cause },
  );
}
