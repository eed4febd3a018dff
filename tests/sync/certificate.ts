/**
 * Certificate for `localhost`, generated for each test: no key is stored.
 *
 * @module
 */

/** Self-signed certificate and its key, as PEM text. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** DER element: tag, length and content. */
function der(tag: number, ...parts: (Uint8Array | number[])[]): Uint8Array {
  const body = parts.flatMap((part) => [...part]);
  const size = body.length;
  const length = size < 128
    ? [size]
    : size < 256
    ? [0x81, size]
    : [0x82, size >> 8, size & 255];
  return new Uint8Array([tag, ...length, ...body]);
}

function ascii(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** DER integer: without leading zeros, and not negative. */
function integer(bytes: Uint8Array): Uint8Array {
  let from = 0;
  while (from < bytes.length - 1 && bytes[from] === 0) from++;
  const rest = bytes.subarray(from);
  return der(0x02, rest[0]! > 127 ? [0] : [], rest);
}

function time(date: Date): Uint8Array {
  const digits = date.toISOString().replace(/[-:T]|\..*/g, "");
  return der(0x18, ascii(`${digits}Z`));
}

function pem(label: string, bytes: Uint8Array): string {
  const lines = bytes.toBase64().match(/.{1,64}/g)!.join("\n");
  return `-----BEGIN ${label}-----\n${lines}\n-----END ${label}-----\n`;
}

/** ECDSA with SHA-256. */
const ALGORITHM = der(
  0x30,
  der(0x06, [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]),
);

/** Name `localhost`, of the subject and of the issuer. */
const NAME = der(
  0x30,
  der(
    0x31,
    der(0x30, der(0x06, [0x55, 0x04, 0x03]), der(0x0c, ascii("localhost"))),
  ),
);

/** Subject alternative names, which clients check. */
const EXTENSIONS = der(
  0xa3,
  der(
    0x30,
    der(
      0x30,
      der(0x06, [0x55, 0x1d, 0x11]),
      der(0x04, der(0x30, der(0x82, ascii("localhost")))),
    ),
  ),
);

/** Generates a certificate that is valid for an hour. */
export async function makeCertificate(): Promise<Certificate> {
  const keys = await crypto.subtle.generateKey(
    { name: "ECDSA", namedCurve: "P-256" },
    true,
    ["sign", "verify"],
  );
  const now = Date.now();
  const content = der(
    0x30,
    der(0xa0, der(0x02, [2])),
    integer(crypto.getRandomValues(new Uint8Array(8))),
    ALGORITHM,
    NAME,
    der(
      0x30,
      time(new Date(now - 3_600_000)),
      time(new Date(now + 3_600_000)),
    ),
    NAME,
    new Uint8Array(await crypto.subtle.exportKey("spki", keys.publicKey)),
    EXTENSIONS,
  );
  const signed = new Uint8Array(
    await crypto.subtle.sign(
      { name: "ECDSA", hash: "SHA-256" },
      keys.privateKey,
      content as Uint8Array<ArrayBuffer>,
    ),
  );
  const signature = der(
    0x30,
    integer(signed.subarray(0, 32)),
    integer(signed.subarray(32)),
  );
  const cert = der(0x30, content, ALGORITHM, der(0x03, [0], signature));
  const key = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
  return {
    cert: pem("CERTIFICATE", cert),
    key: pem("PRIVATE KEY", new Uint8Array(key)),
  };
}
