/**
 * Machine of the golden snapshots: one value and one row of every kind of plain
 * data, a table without rows, and an active change.
 *
 * @module
 */

import type { MachineDefinition, TypedMachine } from "../../src/typed/mod.ts";
import { encodeCommand } from "../../src/typed/command.ts";

/** Plain data of every kind. */
export const EVERYTHING: readonly unknown[] = [
  null,
  false,
  true,
  0,
  300,
  -1,
  -4_000_000_000,
  0.5,
  Number.MAX_SAFE_INTEGER,
  1e300,
  "",
  "text",
  "naïve \u{1F600}",
  new Uint8Array([0, 255]),
  0n,
  2n ** 64n - 1n,
  -(2n ** 63n),
  [],
  [[1], ["a"]],
  {},
  { z: 1, a: { "10": 2, "9": 3 } },
];

/** Machine in the state of the golden snapshots. */
export function goldenMachine(
  { create }: Pick<MachineDefinition, "create">,
): TypedMachine {
  const machine = create();
  const command = (name: string, args: unknown): Uint8Array =>
    encodeCommand({
      name,
      version: name === "" ? 0 : 1,
      at: 1,
      by: null,
      seed: new Uint8Array(16),
      args: args as never,
    });
  const cmds = [
    ...EVERYTHING.map((value, i) => command("put", { key: `${i}`, value })),
    command("", "louder"),
    command("title", "golden"),
  ];
  machine.update(cmds.map((cmd, i) => ({ index: i + 1, cmd })));
  return machine;
}
