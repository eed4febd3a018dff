/**
 * Control socket of a server: a Unix socket in its data folder, over which the
 * command line runs operations in the server. Only the user of the server can open
 * it.
 *
 * This module needs Deno.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { chmodSync, existsSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { encodeShown } from "../bytes.ts";
import { CONTROL_CALL_BYTES_MAX, CONTROL_PATH_BYTES_MAX } from "../limits.ts";
import type { NodeHost } from "../nodehost/node_host.ts";
import type { DataFolder } from "../sqlite/data_folder.ts";
import { removeFile } from "../sqlite/files.ts";
import { SampanError } from "../statemachine/errors.ts";
import { type Call, type Outcome, type Progress, run } from "./operations.ts";

/** Error of an operation that ran in the server. */
export class ErrOperation extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrOperation";
  /** Name of the error that the operation threw. */
  readonly errorClass: string;
  /** Creates an error with the name and the message of the server's error. */
  constructor(name: string, message: string) {
    super(message);
    this.errorClass = name;
  }
}

/** Line of a response. */
type Line =
  | { readonly progress: Progress }
  | { readonly outcome: Outcome }
  | { readonly error: { readonly name: string; readonly message: string } };

/** Path of the control socket of a data folder. */
export function controlPath(folder: string): string {
  const at = resolve(folder);
  const path = join(at, "control.sock");
  // Paths of Unix sockets are limited to about 100 bytes.
  if (encodeShown(path).length <= CONTROL_PATH_BYTES_MAX) {
    return path;
  }
  const name = createHash("sha256").update(at).digest("hex").slice(0, 16);
  return join(tmpdir(), `sampan-${name}.sock`);
}

/** User id of the owner of a folder's control socket, if this process cannot open it because it runs as another user. */
export function foreignOwner(folder: string): number | undefined {
  const me = Deno.uid();
  const owner = statSync(controlPath(folder), { throwIfNoEntry: false })?.uid;
  return me === null || me === 0 || owner === me ? undefined : owner;
}

/** Open control socket. */
export interface Control extends AsyncDisposable {
  /** Path of the socket. */
  readonly path: string;
  /** Cancels the operations in progress and closes the socket; idempotent. */
  close(): Promise<void>;
}

/**
 * Serves `sampan` commands on a data folder while this process has it open. Close
 * it before the host is stopped. Returns undefined on Windows, where commands
 * require the server to be stopped.
 *
 * ```ts
 * import { serveControl } from "./control.ts";
 * import { NodeHost } from "../../mod.ts";
 * import { DataFolder } from "../sqlite/mod.ts";
 *
 * const path = await Deno.makeTempDir();
 * {
 *   await using data = await DataFolder.open(path);
 *   await using host = new NodeHost({ logDB: data.logDB, snapshots: data.snapshots });
 *   await using control = serveControl(host, data);
 *   console.log(control?.path.endsWith(".sock")); // true
 * }
 * await Deno.remove(path, { recursive: true });
 * ```
 */
export function serveControl(
  host: NodeHost,
  folder: DataFolder,
): Control | undefined {
  if (Deno.build.os === "windows") return undefined;
  const path = controlPath(folder.path);
  // This process has the folder's lock: another socket is of a process that was killed.
  removeFile(path);
  const ended = new AbortController();
  const server = Deno.serve(
    {
      path,
      transport: "unix",
      onListen(): void {},
      onError: (): Response => new Response(null, { status: 500 }),
    },
    (request) => answer(request, { host, folder, ended: ended.signal }),
  );
  chmodSync(path, 0o600);
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => {
    closing ??= (async () => {
      ended.abort(
        new Error(
          `Server of ${folder.path} was stopped before the operation was done`,
        ),
      );
      await server.shutdown();
      removeFile(path);
    })();
    return closing;
  };
  return { path, close, [Symbol.asyncDispose]: close };
}

async function answer(
  request: Request,
  { host, folder, ended }: {
    readonly host: NodeHost;
    readonly folder: DataFolder;
    readonly ended: AbortSignal;
  },
): Promise<Response> {
  const text = await request.text();
  if (text.length > CONTROL_CALL_BYTES_MAX) {
    return new Response("Call is too large\n", { status: 413 });
  }
  let call: Call;
  try {
    call = JSON.parse(text) as Call;
  } catch {
    return new Response("Call is not JSON\n", { status: 400 });
  }
  const cancelled = new AbortController();
  const stop = (): void => cancelled.abort(ended.reason);
  ended.addEventListener("abort", stop);
  /** Newest progress that was not sent yet. */
  let progress: Progress | undefined;
  const body = new ReadableStream<Uint8Array>({
    start: async (controller): Promise<void> => {
      const send = (line: Line): void => {
        if (cancelled.signal.aborted && "progress" in line) return;
        controller.enqueue(
          encodeShown(`${JSON.stringify(line)}\n`),
        );
      };
      // Coalesced: ten lines a second are enough.
      const timer = setInterval(() => {
        if (progress !== undefined) send({ progress });
        progress = undefined;
      }, 100);
      try {
        const outcome = await run(call, {
          host,
          folder,
          signal: cancelled.signal,
          progress: (latest) => progress = latest,
        });
        send({ outcome });
        controller.close();
      } catch (error) {
        const { name, message } = error instanceof Error
          ? error
          : new Error(String(error));
        try {
          send({ error: { name, message } });
          controller.close();
        } catch {
          // The caller has closed the connection.
        }
      } finally {
        clearInterval(timer);
        ended.removeEventListener("abort", stop);
      }
    },
    cancel: (reason): void => cancelled.abort(reason),
  });
  return new Response(body, {
    headers: { "content-type": "application/x-ndjson" },
  });
}

/**
 * Runs an operation in the server that has a folder open; resolves to undefined if
 * there is no such server.
 *
 * @throws ErrOperation if the operation failed
 */
export async function callServer(
  folder: string,
  call: Call,
  progress: (progress: Progress) => void,
  signal: AbortSignal,
): Promise<Outcome | undefined> {
  const path = controlPath(folder);
  if (Deno.build.os === "windows" || !existsSync(path)) return undefined;
  const client = Deno.createHttpClient({
    proxy: { transport: "unix", path },
  });
  try {
    let response: Response;
    try {
      const init: RequestInit & { client: Deno.HttpClient } = {
        client,
        method: "POST",
        body: JSON.stringify(call),
        signal,
      };
      response = await fetch("http://localhost/", init);
    } catch (error) {
      signal.throwIfAborted();
      // The socket is of a process that was killed.
      if (error instanceof TypeError) return undefined;
      throw error;
    }
    if (!response.ok) {
      throw new ErrOperation("ErrOperation", (await response.text()).trim());
    }
    return await outcomeOf(response.body!, progress);
  } finally {
    client.close();
  }
}

async function outcomeOf(
  body: ReadableStream<Uint8Array>,
  progress: (progress: Progress) => void,
): Promise<Outcome> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of body) {
    const text = rest + decoder.decode(chunk, { stream: true });
    const lines = text.split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      const parsed = JSON.parse(line) as Line;
      if ("progress" in parsed) progress(parsed.progress);
      else if ("outcome" in parsed) return parsed.outcome;
      else throw new ErrOperation(parsed.error.name, parsed.error.message);
    }
  }
  throw new ErrOperation(
    "ErrOperation",
    "Server closed the connection before the operation was done",
  );
}
