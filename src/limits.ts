/**
 * Bounds of the system. Each name says the unit; `_MAX` is a limit, a name without
 * it is a size or a time to aim at.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Largest command of a proposal, in bytes. */
export const COMMAND_BYTES_MAX: number = 1024 * 1024;

/** Largest batch of the log, in bytes. A record with the largest command always fits. */
export const BATCH_BYTES_MAX: number = COMMAND_BYTES_MAX + 64 * 1024;

/** Most records in one batch of the log, in records. */
export const BATCH_RECORDS_MAX: number = 1024;

/** Most entries passed to one `update()` of a state machine, in entries. */
export const UPDATE_ENTRIES_MAX: number = 1024;

/** Size of the commands passed to one `update()` of a state machine, in bytes; the last command may exceed it. */
export const UPDATE_BYTES_MAX: number = 4 * 1024 * 1024;

/** Largest buffer that the records of small proposals share, in bytes. */
export const SLAB_BYTES: number = 64 * 1024;

/** First buffer that the records of small proposals of a replica share, in bytes; each further one is twice as large, so that a cluster with few proposals uses little memory. */
export const SLAB_FIRST_BYTES: number = 512;

/** Most proposals of one replica that wait for their results, in proposals. */
export const PENDING_PROPOSALS_MAX: number = 65_536;

/** Most bytes of commands of one replica that wait for their results, in bytes. */
export const PENDING_BYTES_MAX: number = 64 * 1024 * 1024;

/** Most linearizable reads of one replica that wait for a read index or for the state to reach it, in reads. */
export const PENDING_READS_MAX: number = 65_536;

/** Most appends of one replica under way at once, in appends. */
export const APPENDS_IN_FLIGHT_MAX: number = 16;

/** Size of one block of a log in a block store, in bytes; the last batch may exceed it. */
export const LOG_BLOCK_BYTES_MAX: number = 1024 * 1024;

/** Size of the newest records of a stored log that are also in memory, in bytes; up to twice as much between trims. */
export const LOG_TAIL_BYTES: number = 2 * 1024 * 1024;

/** Size of the log blocks that a backup reads in one step, in bytes; the last block may exceed it. */
export const LOG_COPY_BYTES: number = 256 * 1024;

/** Largest call on the control socket of a data folder, in characters. */
export const CONTROL_CALL_BYTES_MAX: number = 64 * 1024;

/** Longest path of a Unix socket on the most restrictive systems, in bytes. */
export const CONTROL_PATH_BYTES_MAX: number = 100;

/** Largest frame of a backup, in bytes. The largest block of a log always fits. */
export const BACKUP_FRAME_BYTES_MAX: number = 4 * 1024 * 1024;

/** Pause of a backup after each step, in multiples of the duration of the step; it limits the load on the server. */
export const BACKUP_REST_FACTOR: number = 2;

/** Size of the blocks that a restore writes in one transaction, in bytes; the last block may exceed it. */
export const RESTORE_WRITE_BYTES: number = 4 * 1024 * 1024;

/** Size of the log blocks that are read ahead for one reader, in bytes; the last block may exceed it. */
export const LOG_READ_AHEAD_BYTES_MAX: number = 1024 * 1024;

/** Most epochs before its start that a compacted log remembers, in epochs. */
export const LOG_EPOCHS_MAX: number = 256;

/** Session limit of a cluster whose first record does not set one, in sessions. */
export const SESSIONS_DEFAULT: number = 4096;

/** Share of the session limit that one owner may use without losing sessions to other owners once the limit is reached, in parts of one. */
export const SESSION_SHARE: number = 1 / 4;

/** Largest session limit that the first record of a cluster may set, in sessions. */
export const SESSIONS_MAX: number = 1024 * 1024;

/** Most series that a session may have unacknowledged, in series. Part of the replicated rules: it must be the same on every replica. */
export const SESSION_WINDOW_MAX: number = 8192;

/** Most result data stored for one session until it is acknowledged, in bytes. Part of the replicated rules: it must be the same on every replica. */
export const SESSION_RESULT_BYTES_MAX: number = 4 * 1024 * 1024;

/** Most result data stored for all sessions of a cluster until it is acknowledged, in bytes. */
export const SESSIONS_RESULT_BYTES_MAX: number = 64 * 1024 * 1024;

/** Longest time for which a rehearsal gathers appends before it forks the state machine again, when forking is slow, in milliseconds. */
export const REHEARSAL_PAUSE_MS_MAX: number = 50;

/** Longest time for which an append waits for earlier ones to be applied, so that they need not be rehearsed again, in turns of the event loop. */
export const REHEARSAL_TURNS_MAX: number = 4;

/** Longest call of a forked state machine before it counts as failed, in milliseconds without suspension of the process. */
export const REHEARSAL_CALL_MS_MAX: number = 10_000;

/** Most calls of an asynchronous `validate` for one command that are repeated because other commands changed the state it read, in calls; after that the other commands wait. */
export const REHEARSAL_ASKS_MAX: number = 3;

/** Longest reason of a rejected proposal in the log, in bytes of UTF-8. Part of the replicated rules: it must be the same on every replica. */
export const REFUSAL_BYTES_MAX: number = 512;

/** Most skipped entries that a cluster remembers, in entries; the oldest are dropped first. */
export const SKIPPED_ENTRIES_MAX: number = 1024;

/** Longest owner in a record that opens a session, in bytes. */
export const SESSION_OWNER_BYTES_MAX: number = 256;

/** Largest data of one block of a snapshot container, in bytes. */
export const SNAPSHOT_BLOCK_BYTES_MAX: number = 64 * 1024;

