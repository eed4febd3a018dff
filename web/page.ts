/**
 * Static files of a page: compressed once, with ETags, and scripts under names that
 * contain their hash.
 *
 * This module needs Deno.
 *
 * @module
 */

import type { Plugin } from "esbuild";
import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import {
  bundle,
  bundleWithChunks,
  type BundleWithChunksOptions,
  minifyStyle,
  ROOT,
  stopBundler,
} from "./bundle.ts";
import { guideFiles } from "./guide.ts";
import { bundlePlayground } from "./playground.ts";
import { shrink } from "./shrink.ts";

/** Static file. */
interface File {
  readonly content: Uint8Array;
  readonly type: string;
  /** True if the name changes with the content, so that caches need not revalidate it. */
  readonly immutable: boolean;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Content of a file in one encoding. */
interface Variant {
  readonly body: Uint8Array<ArrayBuffer>;
  readonly etag: string;
}

const ENCODINGS = ["br", "gzip", "identity"] as const;
type Encoding = typeof ENCODINGS[number];

/** Static file in the encodings that browsers request, each encoded at its first request. */
class ServedFile {
  readonly #file: File;
  readonly #hash: string;
  readonly #variants = new Map<Encoding, Variant>();

  constructor(file: File) {
    this.#file = file;
    // Browsers keep the headers of an answer that has not changed.
    const headers = new TextEncoder().encode(JSON.stringify(file.headers));
    this.#hash = hashOf(headers, file.content);
  }

  #variant(encoding: Encoding): Variant {
    const known = this.#variants.get(encoding);
    if (known !== undefined) return known;
    const variant = {
      body: encode(this.#file.content, encoding),
      // Variants of one file are different representations.
      etag: `"${this.#hash}-${encoding}"`,
    };
    this.#variants.set(encoding, variant);
    return variant;
  }

  answer(request: Request): Response {
    const encoding = bestEncoding(request.headers.get("accept-encoding") ?? "");
    const { body, etag } = this.#variant(encoding);
    const { type, immutable, headers } = this.#file;
    const caching = {
      "cache-control": immutable
        ? "public, max-age=31536000, immutable"
        : headers?.["cache-control"] ?? "no-cache",
      // What never changes need not be asked about.
      ...(immutable ? {} : { etag }),
      vary: "accept-encoding",
    };
    if (
      !immutable && matches(request.headers.get("if-none-match"), etag)
    ) {
      return new Response(null, { status: 304, headers: caching });
    }
    const all = new Headers({
      ...headers,
      ...caching,
      "content-type": type,
      "x-content-type-options": "nosniff",
    });
    if (encoding !== "identity") all.set("content-encoding", encoding);
    all.set("content-length", String(body.length));
    return new Response(request.method === "HEAD" ? null : body, {
      headers: all,
    });
  }
}

function hashOf(...parts: readonly Uint8Array[]): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex").slice(0, 12);
}

function encode(
  content: Uint8Array,
  encoding: Encoding,
): Uint8Array<ArrayBuffer> {
  switch (encoding) {
    case "br":
      return new Uint8Array(brotliCompressSync(content, {
        params: { [constants.BROTLI_PARAM_QUALITY]: 11 },
      }));
    case "gzip":
      return new Uint8Array(gzipSync(content, { level: 9 }));
    case "identity":
      return new Uint8Array(content);
  }
}

/** Best encoding that a request accepts. */
function bestEncoding(accepted: string): Encoding {
  const weights = new Map(
    accepted.split(",").map((part) => {
      const [name, ...parameters] = part.trim().toLowerCase().split(";");
      const q = parameters.map((parameter) => /^\s*q=([\d.]+)$/.exec(parameter))
        .find((match) => match !== null);
      return [name!.trim(), q === undefined ? 1 : Number(q![1])] as const;
    }),
  );
  return ENCODINGS.find((encoding) => (weights.get(encoding) ?? 0) > 0) ??
    "identity";
}

