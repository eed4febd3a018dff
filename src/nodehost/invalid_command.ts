/**
 * Check of a command that an application hands over.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { COMMAND_BYTES_MAX } from "../limits.ts";
import { ErrPayloadTooBig } from "./errors.ts";

/** Error of something that can be neither proposed nor submitted; undefined if it can. */
export function invalidCommand(cmd: unknown): Error | undefined {
  if (!(cmd instanceof Uint8Array)) {
    return new TypeError("Command is not a Uint8Array");
  }
  return cmd.length > COMMAND_BYTES_MAX
    ? new ErrPayloadTooBig(cmd.length, COMMAND_BYTES_MAX)
    : undefined;
}