/** Compressed bytes of a snapshot that are inflated in one step, in bytes; they may inflate to a thousand times as many. */
export const SNAPSHOT_INFLATE_BYTES_MAX: number = 4 * 1024;

/** Largest header of a snapshot container, in bytes. */
export const SNAPSHOT_HEADER_BYTES_MAX: number = 4096;

/** Largest session section of a snapshot container, in bytes. */
export const SNAPSHOT_SESSIONS_BYTES_MAX: number = 1024 * 1024 * 1024;

/** Most external files in one snapshot, in files. */
export const SNAPSHOT_FILES_MAX: number = 65_536;

/** Largest metadata of one external file, in bytes. It fits into one block with the id of the file. */
export const SNAPSHOT_FILE_METADATA_BYTES_MAX: number =
  SNAPSHOT_BLOCK_BYTES_MAX - 8;

/** Full snapshots kept of each cluster, in snapshots. */
export const SNAPSHOTS_KEPT: number = 2;

/** Checkpoints kept for comparison with other replicas, in checkpoints. */
export const CHECKPOINTS_KEPT: number = 64;

/** Most entries that are replayed one by one with hashes to explain a divergence, in entries. */
export const EXPLAIN_ENTRIES_MAX: number = 16_384;

/** Most bytes of commands kept in memory while a divergence is explained, in bytes. */
export const EXPLAIN_BYTES_MAX: number = 4 * 1024 * 1024;

/** Most entries that are replayed from a snapshot to explain a divergence, in entries. */
export const REPLAY_ENTRIES_MAX: number = 1024 * 1024;

/** Most entries that a reader for inspectors returns at once, in entries. */
export const HISTORY_PART_ENTRIES_MAX: number = 256;

/** Most batches that a replica has read and an inspector has not, in batches; from then on the inspector reads the log instead. */
export const HISTORY_FOLLOWED_BATCHES_MAX: number = 64;

/** Entries that are applied at once while an earlier state is computed, in entries. */
export const HISTORY_SLICE_ENTRIES: number = 64;

/** Longest time for explaining a divergence, in milliseconds. */
export const EXPLAIN_MS_MAX: number = 60_000;

/** Longest time for finding the entry of a batch at which `update()` threw, in milliseconds. */
export const LOCATE_MS_MAX: number = 10_000;

/** Most pending commands that an optimistic view re-runs for a new one before it is read, in commands. */
export const VIEW_EAGER_COMMANDS_MAX: number = 64;

/** Time that is left to other work between two rounds of queries of paced watches, in times of what the last round took. */
export const WATCH_PAUSE_ROUNDS: number = 4;

/** Longest pause between two rounds of queries of paced watches, in milliseconds. */
export const WATCH_PAUSE_MS_MAX: number = 100;

/** Most pending commands that an optimistic view passes to one `update()` of its copy, in commands. A view lets the page do other work only between two. */
export const VIEW_UPDATE_COMMANDS_MAX: number = 64;

/** Longest key of the key-value machines, in bytes. */
export const KV_KEY_BYTES_MAX: number = 64 * 1024;

/** Largest value of the key-value machines, in bytes. */
export const KV_VALUE_BYTES_MAX: number = COMMAND_BYTES_MAX;

/** Most commands in one atomic batch of the key-value machines, in commands. */
export const KV_BATCH_PARTS_MAX: number = 65_536;

/** Most leaves of a key-value machine with rows whose hash is not taken yet, in leaves. */
export const KV_UNHASHED_LEAVES_MAX = 256;

/** Largest value of a key-value machine whose hash is not taken at once, in bytes. */
export const KV_UNHASHED_BYTES_MAX = 1024;

/** Size of one page of rows in the packed key-value store, in bytes; the last row may exceed it. */
export const PACKED_PAGE_BYTES: number = 8 * 1024;

/** Fill level of pages that the packed key-value store builds in order, in bytes: seven eighths, so that rows can grow. */
export const PACKED_FILL_BYTES: number = 7 * 1024;

/** Most rows in one page of the packed key-value store, in rows. */
export const PACKED_PAGE_ROWS: number = 1024;

/** Unwritten changes at which the packed key-value store begins a write in the background, in bytes. */
export const PACKED_FLUSH_BYTES: number = 256 * 1024;

/** Unwritten changes of the packed key-value store at which each update waits for the current write, up to `PACKED_PENDING_MS`, in bytes. */
export const PACKED_PENDING_BYTES: number = 512 * 1024;

/** Longest wait of an update for the current write of the packed key-value store once `PACKED_PENDING_BYTES` are unwritten, in milliseconds. */
export const PACKED_PENDING_MS: number = 20;

/** Unwritten changes of the packed key-value store at which each update waits for the end of the current write, in bytes; the last update may exceed it. */
export const PACKED_PENDING_BYTES_MAX: number = 4 * 1024 * 1024;

/** Size of one log record of the packed key-value store, in bytes; the last row may exceed it. Browsers may store values above 64 KiB in separate files, which is slower. */
export const PACKED_RECORD_BYTES: number = 56 * 1024;

/** Size of the pages that the packed key-value store writes in one step, in bytes. */
export const PACKED_WRITE_BYTES_MAX: number = 1024 * 1024;

/** Size of the pages that the packed key-value store writes when it is closed, in bytes. */
export const PACKED_CLOSE_BYTES: number = 4 * 1024 * 1024;

/** Pages that a rebuild of the packed key-value store buffers before it writes them, in bytes. */
export const PACKED_REBUILD_BYTES: number = 512 * 1024;

/** Size of the log of a packed key-value store with up to four times as many bytes of rows, in bytes; larger stores have a longer log. */
export const PACKED_LOG_BYTES: number = 8 * 1024 * 1024;

