/**
 * The files of the page as the server sends them: compressed once, with
 * validators, scripts under names that change with their content.
 *
 * This module needs Deno.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { bundle, type BundleOptions, ROOT, stopBundler } from "./bundle.ts";
import { guideFiles } from "./guide.ts";

/** A file, and how long a browser may keep it without asking. */
interface File {
  readonly content: Uint8Array;
  readonly type: string;
  /** True for a name that changes with the content. */
  readonly immutable: boolean;
  readonly headers?: Readonly<Record<string, string>>;
}

/** One file in one encoding. */
interface Variant {
  readonly body: Uint8Array<ArrayBuffer>;
  readonly etag: string;
}

const ENCODINGS = ["br", "gzip", "identity"] as const;
type Encoding = typeof ENCODINGS[number];

/** A file in every encoding a browser may ask for. */
class Served {
  readonly #file: File;
  readonly #variants: ReadonlyMap<Encoding, Variant>;

  constructor(file: File) {
    this.#file = file;
    const hash = hashOf(file.content);
    this.#variants = new Map(ENCODINGS.map((encoding) => [encoding, {
      body: encode(file.content, encoding),
      // Variants of one file are different representations.
      etag: `"${hash}-${encoding}"`,
    }]));
  }

  answer(request: Request): Response {
    const encoding = chosen(request.headers.get("accept-encoding") ?? "");
    const { body, etag } = this.#variants.get(encoding)!;
    const { type, immutable, headers } = this.#file;
    const all = new Headers({
      ...headers,
      "content-type": type,
      "cache-control": immutable
        ? "public, max-age=31536000, immutable"
        : "no-cache",
      etag,
      vary: "accept-encoding",
      "x-content-type-options": "nosniff",
    });
    if (isKnown(request.headers.get("if-none-match"), etag)) {
      return new Response(null, { status: 304, headers: all });
    }
    if (encoding !== "identity") all.set("content-encoding", encoding);
    all.set("content-length", String(body.length));
    return new Response(request.method === "HEAD" ? null : body, {
      headers: all,
    });
  }
}

function hashOf(content: Uint8Array): string {
  return createHash("sha256").update(content).digest("hex").slice(0, 16);
}

function encode(
  content: Uint8Array,
  encoding: Encoding,
): Uint8Array<ArrayBuffer> {
  switch (encoding) {
    case "br":
      return new Uint8Array(brotliCompressSync(content, {
        params: { [constants.BROTLI_PARAM_QUALITY]: 9 },
      }));
    case "gzip":
      return new Uint8Array(gzipSync(content, { level: 9 }));
    case "identity":
      return new Uint8Array(content);
  }
}

/** The best encoding of those a request accepts. */
function chosen(accepted: string): Encoding {
  const wanted = new Map(
    accepted.split(",").map((part) => {
      const [name, ...parameters] = part.trim().toLowerCase().split(";");
      const q = parameters.map((parameter) => /^\s*q=([\d.]+)$/.exec(parameter))
        .find((match) => match !== null);
      return [name!.trim(), q === undefined ? 1 : Number(q![1])] as const;
    }),
  );
  return ENCODINGS.find((encoding) => (wanted.get(encoding) ?? 0) > 0) ??
    "identity";
}

/** True if the browser has that very representation. */
function isKnown(header: string | null, etag: string): boolean {
  if (header === null) return false;
  return header.split(",").some((part) => {
    const known = part.trim();
    return known === "*" || known.replace(/^W\//, "") === etag;
  });
}

/** Policy of every page: nothing from elsewhere, and no script but its own. */
const POLICY: Readonly<Record<string, string>> = {
  "content-security-policy":
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:",
};

/** Cookie with the name of a device. Browsers keep a cookie that was set over HTTP when they clear what scripts have stored (U1). */
const DEVICE_COOKIE = "sampan-device";

/** The longest that browsers keep a cookie, in seconds: 400 days. */
const DEVICE_COOKIE_SECONDS = 34_560_000;

/** Gives a device that has no name one, which the script of the page reads. */
function nameDevice(request: Request, response: Response): Response {
  const cookies = request.headers.get("cookie") ?? "";
  if (cookies.split("; ").some((one) => one.startsWith(`${DEVICE_COOKIE}=`))) {
    return response;
  }
  const isSecure = new URL(request.url).protocol === "https:";
  response.headers.append(
    "set-cookie",
    `${DEVICE_COOKIE}=${crypto.randomUUID()}; Path=/; Max-Age=${DEVICE_COOKIE_SECONDS}; SameSite=Strict${
      isSecure ? "; Secure" : ""
    }`,
  );
  return response;
}

/** Answers requests for the files of a page. */
export type PageHandler = (request: Request) => Response;

/** Sends files under their paths; anything else is 404, any other method 405. */
export function servePage(files: ReadonlyMap<string, File>): PageHandler {
  const served = new Map(
    [...files].map(([path, file]) => [path, new Served(file)]),
  );
  return (request) => {
    const { pathname } = new URL(request.url);
    const file = served.get(pathname);
    if (file === undefined) {
      return new Response("There is nothing here\n", { status: 404 });
    }
    if (request.method !== "GET" && request.method !== "HEAD") {
      return new Response("Only GET and HEAD are allowed here\n", {
        status: 405,
        headers: { allow: "GET, HEAD" },
      });
    }
    const response = file.answer(request);
    return pathname === "/" ? nameDevice(request, response) : response;
  };
}

async function script(options: BundleOptions): Promise<string> {
  const { code } = await bundle(options);
  // No source map is served.
  return new TextDecoder().decode(code)
    .replace(/\n?\/\/# sourceMappingURL=\S+\s*$/, "\n");
}

/** The guides, under `/guide/`. */
async function guides(): Promise<[string, File][]> {
  return [...await guideFiles()].map(([name, { content, type }]) => [
    `/guide/${name}`,
    { content, type, immutable: false, headers: POLICY },
  ]);
}

/**
 * Bundles a page, whose HTML loads the script `app.js`, with a service worker
 * that keeps both; the bundler's process ends with it.
 */
export async function pageFiles(
  html: string,
  options: Omit<BundleOptions, "name">,
): Promise<ReadonlyMap<string, File>> {
  const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
  try {
    const app = bytes(await script({ ...options, name: "app" }));
    const worker = await script({
      name: "worker",
      text: 'import "./web/app/worker.ts";',
    });
    const name = `app-${hashOf(app)}.js`;
    const named = (text: string): Uint8Array =>
      bytes(text.replaceAll(/\bapp\.js\b/g, name));
    return new Map<string, File>([
      ["/", {
        content: named(html),
        type: "text/html; charset=utf-8",
        immutable: false,
        headers: POLICY,
      }],
      [`/${name}`, {
        content: app,
        type: "text/javascript; charset=utf-8",
        immutable: true,
      }],
      // A browser finds a new service worker under the old name only.
      ["/worker.js", {
        content: named(worker),
        type: "text/javascript; charset=utf-8",
        immutable: false,
      }],
    ]);
  } finally {
    await stopBundler();
  }
}

/** Bundles the demo page, and renders the guides beside it. */
export async function demoFiles(): Promise<ReadonlyMap<string, File>> {
  const html = await Deno.readTextFile(new URL("web/app/index.html", ROOT));
  const page = await pageFiles(html, { text: 'import "./web/app/app.ts";' });
  return new Map([...page, ...await guides()]);
}
