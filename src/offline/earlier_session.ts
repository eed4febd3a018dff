/**
 * Sessions that an outbox has used before: of an earlier process, and in another
 * history of the log. Loaded when a device that has one goes on with it.
 *
 * This module is browser compatible.
 *
 * @module
 */

export { claimSession } from "./session_claim.ts";
export { settleSuperseded } from "./superseded_session.ts";