/** Overhead counted for each log block of the packed key-value store, in bytes. */
export const PACKED_LOG_BLOCK_BYTES: number = 1024;

/** Default memory for the pages of a packed key-value store, in bytes. */
export const PACKED_MEMORY_BYTES: number = 64 * 1024 * 1024;

/** Longest timer that JavaScript runtimes support, in milliseconds; longer ones fire at once. */
export const TIMER_MS_MAX: number = 2 ** 31 - 1;

/** Longest wait of a stop for a state machine whose call does not settle, in milliseconds. */
export const STOP_TIMEOUT_MS: number = 5_000;

/** Longest run of applying entries before the event loop gets a turn, in milliseconds. */
export const APPLY_SLICE_MS: number = 8;

/** First wait before a failed append or read of the log is repeated, in milliseconds. */
export const RETRY_FIRST_MS: number = 20;

/** Longest wait before a failed append or read of the log is repeated, in milliseconds. */
export const RETRY_LAST_MS: number = 5_000;

/** Longest wait before a state is recovered again at which the machine throws each time, in milliseconds. Each try may download a snapshot. */
export const UPDATE_RETRY_LAST_MS: number = 60_000;

/** Longest wait before a session that was opened for another principal is opened again, in milliseconds. Each try adds a record to the log. */
export const REGISTER_RETRY_LAST_MS: number = 600_000;

/** Longest time for which an on-disk state machine has updates that are not synced, in milliseconds. */
export const SYNC_INTERVAL_MS: number = 1_000;

/** Interval at which the files of an open log are verified, in milliseconds, in addition to each append. */
export const LOG_VERIFY_MS: number = 1_000;

/** Highest index of an imported snapshot, in entries; the log continues after it, and its indexes must stay safe integers. */
export const IMPORT_INDEX_MAX: number = 2 ** 52;

/** Most consecutive failed reads of a local log before a start fails, in reads; with the waits between them that takes about ten seconds. */
export const START_READS_MAX: number = 10;

/** Most times that a backup lists the snapshots of a cluster, because one was removed before it was opened, in lists. */
export const BACKUP_LISTS_MAX: number = 10;

/** Interval at which a write is tried again while storage is full, in milliseconds. */
export const STORE_FULL_RETRY_MS: number = 2_000;

/** Most entries that an on-disk state machine has applied and not synced, in entries. */
export const SYNC_ENTRIES_MAX: number = 16_384;

/** Most decided commands of an outbox that an on-disk state machine has not synced, in commands. Well below `SESSION_WINDOW_MAX`, since the session acknowledges them only then. */
export const SYNC_SUBMISSIONS_MAX: number = 4_096;

/** Longest wait for IndexedDB to open a database before the opening is repeated, and then fails, in milliseconds. */
export const STORE_OPEN_MS_MAX: number = 5_000;

/** Longest wait of a database upgrade for a page that has an older version open, in milliseconds. */
export const STORE_BLOCKED_MS_MAX: number = 10_000;

/** Longest wait of a page for the previous page to release the lock of a store, in milliseconds. */
export const STORE_LOCK_MS_MAX: number = 2_000;

/** Longest wait of a page for the lock of a store at its second request, in milliseconds. */
export const STORE_LOCK_AGAIN_MS_MAX: number = 1_000;

/** Interval at which a database connection with pending operations is checked for progress, in milliseconds. */
export const STORE_TICK_MS: number = 1_000;

/** Most consecutive checks without progress before a database connection counts as lost, in checks. */
export const STORE_TICKS_MAX: number = 30;

/** Longest wait for the user to answer a request for persistent storage, in milliseconds. */
export const PERSISTENCE_MS_MAX: number = 5_000;

/** Size of one data block of a snapshot in a block store, in bytes. */
export const SNAPSHOT_CHUNK_BYTES: number = 256 * 1024;

/** Largest frame of the sync protocol, in bytes. A batch of the log always fits. */
export const SYNC_FRAME_BYTES_MAX: number = BATCH_BYTES_MAX + 64 * 1024;

/** Smallest part of a split message, except its last part, in bytes. */
export const SYNC_PART_BYTES_MIN: number = 512;

/** Incomplete split messages on all connections of a server, in bytes; above it, the connection with the oldest one is closed. */
export const SYNC_PARTS_TOTAL_BYTES_MAX: number = 64 * 1024 * 1024;

/** Smallest frame limit that a peer may ask for, in bytes. */
export const SYNC_FRAME_BYTES_MIN: number = 1024;

/** Size of a sent frame from which a lost connection counts as a sign that a proxy rejects large frames, in bytes. */
export const SYNC_FRAME_LARGE_BYTES: number = 8 * 1024;

/** Time for which frames stay small after a proxy rejected large ones, in milliseconds; doubled after each failed attempt to send larger ones. */
export const SYNC_FRAME_GROW_FIRST_MS: number = 10 * 60_000;

/** Longest time for which frames stay small after a proxy rejected large ones, in milliseconds. */
export const SYNC_FRAME_GROW_LAST_MS: number = 24 * 60 * 60_000;

/** Longest text in a message of the sync protocol, in characters. */
export const SYNC_TEXT_BYTES_MAX: number = 1024;

/** Longest authorization token of a client, in bytes. */
export const SYNC_TOKEN_BYTES_MAX: number = 16 * 1024;

/** Longest id of a principal, in UTF-16 code units. It is sent as a text of the protocol. */
export const SYNC_PRINCIPAL_ID_LENGTH_MAX: number = SYNC_TEXT_BYTES_MAX;

/** Flow control credit of one end: data frames that the other end may send before it gets more credit, in bytes; the last frame may exceed it. */
export const SYNC_CREDIT_BYTES: number = 4 * 1024 * 1024;

