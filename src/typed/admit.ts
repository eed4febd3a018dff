/**
 * Admission of typed commands: whether this code may order one, and for whom.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { describe } from "../describe.ts";
import { ErrNewerCode, ErrOtherAuthor } from "../statemachine/errors.ts";
import { decodeCommand, decodeHead } from "./command.ts";
import type { MachineCore } from "./core.ts";

/**
 * Decides about a command before it is ordered: returns the reason to refuse it,
 * or undefined to accept it. Arguments are not looked at, except those of the
 * activation of a change.
 *
 * @param principal id of the principal that sends it; null for the anonymous one; undefined for the host itself
 * @throws ErrNewerCode if only newer code knows the command (Y6)
 * @throws ErrOtherAuthor if the principal is not its author
 */
export function admitCommand(
  core: MachineCore,
  cmd: Uint8Array,
  principal: string | null | undefined,
): string | undefined {
  const head = decodeHead(cmd);
  if (head === undefined) {
    // The machine itself rejects it, the same on every replica.
    return principal === undefined
      ? undefined
      : `Command is not one of machine ${core.name}`;
  }
  const { name, version, by } = head;
  if (name === "") {
    return principal === undefined
      ? admitActivation(core, cmd)
      : `Only the server activates a change of machine ${core.name}`;
  }
  const command = core.commands.get(name);
  if (command === undefined || version > command.version) {
    throw new ErrNewerCode(
      `${
        command === undefined
          ? `Machine ${core.name} of this server has no command ${
            describe(name)
          }`
          : `Command ${name} has version ${version}, this server knows ${command.version}`
      }: it waits until the server runs newer code`,
    );
  }
  if (principal !== undefined && by !== principal) {
    throw new ErrOtherAuthor(
      `Command ${name} has ${
        by === null ? "no author" : `the author ${describe(by)}`
      }, and ${
        principal === null ? "no one" : describe(principal)
      } is signed in: it waits until its author signs in`,
    );
  }
  return undefined;
}

function admitActivation(core: MachineCore, cmd: Uint8Array): undefined {
  const change = decodeCommand(cmd)?.args;
  if (typeof change !== "string" || core.known.has(change)) return undefined;
  throw new ErrNewerCode(
    `Change ${
      describe(change)
    } is not known to this code of machine ${core.name}: activate it with the code that lists it`,
  );
}
