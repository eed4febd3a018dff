/**
 * Free ports of loopback for programs that are started a moment later, or again
 * and again on the same port.
 *
 * This module needs Deno.
 *
 * @module
 */

/**
 * Lowest of the ports that are drawn, and their number. They are below those that
 * systems give to programs that want any port, as far as they are not configured
 * otherwise: no such program takes the port of a server that is being restarted.
 */
const PORT_MIN = 20_000;
const PORTS = 12_000;

/** Draws ports of loopback that are free now. */
export function freePorts(count: number): number[] {
  const listeners: Deno.TcpListener[] = [];
  try {
    while (listeners.length < count) {
      const port = PORT_MIN + Math.floor(Math.random() * PORTS);
      try {
        listeners.push(Deno.listen({ hostname: "127.0.0.1", port }));
      } catch (error) {
        if (!(error instanceof Deno.errors.AddrInUse)) throw error;
      }
    }
    return listeners.map(({ addr }) => addr.port);
  } finally {
    for (const listener of listeners) listener.close();
  }
}

/** Draws a port of loopback that is free now. */
export function freePort(): number {
  return freePorts(1)[0]!;
}