/** True if an `If-None-Match` header matches an ETag. */
function matches(header: string | null, etag: string): boolean {
  if (header === null) return false;
  return header.split(",").some((part) => {
    const known = part.trim();
    return known === "*" || known.replace(/^W\//, "") === etag;
  });
}

/** Content security policy of every page: resources and scripts of its own origin only. */
const POLICY: Readonly<Record<string, string>> = {
  "content-security-policy":
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:",
};

/** Content security policy of a page that may also connect to servers of other origins. */
function policyWith(
  peers: readonly string[],
): Readonly<Record<string, string>> {
  if (peers.length === 0) return POLICY;
  // Over HTTP the client asks why a WebSocket failed.
  const all = peers.flatMap((peer) => [peer, peer.replace(/^http/, "ws")]);
  return {
    "content-security-policy": `${
      POLICY["content-security-policy"]
    }; connect-src 'self' ${all.join(" ")}`,
  };
}

/** Cookie with the name of a device. Browsers keep a cookie that was set over HTTP when they clear what scripts have stored (U1). */
const DEVICE_COOKIE = "sampan-device";

/** Longest lifetime of a cookie in browsers, in seconds: 400 days. */
const DEVICE_COOKIE_SECONDS = 34_560_000;

/** Sets the device cookie of a browser that has none; the script of the page reads it. */
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

/** Handler of requests for the files of a page. */
export type PageHandler = (request: Request) => Response;

/** Creates a handler that serves files by path; other paths get 404, other methods 405. */
export function servePage(files: ReadonlyMap<string, File>): PageHandler {
  const served = new Map(
    [...files].map(([path, file]) => [path, new ServedFile(file)]),
  );
  return (request) => {
    const { pathname } = new URL(request.url);
    const file = served.get(pathname);
    if (file === undefined) {
      return new Response("Not found\n", { status: 404 });
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

/** Text of a script; its source map is not served. */
function withoutMap(code: Uint8Array): string {
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

/** HTML that names the other servers on the same log, for the script of the page. */
function withPeers(html: string, peers: readonly string[]): string {
  return peers.length === 0 ? html : html.replace(
    "</head>",
    `<meta name="servers" content="${peers.join(" ")}"></head>`,
  );
}

/**
 * Bundles a page, whose HTML loads the script `app.js`, and a service worker that
 * caches both, and what the script loads later. `minify` makes the bundled script
 * smaller; `peers` are the origins of other servers on the same log. Stops the
 * bundler's process afterwards.
 */
export async function pageFiles(
  html: string,
  options: Omit<BundleWithChunksOptions, "name" | "included">,
  peers: readonly string[] = [],
): Promise<ReadonlyMap<string, File>> {
  const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
  try {
    const name = "app";
    const { code, chunks } = await bundleWithChunks({ ...options, name });
    // The script is most of a first visit.
    const smaller = async (
      code: Uint8Array,
      name: string,
    ): Promise<string> =>
      withoutMap(
        options.minify === false
          ? code
          : (await shrink({ code }, { name, passes: 3 })).code,
      );
    const app = bytes(await smaller(code, name));
    const worker = await bundle({
      name: "worker",
      text: 'import "./web/app/worker.ts";',
    });
    const script = `app-${hashOf(app)}.js`;
    const named = (text: string): Uint8Array =>
      bytes(text.replaceAll(/\bapp\.js\b/g, script));
    return new Map<string, File>([
      ["/", {
        content: named(withPeers(html, peers)),
        type: "text/html; charset=utf-8",
        immutable: false,
        headers: policyWith(peers),
      }],
      [`/${script}`, {
        content: app,
        type: "text/javascript; charset=utf-8",
        immutable: true,
      }],
      ...chunks.map(({ name, code }): [string, File] => [`/${name}.js`, {
        content: bytes(withoutMap(code)),
        type: "text/javascript; charset=utf-8",
        immutable: true,
      }]),
      // Browsers look for a new service worker under the same URL.
      ["/worker.js", {
        content: named(await smaller(worker.code, "worker")),
        type: "text/javascript; charset=utf-8",
        immutable: false,
      }],
    ]);
  } finally {
    await stopBundler();
  }
}

/** The playground, as one file under `/playground`. The caller stops the bundler's process. */
export async function playgroundFile(): Promise<[string, File]> {
  const { html, policy } = await bundlePlayground();
  return ["/playground", {
    content: new TextEncoder().encode(html),
    type: "text/html; charset=utf-8",
    immutable: false,
    headers: { "content-security-policy": policy },
  }];
}

/** Folder of the demo page. */
const APP = new URL("web/app/", ROOT);

/** Icons of the demo page that are files of their own. */
const ICONS = ["icon-192.png", "icon-512.png"];

/** The icon of the demo page as a URL that has all of it: a request for so small a file would be larger than the file. */
async function iconURL(app: URL): Promise<string> {
  const icon = await Deno.readTextFile(new URL("icon.svg", app));
  const dense = icon.trim().replaceAll(/\s+/g, " ")
    .replaceAll("> <", "><").replaceAll(" />", "/>");
  return `data:image/svg+xml,${
    dense.replaceAll('"', "'").replaceAll("#", "%23")
  }`;
}

/** Text of a file of the demo page, with the icon in it. */
async function withIcon(name: string, app: URL): Promise<string> {
  const text = await Deno.readTextFile(new URL(name, app));
  return text.replace('"icon.svg"', `"${await iconURL(app)}"`);
}

/** HTML of the demo page without the white space that only its author needs. */
async function denseHTML(app: URL): Promise<string> {
  return (await withIcon("index.html", app)).replaceAll(/\s+/g, " ")
    .replaceAll(/ ?(<(?![/]?a\b)[^>]*>) ?/g, "$1").replaceAll('" >', '">');
}

/** Modules of the demo page with a style sheet of the same name beside them: the page, and what it loads later. */
const STYLED = /[/](?:app|later|people|two)[.]ts$/;

/** Modules of the demo page that are loaded by others which are loaded later. */
const NESTED = /[/](?:import|inspect|menu|share)[.]ts$/;

/** Has those modules of a folder add their style sheets to the page. */
function styling(folder: string): Plugin {
  return {
    name: "style",
    setup(build): void {
      build.onLoad({ filter: STYLED }, async ({ path }) => {
        if (!path.startsWith(folder)) return undefined;
        const css = await Deno.readTextFile(path.replace(/ts$/, "css"));
        const style = JSON.stringify(await minifyStyle(css));
        // Imports go first, wherever they are.
        return {
          contents: `const style = document.createElement("style");
            style.textContent = ${style};
            document.head.append(style);
            ${await Deno.readTextFile(path)}`,
          loader: "ts",
        };
      });
    },
  };
}

/** Bundles the demo page, whose files are in a folder, and the playground, and renders the guides beside them; the page also connects to the origins in `peers`. */
export async function demoFiles(
  app: URL = APP,
  peers: readonly string[] = [],
): Promise<ReadonlyMap<string, File>> {
  const extra = await playgroundFile();
  const page = await pageFiles(
    await denseHTML(app),
    {
      text: `import "./${app.href.slice(ROOT.href.length)}app.ts";`,
      plugins: [styling(fileURLToPath(app))],
      nested: (path) => NESTED.test(path),
    },
    peers,
  );
  // Icons change rarely: a visit asks for them once a day.
  const headers = { "cache-control": "public, max-age=86400" };
  const icons = ICONS.map(async (name): Promise<[string, File]> => [
    `/${name}`,
    {
      content: await Deno.readFile(new URL(name, app)),
      type: "image/png",
      immutable: false,
      headers,
    },
  ]);
  const manifest = JSON.parse(await withIcon("app.webmanifest", app));
  return new Map([
    ...page,
    extra,
    ["/app.webmanifest", {
      content: new TextEncoder().encode(JSON.stringify(manifest)),
      type: "application/manifest+json",
      immutable: false,
      headers,
    }],
    ...await Promise.all(icons),
    ...await guides(),
  ]);
}
