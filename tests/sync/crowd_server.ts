/**
 * Server in its own process, which tests and benchmarks overload with connections.
 * It prints its URL, and then the log records of its listener.
 *
 * @module
 */

import { KVStateMachine, NodeHost } from "../../mod.ts";
import { serve } from "../../src/sync/server/mod.ts";

/** Starts a server with a limit of open file descriptors; 0 for the limit of the system. */
export function spawnServer(descriptors = 0): Deno.ChildProcess {
  const bound = descriptors > 0 ? `ulimit -n ${descriptors}; ` : "";
  const program = `${bound}exec "$0" run --allow-all "$1"`;
  return new Deno.Command("sh", {
    args: ["-c", program, Deno.execPath(), import.meta.url],
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
}

/** Yields the lines that a process prints. */
export async function* linesOf(
  { stdout }: Deno.ChildProcess,
): AsyncGenerator<string, void, void> {
  let rest = "";
  for await (const text of stdout.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
}

/** Opens up to `count` idle connections. */
export async function idleConnections(
  port: number,
  count: number,
): Promise<Deno.TcpConn[]> {
  const conns: Deno.TcpConn[] = [];
  for (let i = 0; i < count; i++) {
    try {
      conns.push(await Deno.connect({ hostname: "127.0.0.1", port }));
    } catch {
      // The server is not listening at the moment.
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
  return conns;
}

/** Time until a new client is answered, in milliseconds. */
export async function untilServed(httpURL: string | URL): Promise<number> {
  const from = performance.now();
  for (;;) {
    try {
      const response = await fetch(new URL("health", httpURL), {
        signal: AbortSignal.timeout(1_000),
      });
      const { status } = await response.json();
      if (status === "ok") return performance.now() - from;
    } catch {
      // Not yet.
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

if (import.meta.main) {
  const host = new NodeHost();
  await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 1n,
  });
  const server = serve(host, {
    limits: { connections: 10_000 },
    log: ({ event }) => {
      // deno-lint-ignore no-console
      if (event.startsWith("listen")) console.log(event);
    },
  });
  // deno-lint-ignore no-console
  console.log(server.url);
  await server.finished;
  await host.stop();
}