/** Flow control credit for the appends of all connections of a server, in bytes. Each connection has an equal share and may exceed it by one frame, so one client cannot delay the others. */
export const SYNC_CREDIT_TOTAL_BYTES: number = 32 * 1024 * 1024;

/** Smallest frame of entries or of an append that is packed, in bytes. */
export const SYNC_PACK_BYTES_MIN: number = 256;

/** Smallest range of records that a server sends back to their author as a reference, in bytes. */
export const SYNC_REFERENCE_BYTES_MIN: number = 64;

/** Own records that a client keeps for each cluster until they are read back, in bytes. */
export const SYNC_OWN_RECORDS_BYTES_MAX: number = SYNC_CREDIT_BYTES;

/** Most sessions of a client whose newest records a server refers to on one connection instead of sending them back, in sessions. */
export const SYNC_SENT_SESSIONS_MAX: number = 1024;

/** Most connections of one client, in connections. */
export const SYNC_LINKS_MAX: number = 16;

/** Longest time for establishing one connection, including the client's token and the server's welcome, in milliseconds. */
export const SYNC_CONNECT_MS_MAX: number = 15_000;

/** Longest time for establishing one connection while another address was not tried, in milliseconds. */
export const SYNC_CONNECT_FIRST_MS_MAX: number = 5_000;

/** Time without a quorum of its log after which a server sends its clients to another one, in milliseconds: longer than the election of a leader. */
export const SYNC_CUT_OFF_MS: number = 5_000;

/** Longest wait of a request for the health of a cluster for the end of its log, in milliseconds. */
export const SYNC_LOG_END_MS_MAX: number = 2_000;

/** Longest stay of a client at a server without a quorum once every address was tried, in milliseconds. */
export const SYNC_CUT_OFF_STAY_MS: number = 30_000;

/** First wait before a client reconnects, in milliseconds. */
export const SYNC_RETRY_FIRST_MS: number = 250;

/** Longest wait before a client reconnects while the disconnection is recent, in milliseconds; a restarting server is soon back. */
export const SYNC_RETRY_SOON_MS: number = 2_000;

/** Later waits before a client reconnects, in percent of the time it has been disconnected. */
export const SYNC_RETRY_DOWN_PERCENT: number = 10;

/** Longest wait before a client reconnects, in milliseconds. */
export const SYNC_RETRY_LAST_MS: number = 30_000;

/** First wait before a client reconnects after the server rejected it or its token, in milliseconds. */
export const SYNC_REFUSED_FIRST_MS: number = 5_000;

/** Longest wait before a client reconnects after the server rejected it or its token, in milliseconds. */
export const SYNC_REFUSED_LAST_MS: number = 60_000;

/** First wait before a client reconnects after both ends found their protocol versions incompatible, in milliseconds. */
export const SYNC_MISMATCH_FIRST_MS: number = 60_000;

/** Longest wait before a client reconnects after both ends found their protocol versions incompatible, in milliseconds. */
export const SYNC_MISMATCH_LAST_MS: number = 600_000;

/** Duration of a connection after which the waits before reconnecting start over, in milliseconds. */
export const SYNC_STABLE_MS: number = 5_000;

/** Shortest interval at which hints of the browser, such as `online`, make a client reconnect, in milliseconds. */
export const SYNC_HINT_MS: number = 1_000;

/** Longest wait for the reply to a ping sent after a hint of the browser, in milliseconds. */
export const SYNC_HINT_PING_MS: number = 5_000;

/** Shortest heartbeat interval that a client accepts from a server, in milliseconds. */
export const SYNC_HEARTBEAT_MS_MIN: number = 1_000;

/** Delay before a client downloads records for a reader that has not asked for a batch, in milliseconds; most such readers only check the history. */
export const SYNC_READ_IDLE_MS: number = 1_000;

/** Shortest interval between progress notifications of a client, in milliseconds. */
export const SYNC_PROGRESS_MS: number = 50;

/** Longest time for which unread data of one stream may use all credit of a client before other streams take precedence, in milliseconds. */
export const SYNC_STALL_MS: number = 5_000;

/** Longest wait of a client for a server to take a snapshot, in milliseconds. */
export const SYNC_SNAPSHOT_MS_MAX: number = 300_000;

/** Time for which a client keeps an offered snapshot that is not opened, in milliseconds. */
export const SYNC_SNAPSHOT_OFFER_MS: number = 30_000;

/** Size at which the last block of a client's log copy is complete, in bytes; the last batch may exceed it. */
export const SYNC_COPY_BLOCK_BYTES: number = 32 * 1024;

/** Overhead counted for each block of a client's log copy, in bytes. */
export const SYNC_COPY_BLOCK_COST_BYTES: number = 1024;

/** Largest log copy of one cluster on a client, in bytes. Later records are not copied. */
export const SYNC_COPY_BYTES_MAX: number = 64 * 1024 * 1024;

/** Growth of a client's log copy after which it asks for a snapshot, in bytes; after the second snapshot it is compacted. */
export const SYNC_COPY_SNAPSHOT_BYTES: number = 16 * 1024 * 1024;

/** Most clusters open on one connection, in channels. A client with more opens further connections. */
export const SYNC_CHANNELS_MAX: number = 64;

/** Most reads, transfers and requests open on one connection, in streams. */
export const SYNC_STREAMS_MAX: number = 256;

/** Most connections of one server, in connections. */
export const SYNC_CONNECTIONS_MAX: number = 4096;

/** Most connections of one principal, in connections. */
export const SYNC_PRINCIPAL_CONNECTIONS_MAX: number = 64;

/** Rate of the token bucket for the commands of one principal on all its connections, in commands per second; its burst is one second. Without authentication each connection has its own. */
export const SYNC_COMMANDS_PER_SECOND_MAX: number = 100_000;

