/**
 * Promises for IndexedDB requests and transactions.
 *
 * This module is browser compatible.
 *
 * @module
 */

export { promisifyRequest, type UseStore } from "npm:idb-keyval@6.3.0";
