/**
 * Small values, and promises for requests and transactions, in IndexedDB.
 *
 * This module is browser compatible.
 *
 * @module
 */

export {
  get,
  promisifyRequest,
  update,
  type UseStore,
} from "npm:idb-keyval@6.3.0";