/** Tokens that a rejected record costs in addition to its own, in commands: a rejection costs the server more than an append. */
export const SYNC_REFUSED_COMMANDS: number = 15;

/** Least credit that each record of an append uses, in bytes: short records have a fixed cost for the server. */
export const SYNC_RECORD_CREDIT_BYTES: number = 64;

/** Longest run of work for client messages before other events get a turn, in milliseconds. */
export const SYNC_SLICE_MS: number = 4;

/** Most ranges that a server replays at once to explain divergences, in ranges. */
export const SYNC_EXPLAINS_MAX: number = 2;

/** Age of a read permission from which it is renewed, in milliseconds. */
export const SYNC_PERMISSION_RENEW_MS: number = 2_000;

/** Age of a read permission from which no data is sent, in milliseconds. */
export const SYNC_PERMISSION_MS_MAX: number = 3_000;

/** Rate of the token bucket for the messages of one connection other than appends, in messages per second; its burst is one second. */
export const SYNC_MESSAGES_PER_SECOND_MAX: number = 20_000;

/** Most snapshots that a server sends or receives at once, in snapshots. */
export const SYNC_TRANSFERS_MAX: number = 16;

/** Most snapshots that a server sends to or receives from one principal at once, in snapshots. */
export const SYNC_PRINCIPAL_TRANSFERS_MAX: number = 8;

/** Most connections or snapshots of one remote address, in connections or snapshots; unlimited, since a proxy or a company may share one address. */
export const SYNC_ADDRESS_MAX: number = Infinity;

/** Lowest mean rate at which a snapshot transfer keeps its place while others wait for one, in bytes per second. */
export const SYNC_TRANSFER_BYTES_PER_SECOND_MIN: number = 64 * 1024;

/** Most snapshots sent to one connection at once, in snapshots. */
export const SYNC_CONNECTION_TRANSFERS_MAX: number = 2;

/** Largest uploaded snapshot, in bytes. */
export const SYNC_UPLOAD_BYTES_MAX: number = 16 * 1024 * 1024 * 1024;

/** Distance behind the log from which a reader is sent a snapshot instead, in entries. */
export const SYNC_FAR_ENTRIES: number = 16_384;

/** Size of the recent records of a cluster that a server has in memory for its readers, in bytes; up to twice as much between trims. */
export const SYNC_RECENT_BYTES: number = 4 * 1024 * 1024;

/** Unsent frames of one connection from which it is sent no more data, in bytes; above twice as many it is closed. */
export const SYNC_BUFFERED_BYTES_MAX: number = 4 * 1024 * 1024;

/** Unsent frames of all connections of a server from which they are sent no more data, in bytes. Each connection has an equal share and may exceed it by one frame. */
export const SYNC_BUFFERED_TOTAL_BYTES_MAX: number = 256 * 1024 * 1024;

/** Unsent frames of one connection from which it is sent no more data, in frames of its size limit: a small frame costs as much as a large one. */
export const SYNC_BUFFERED_FRAMES_MAX: number = 256;

/** Interval at which a server checks whether unsent frames have left, in milliseconds. */
export const SYNC_BUFFERED_TICK_MS: number = 10;

/** Longest wait for more records before the current ones are sent to all readers, in milliseconds. */
export const SYNC_GATHER_MS_MAX: number = 10;

/** Silence after which one end sends a ping, in milliseconds; after twice as long it closes the connection. */
export const SYNC_HEARTBEAT_MS: number = 15_000;

/** First wait before a server whose listener has ended listens again, in milliseconds. */
export const SYNC_LISTEN_FIRST_MS: number = 100;

/** Longest wait before a server whose listener has ended listens again, in milliseconds. */
export const SYNC_LISTEN_LAST_MS: number = 2_000;

/** Time before the expiry of a principal at which its client is asked for a new token, in milliseconds; at most half of the principal's validity. */
export const SYNC_RENEW_MS: number = 30_000;

/** Grace period for a client with an expired principal to send a new token, in milliseconds. During it nothing is sent to the client or accepted from it. */
export const SYNC_RENEW_GRACE_MS: number = 5_000;

/** Most messages of a client that wait until it has sent a new token, in messages. */
export const SYNC_SUSPENDED_MESSAGES_MAX: number = 1024;

/** Shortest interval at which a client is asked for a new token, in milliseconds. */
export const SYNC_RENEW_AGAIN_MS: number = 1_000;

/** Longest wait of a server for the hello of a new connection, in milliseconds. */
export const SYNC_HELLO_MS_MAX: number = 10_000;

/** Longest call of a server's hook (`authenticate`, `authorize`, `validate`), in milliseconds. */
export const SYNC_HOOK_MS_MAX: number = 10_000;

/** Longest wait before a command whose validation failed with an error is validated again, in milliseconds. */
export const SYNC_VALIDATE_RETRY_LAST_MS: number = 10_000;

/** Longest time for which a reader may accept none of its pending data, in milliseconds. */
export const SYNC_SLOW_MS_MAX: number = 30_000;

/** Time for which the log is retained for a client that received a snapshot and has not read on, in milliseconds. */
export const SYNC_RETENTION_MS_MAX: number = 300_000;

/** Interval at which a server checks its connections, in milliseconds. */
export const SYNC_TICK_MS: number = 1_000;

/** Longest wait of a stopping server for the work under way, in milliseconds. */
export const SYNC_SHUTDOWN_MS_MAX: number = 5_000;

/** Most submissions that `pending()` lists, besides those that were refused or whose outcome is unknown, in submissions. */
export const PENDING_LISTED_MAX: number = 1024;

