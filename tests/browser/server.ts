/**
 * Serves pages to the browsers under test, one for each module, bundled in
 * memory.
 *
 * This module needs Deno.
 *
 * @module
 */

import { bundle } from "../../web/bundle.ts";

/** Local server of pages. */
export interface PageServer extends AsyncDisposable {
  /** Origin of the server, with no slash at the end. */
  readonly origin: string;
  /**
   * Bundles a module, minified if wanted; resolves to the address of a page
   * that runs it.
   */
  page(path: string, minify?: boolean): Promise<string>;
  /** Returns and clears the reports that pages have posted to `/told`. */
  told(): string[];
}

/** Serves pages on the given port, by default a free one. */
export function servePages(port = 0): PageServer {
  const files = new Map<string, { body: BodyInit; type: string }>();
  let told: string[] = [];
  const server = Deno.serve(
    { hostname: "127.0.0.1", port, onListen(): void {} },
    async (request) => {
      const { pathname, search } = new URL(request.url);
      if (request.method === "POST") {
        told.push(await request.text());
        return new Response(null, { status: 204 });
      }
      const file = files.get(pathname);
      if (file === undefined) return new Response(null, { status: 404 });
      return new Response(file.body, {
        headers: {
          "content-type": file.type,
          // Browsers keep no `no-store` page in their back/forward cache.
          ...(search === "?kept" ? {} : { "cache-control": "no-store" }),
        },
      });
    },
  );
  const origin = `http://127.0.0.1:${server.addr.port}`;
  return {
    origin,
    async page(path, minify = false): Promise<string> {
      const name = path.replace(/\.ts$/, minify ? ".min" : "").replaceAll(
        "/",
        "-",
      );
      if (!files.has(`/${name}.html`)) {
        const { code, map } = await bundle({
          name,
          text: `export * from "./${path}"; import * as page from "./${path}";
            import { start } from "./tests/browser/runner.ts"; start(page);`,
          minify,
        });
        files.set(`/${name}.js`, {
          body: code as Uint8Array<ArrayBuffer>,
          type: "text/javascript",
        });
        files.set(`/${name}.js.map`, {
          body: map as Uint8Array<ArrayBuffer>,
          type: "application/json",
        });
        files.set(`/${name}.html`, {
          body: `<!doctype html><meta charset="utf-8"><title>${name}</title>` +
            `<link rel="icon" href="data:,">` +
            `<script type="module" src="/${name}.js"></script>`,
          type: "text/html",
        });
      }
      return `${origin}/${name}.html`;
    },
    told(): string[] {
      const all = told;
      told = [];
      return all;
    },
    async [Symbol.asyncDispose](): Promise<void> {
      await server.shutdown();
    },
  };
}
