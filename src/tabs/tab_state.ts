/**
 * State of a tab, as it and the other tabs of its origin see it.
 *
 * This module is browser compatible.
 *
 * @module
 */

/**
 * State of a tab: `joining` until another tab answers or this one leads;
 * `following` another tab; `orphaned` while the leader does not answer; `opening`
 * while this tab takes the lead; `leading`; `cached` while the page is in the
 * back/forward cache or frozen; `outdated` once newer code runs in another tab, until
 * the page is reloaded; `memory` if nothing can be shared or stored; `gone` once it
 * is closed.
 */
export type TabState =
  | "joining"
  | "following"
  | "orphaned"
  | "opening"
  | "leading"
  | "cached"
  | "outdated"
  | "memory"
  | "gone";

/** Another tab, as it describes itself. */
export interface OtherTab {
  /** Random id of the tab. */
  readonly id: string;
  /** State of the tab. */
  readonly state: TabState;
  /** Version of the application's code in it. */
  readonly code: number;
  /** Time since it entered that state, in milliseconds. */
  readonly sinceMs: number;
  /** True if a person can see its page. */
  readonly isVisible: boolean;
}