/** Largest buffer that the commands of small submissions share, in bytes. */
export const OUTBOX_SLAB_BYTES: number = 16 * 1024;

/** Most bytes of commands of one cluster in an outbox, in bytes, unless the outbox was given another limit. They are in its store, and few of them in memory. */
export const OUTBOX_BYTES_MAX: number = 1024 * 1024 * 1024;

/** Most commands of an outbox in memory, in commands; those that may have been sent are in memory in any case. Well above `OUTBOX_SENT_COMMANDS_MAX`. */
export const OUTBOX_MEMORY_COMMANDS: number = 16_384;

/** Size of the commands of an outbox in memory, in bytes; those that may have been sent are in memory in any case. */
export const OUTBOX_MEMORY_BYTES: number = 8 * 1024 * 1024;

/** Most commands added last that an outbox has in memory for its view besides the oldest, in commands. */
export const OUTBOX_RECENT_COMMANDS: number = 1024;

/** Size of the commands added last that an outbox has in memory for its view besides the oldest, in bytes. */
export const OUTBOX_RECENT_BYTES: number = 1024 * 1024;

/** Blocks of an outbox from which on small ones are merged, in blocks: each has an entry in memory. */
export const OUTBOX_BLOCKS_MERGED: number = 4096;

/** Size up to which a block of an outbox is written again with more commands, in bytes. */
export const OUTBOX_MERGED_BYTES: number = 4 * 1024;

/** Size of the blocks that an outbox reads in one step when it is opened, in bytes; the steps begin small and may exceed it fourfold. */
export const OUTBOX_OPEN_BYTES: number = 1024 * 1024;

/** Most commands in one block of an outbox, in commands. */
export const OUTBOX_BLOCK_COMMANDS_MAX: number = 1024;

/** Size of one block of an outbox, in bytes; a single larger command may exceed it. */
export const OUTBOX_BLOCK_BYTES_MAX: number = 1024 * 1024;

/** Most decided commands that an outbox keeps until the next write, in commands. Well below `SESSION_WINDOW_MAX`. */
export const OUTBOX_DONE_COMMANDS_MAX: number = 1024;

/** Longest time for which an outbox keeps decided commands if nothing else is written, in milliseconds. */
export const OUTBOX_DONE_MS: number = 1_000;

/** Most commands of an outbox in flight, in commands. With the decided ones that are not acknowledged yet, below `SESSION_WINDOW_MAX`. */
export const OUTBOX_SENT_COMMANDS_MAX: number = 6144;

/** Most groups of commands of which an outbox knows how the last command sent was decided, in groups. Above `OUTBOX_SENT_COMMANDS_MAX`, so that none that is undecided is forgotten. */
export const OUTBOX_GROUPS_MAX: number = 8192;

/** Commands that one write of an outbox permits to be sent, in commands. */
export const OUTBOX_PERMITTED_COMMANDS_MAX: number = 4096;

/** Most candidates for the session holder that an outbox remembers, in holders. */
export const OUTBOX_HOLDERS_MAX: number = 1024;

/** Start overs by which two copies of an outbox may differ and still be recognized as copies, in start overs. */
export const OUTBOX_START_OVERS_MAX: number = 8;

/** Most replicas whose owners a server remembers, in replicas. */
export const SYNC_ORIGINS_MAX: number = 65_536;

/** Most replicas of one owner that a server remembers, in replicas. */
export const SYNC_OWNER_ORIGINS_MAX: number = 1024;

/** Most log messages of a server about one connection within one `SYNC_TICK_MS`, in messages. */
export const SYNC_LOG_RECORDS_MAX: number = 100;

/** Time for which entries wait for a call of a state machine before its host reports an event, in milliseconds. */
export const MACHINE_SLOW_MS: number = 5000;

/** Steps of a model after which a check for linearizability gives up, in steps. */
export const LINEARIZABILITY_STEPS_MAX: number = 1_000_000;

/** Largest frame of a typed machine's snapshot, in bytes: a row of a table, or a plain value of the state, with its names. */
export const STATE_FRAME_BYTES_MAX: number = 4 * COMMAND_BYTES_MAX;

/** Deepest nesting of plain data, in levels. */
export const PLAIN_DEPTH_MAX: number = 100;

/** Most changes of a table that a watch follows one by one, in changes; after more, it compares all rows that it has read. */
export const TABLE_CHANGES_MAX: number = 1024;

/** Most lookups in an index of a table that are kept up to date row by row, in lookups; others are read from the index again. */
export const TABLE_LOOKUPS_MAX: number = 128;

/** Most edits of an author that an application can undo, in edits; the oldest are dropped first. */
export const UNDO_EDITS_MAX: number = 100;

/** Most commands of which a fork of a typed machine notes the rows that they touched, in commands; later ones are not marked. */
export const TOUCHED_COMMANDS_MAX: number = 16_384;

/** Longest key of a row in a table of a typed machine, in UTF-16 code units. */
export const TABLE_KEY_CHARS_MAX: number = 1024;

/** Most errors that a thread keeps after it has sent them to another one, to know them when they come back, in errors. */
export const WORKER_ERRORS_MAX: number = 64;

/** Most forks of a machine in a worker, in forks. */
export const WORKER_FORKS_MAX: number = 16;

/** Interval at which a tab in which something waits for the leader asks it whether it is there, in milliseconds. */
export const TAB_PING_MS: number = 1_000;

/** Interval at which a visible tab in which nothing waits asks the leader whether it is there, in milliseconds. */
export const TAB_IDLE_PING_MS: number = 60_000;

/** Rounds in a row without an answer of the leader after which a tab takes the lead from it, in rounds. */
export const TAB_SILENCE_ROUNDS: number = 3;

