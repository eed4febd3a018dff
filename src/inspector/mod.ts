/**
 * Inspector: `<sampan-inspector>`, an element that shows a replica or a server to
 * people, with live charts, the decoded log, and earlier states. Nothing else imports
 * it: load it when it is opened.
 *
 * ```ts ignore
 * const { inspect } = await import("@sampan/sampan/inspector");
 * document.body.append(
 *   inspect({ host, replica, machine: board, connection: logDB }),
 * );
 * ```
 *
 * Needs a page once it is used.
 * This module is browser compatible.
 *
 * @module
 */

export {
  defineInspector,
  inspect,
  INSPECTOR_TAG,
  type SampanInspector,
} from "./element.ts";
export type {
  InspectedConnection,
  InspectedNetwork,
  InspectedTabs,
  InspectorOptions,
  MachineView,
} from "./options.ts";
