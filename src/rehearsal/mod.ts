/**
 * Rehearsal of commands on a fork of the state machine, before they are ordered:
 * a part that only a server loads.
 *
 * This module is browser compatible.
 *
 * @module
 */

export { Candidate, type Place, REGISTRATION } from "./candidate.ts";
export {
  type LocalRehearsal,
  type MakeRehearsal,
  makeRehearsal,
  reasonOf,
  Rehearsal,
  type RehearsalRequest,
} from "./rehearsal.ts";
