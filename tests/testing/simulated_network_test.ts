import { assertEquals } from "@std/assert";
import { SimulatedClock } from "../../src/testing/simulated_clock.ts";
import { SimulatedNetwork } from "../../src/testing/simulated_network.ts";

Deno.test("H3 frames in a simulated network arrive in order and in time after a clock was set back", () => {
  const clock = new SimulatedClock(1);
  const [clientEnv, serverEnv] = [clock.env("client"), clock.env("server")];
  const network = new SimulatedNetwork(1);
  const [client, server] = network.connect(
    "client",
    clientEnv,
    "server",
    serverEnv,
  );
  const arrived: [frame: number, at: number][] = [];
  server.onFrame = ([frame]) => arrived.push([frame!, clock.now]);
  const advance = (ms: number): void => {
    for (const until = clock.now + ms; clock.runNext(until););
  };
  advance(100_000);
  client.send(new Uint8Array([1]));
  serverEnv.suspend();
  advance(100_000);
  client.send(new Uint8Array([2]));
  // Its clock has stood still: it is 100 s behind what it was when frame 2 was sent.
  serverEnv.resume(true);
  client.send(new Uint8Array([3]));
  advance(100);
  assertEquals(arrived.map(([frame]) => frame), [1, 2, 3]);
});
