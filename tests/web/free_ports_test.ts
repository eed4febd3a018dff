import { assert, assertEquals } from "@std/assert";
import { freePort, freePorts } from "../../web/free_ports.ts";

Deno.test("freePorts() draws ports on which a program can listen, each once", () => {
  const ports = freePorts(50);
  assertEquals(new Set(ports).size, 50);
  for (const port of ports) {
    Deno.listen({ hostname: "127.0.0.1", port }).close();
  }
});

Deno.test("freePort() draws none that Linux gives to a program that wants any", async () => {
  const path = "/proc/sys/net/ipv4/ip_local_port_range";
  const range = await Deno.readTextFile(path).catch(() => undefined);
  // Another system, or one that is configured otherwise.
  if (range?.trim().split(/\s+/)[0] !== "32768") return;
  for (let i = 0; i < 50; i++) assert(freePort() < 32_768);
});
