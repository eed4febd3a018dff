/**
 * One replica for the tabs of an origin: one tab leads, the others follow it behind
 * the same interface.
 *
 * This module is browser compatible.
 *
 * @module
 */

export { shareTabs, type ShareTabsOptions, type Tabs } from "./share_tabs.ts";
export type { TabStatus } from "./shared_tabs.ts";
export type { OtherTab, TabState } from "./tab_state.ts";
export type { HostStores, HostTabs, SharingHost } from "../nodehost/tabs.ts";