/** Longest silence of a leader that a tab waits for before it takes the lead once more, in milliseconds. */
export const TAB_PATIENCE_MS_MAX: number = 60_000;

/** First wait of a tab before it tries again to take the lead, in milliseconds. */
export const TAB_RETRY_FIRST_MS: number = 250;

/** Most channels to other tabs that a tab keeps open, in channels. */
export const TAB_CHANNELS_MAX: number = 64;

/** Size of the newest records that a tab has in memory for others to continue from, in bytes. */
export const TAB_RECENT_BYTES: number = 1024 * 1024;

/** Size of a part in which a snapshot goes from tab to tab, in bytes. */
export const TAB_PART_BYTES: number = 256 * 1024;

/** Most batches that a tab keeps which arrived before those that they follow, in batches. */
export const TAB_EARLY_BATCHES_MAX: number = 256;

/** Highest version of the code of an application, in versions since its first one. */
export const TAB_CODE_MAX: number = 2 ** 40;

/** Messages about an outbox that a tab keeps while its queue is opened, in messages; from then on the store is read instead. */
export const TAB_EARLY_MESSAGES_MAX: number = 256;

/** Time for which a process waits for word of the commands before those that another process says it has added, until it reads them from the store, in milliseconds. */
export const OUTBOX_GAP_MS: number = 8;

/** Most messages of other processes about added commands that wait for those before them, in messages. */
export const OUTBOX_EARLY_MAX: number = 256;

/** Most commands that another process says it has settled and that are not known here yet, in commands; from then on the store is read instead. */
export const OUTBOX_SETTLED_EARLY_MAX: number = 256;

/** First wait of a tab before it looks again for what another part of it is about to have, in milliseconds. */
export const TAB_PAUSE_MS: number = 20;

/** Longest wait of a tab before it looks again for what another part of it is about to have, in milliseconds. */
export const TAB_PAUSE_MS_MAX: number = 1_000;

/** Time in which tabs that are asked what they are can answer, in milliseconds. */
export const TAB_ROLL_MS: number = 150;

/** Time that a call of a follower waits for the leading tab to start the cluster, in milliseconds. */
export const TAB_START_MS_MAX: number = 30_000;

/** Newest entries of a log that an inspector keeps in memory, in entries. */
export const INSPECTOR_ENTRIES_MAX: number = 1000;

/** Most rows that an inspector shows of one list, in rows. */
export const INSPECTOR_ROWS_MAX: number = 200;

/** Interval at which an inspector looks at a replica, in milliseconds. */
export const INSPECTOR_SAMPLE_MS: number = 1000;

/** Interval at which an inspector asks a server, in milliseconds. */
export const INSPECTOR_POLL_MS: number = 2000;

/** Newest samples that the chart of an inspector shows, in samples. */
export const INSPECTOR_SAMPLES_MAX: number = 120;

/** Newest latencies that an inspector keeps for its next sample, in latencies. */
export const INSPECTOR_LATENCIES_MAX: number = 1000;

/** Most values that an inspector compares between two states, in values. */
export const INSPECTOR_VALUES_MAX: number = 500_000;

/** Deepest nesting of values that an inspector compares one by one, in levels. */
export const INSPECTOR_DEPTH_MAX: number = 32;

/** Longest text of a value that an inspector shows, in UTF-16 code units. */
export const INSPECTOR_TEXT_CHARS_MAX: number = 400;

/** Longest wait of an inspector for another replica or a server, in milliseconds. */
export const INSPECTOR_ANSWER_MS_MAX: number = 20_000;

/** Most edits that an inspector imports from one file, in edits. */
export const INSPECTOR_EDITS_MAX: number = 10_000;

/** Most other tabs that the inspector lists, in tabs. */
export const INSPECTOR_TABS_MAX: number = 8;

/** Most clients that a server describes to an inspector, in clients. */
export const INSPECTOR_CLIENTS_MAX: number = 500;

/** Most entries that a server sends to an inspector at once, in entries. */
export const INSPECTOR_SENT_ENTRIES_MAX: number = 200;

/** Size of the entries that a server sends to an inspector at once, in bytes; the last entry may exceed it. */
export const INSPECTOR_SENT_BYTES: number = 1024 * 1024;

/** Records of one put to etcd, in bytes; the last batch may exceed it. With the largest batch well below the 1.5 MiB that etcd accepts by default. */
export const ETCD_PUT_BYTES: number = 256 * 1024;

/** Most puts of all clusters of one `EtcdLogDB` under way at once, in puts; each cluster has one at a time. */
export const ETCD_PUTS_IN_FLIGHT_MAX: number = 128;

/** Size of the puts of all clusters of one `EtcdLogDB` under way at once, in bytes; the last put may exceed it. */
export const ETCD_PUTS_IN_FLIGHT_BYTES: number = 4 * 1024 * 1024;

/** Longest wait of an append for etcd, unless the application sets another one, in milliseconds; after that its outcome is unknown. */
export const ETCD_APPEND_MS_MAX: number = 10_000;

/** Longest wait of a read, a read index or a change of metadata for etcd, in milliseconds. */
export const ETCD_CALL_MS_MAX: number = 5_000;

/** Longest attempt of a call on one connection before it is repeated, in milliseconds. */
export const ETCD_ATTEMPT_MS_MAX: number = 3_000;

/** First wait before a failed call to etcd is repeated, in milliseconds. */
export const ETCD_RETRY_FIRST_MS: number = 20;

/** Longest wait before a failed call to etcd is repeated, in milliseconds. */
export const ETCD_RETRY_LAST_MS: number = 500;

/** Interval at which the etcd node in use is asked whether it is live, in milliseconds. */
export const ETCD_PROBE_MS: number = 500;

