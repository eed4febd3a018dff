/**
 * Check of a TLS handshake: tells certificates that are refused from a node that is down.
 *
 * This module needs Deno.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { connect } from "node:tls";
import { toUint8Array } from "../bytes.ts";
import type { Env } from "../env.ts";

/** Certificates of a connection over TLS, in PEM. */
export interface EtcdTLS {
  /** Certificate authorities that may have signed the certificates of etcd; those of the system without it. */
  readonly ca?: string | Uint8Array | undefined;
  /** Certificate of this client, if etcd asks for one. */
  readonly cert?: string | Uint8Array | undefined;
  /** Private key of `cert`. */
  readonly key?: string | Uint8Array | undefined;
}

/** Converts a PEM text or its bytes; null without one. */
export function pemBuffer(
  value: string | Uint8Array | undefined,
): Buffer | null {
  return value === undefined ? null : Buffer.from(toUint8Array(value, "PEM"));
}

/** Errors of OpenSSL and rustls about certificates, and alerts of the other end, which only a live node sends. */
const CERTIFICATE =
  /certificate|\bCERT_|UnknownIssuer|NotValidForName|received fatal alert/i;

/** True if a text of a TLS error is about a certificate, not about a connection that was lost. */
export function isCertificateText(text: string): boolean {
  return CERTIFICATE.test(text);
}

/**
 * Opens a TLS connection, sends nothing on it, and returns the error if a certificate is refused,
 * undefined if none is, or the node does not answer within `ms` milliseconds.
 *
 * In TLS 1.3 a node refuses the certificate of a client after that client has ended its
 * handshake. A client that has written by then often sees its own write fail, and never
 * reads the alert with the reason. One that only reads always gets the alert, or the first
 * bytes of HTTP/2 if the certificate is accepted.
 */
export function findTLSRefusal(
  target: string,
  tls: EtcdTLS,
  env: Env,
  ms: number,
): Promise<Error | undefined> {
  return new Promise((resolve) => {
    const { hostname, port } = new URL(`https://${target}`);
    const { ca, cert, key } = tls;
    const socket = connect({
      host: hostname,
      port: Number(port || "443"),
      ALPNProtocols: ["h2"],
      ...(ca === undefined ? {} : { ca: pemBuffer(ca)! }),
      ...(cert === undefined ? {} : { cert: pemBuffer(cert)! }),
      ...(key === undefined ? {} : { key: pemBuffer(key)! }),
    });
    let refusal: Error | undefined;
    const cancel = env.setTimer(() => socket.destroy(), ms);
    socket.on("data", () => socket.destroy());
    socket.on("error", (error: Error & { code?: string }) => {
      if (isCertificateText(`${error.code} ${error.message}`)) refusal = error;
    });
    socket.on("end", () => socket.destroy());
    socket.on("close", () => {
      cancel();
      resolve(refusal);
    });
  });
}