/** Longest wait for the answer of an etcd node before another node is used, in milliseconds. */
export const ETCD_PROBE_MS_MAX: number = 1_000;

/** Longest time for which an etcd node may have no leader before another node is used, in milliseconds. */
export const ETCD_LEADERLESS_MS_MAX: number = 2_000;

/** Longest opening of a connection to an etcd node, in milliseconds. */
export const ETCD_CONNECT_MS_MAX: number = 2_000;

/** Size of the older records that are read ahead from etcd for one reader, in bytes; the last put may exceed it. */
export const ETCD_READ_AHEAD_BYTES: number = 16 * 1024 * 1024;

/** Interval at which the history in etcd that no cluster needs is compacted, in milliseconds. */
export const ETCD_COMPACT_MS: number = 60_000;

/** Most keys that one request to etcd returns, in keys. */
export const ETCD_PAGE_KEYS_MAX: number = 10_000;

/** Most snapshots of which a process remembers the hash that it has read, in snapshots. */
export const ETCD_VERIFIED_SNAPSHOTS_MAX: number = 4096;

/** Time after which etcd removes what a process has announced that has ended or was cut off, in seconds. */
export const ETCD_LEASE_SECONDS: number = 15;

/** Longest wait of the inspector of a server for the answer to who takes snapshots, in milliseconds. */
export const INSPECTOR_DUTY_MS_MAX: number = 500;

/** Shortest turn of a process to append to a log on etcd alone, while another process waits for it, in milliseconds. */
export const ETCD_TURN_MS: number = 50;

/** Interval at which a process keeps its lease in etcd, in milliseconds. */
export const ETCD_LEASE_PING_MS: number = 5_000;

/** Time after which etcd ends the turn of a process that has ended, is frozen or was cut off, in seconds. Fences keep the order right whatever it is: a shorter one makes a process that is only slow lose its turn. */
export const ETCD_TURN_LEASE_SECONDS: number = 5;

/** Interval at which a process keeps the lease of its turns in etcd, in milliseconds. */
export const ETCD_TURN_PING_MS: number = 1_500;

/** Longest wait of a process that ends for etcd to end a lease of it, in milliseconds. */
export const ETCD_REVOKE_MS_MAX: number = 1_000;

/** Time after which a checkpoint is put to etcd for the replicas of other processes, in milliseconds. */
export const ETCD_CHECKPOINT_MS: number = 5_000;

/** Live servers that must hold a snapshot before a log on etcd is compacted behind it, unless the application sets another number, in servers. */
export const PEER_COPIES: number = 2;

/** Longest random wait before a server copies a snapshot of another one, in milliseconds: so those that hold too few of its copies do not all begin at once. */
export const PEER_COPY_MS: number = 500;

/** Most snapshots that a server copies from others at once, in snapshots. */
export const PEER_COPYING_MAX: number = 4;

/** Most announced snapshots of one server and cluster, in snapshots. */
export const PEER_ANNOUNCED_MAX: number = 4;

/** Wait before a copy of a snapshot, or its announcement, is tried again after a failure, in milliseconds. */
export const PEER_RETRY_MS: number = 5_000;

/** Longest wait for the answer of another server to a request for a snapshot, in milliseconds. */
export const PEER_ANSWER_MS_MAX: number = 10_000;

/** Most of the answer of another server that refuses to send a snapshot that is read, in bytes. */
export const PEER_ERROR_BYTES_MAX: number = 1024;

/** Interval in which another server must send `PEER_BYTES_MIN` of a snapshot before another one is asked for the rest, in milliseconds. */
export const PEER_SLOW_MS: number = 10_000;

/** Least part of a snapshot that another server must send in `PEER_SLOW_MS`, in bytes. */
export const PEER_BYTES_MIN: number = 64 * 1024;

/** Longest wait for a server that has a snapshot, without receiving anything, in milliseconds. */
export const PEER_WAIT_MS_MAX: number = 15_000;

/** Most snapshots that a server remembers to have removed while their pointers are in etcd, in snapshots. */
export const PEER_REMOVED_MAX: number = 4096;

/** Longest wait between two rounds in which all servers with a snapshot are asked for it, in milliseconds. */
export const PEER_ROUND_MS_MAX: number = 2_000;

/** Part of a snapshot that is uploaded to S3 at once, in bytes: at least 5 MiB. */
export const S3_PART_BYTES: number = 8 * 1024 * 1024;

/** Most parts of one upload to S3, in parts. */
export const S3_PARTS_MAX: number = 10_000;

/** Most attempts of a request to S3 that fails for reasons which may pass, in attempts. */
export const S3_ATTEMPTS_MAX: number = 4;

/** First wait before a failed request to S3 is repeated, in milliseconds. */
export const S3_RETRY_FIRST_MS: number = 100;

/** Longest wait before a failed request to S3 is repeated, in milliseconds. */
export const S3_RETRY_LAST_MS: number = 2_000;

/** Longest wait for the head of an answer of S3, upload of a part included, in milliseconds. */
export const S3_REQUEST_MS_MAX: number = 60_000;

/** Longest wait for the next byte of an object of S3, in milliseconds. */
export const S3_SLOW_MS_MAX: number = 30_000;

/** Largest answer of S3 that is not an object, in bytes: a page of a list has a thousand keys. */
export const S3_ANSWER_BYTES_MAX: number = 4 * 1024 * 1024;

/** Time for which a process must have seen complete bytes on S3 that no snapshot has before it removes them, in milliseconds: an upload that has ended is listed seconds later. */
export const S3_LEFTOVER_MS: number = 3_600_000;

/** Most objects on S3 that no snapshot has which a process remembers to have seen, in objects. */
export const S3_LEFTOVERS_MAX: number = 4096;
