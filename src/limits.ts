/**
 * Every bound of the system, in one place, each with its unit last in its name.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** The largest command a proposal may carry, in bytes. */
export const COMMAND_BYTES_MAX: number = 1024 * 1024;

/** The records one batch of the log may hold, in bytes. A record of the largest command always fits. */
export const BATCH_BYTES_MAX: number = COMMAND_BYTES_MAX + 64 * 1024;

/** The most records one batch of the log may hold, in records. */
export const BATCH_RECORDS_MAX: number = 1024;

/** The most entries given to one `update()` of a machine, in entries. */
export const UPDATE_ENTRIES_MAX: number = 1024;

/** Commands given to one `update()` of a machine, in bytes; one command more may pass it. */
export const UPDATE_BYTES_MAX: number = 4 * 1024 * 1024;

/** Largest buffer from which the records of small proposals are cut, in bytes. */
export const SLAB_BYTES: number = 64 * 1024;

/** First such buffer of a replica, in bytes; each one after it is twice as large: a cluster that is seldom used keeps little. */
export const SLAB_FIRST_BYTES: number = 512;

/** Proposals of one replica that may wait for an answer, in proposals. */
export const PENDING_PROPOSALS_MAX: number = 65_536;

/** Commands of one replica that may wait for an answer, in bytes. */
export const PENDING_BYTES_MAX: number = 64 * 1024 * 1024;

/** Reads of one replica that may wait for a read index or for the state to reach it, in reads. */
export const PENDING_READS_MAX: number = 65_536;

/** Appends of one replica that may be under way at once, in appends. */
export const APPENDS_IN_FLIGHT_MAX: number = 16;

/** Records and their lengths in one block of a log that is kept in blocks, in bytes; one batch more may pass it. */
export const LOG_BLOCK_BYTES_MAX: number = 1024 * 1024;

/** Of a log that is kept in blocks, the newest records that are in memory too, in bytes; twice as many at most. */
export const LOG_TAIL_BYTES: number = 2 * 1024 * 1024;

/** Blocks of a log that a backup reads in one step, in bytes; one block more may pass it. */
export const LOG_COPY_BYTES: number = 256 * 1024;

/** A call on the control socket of a data folder, in characters. */
export const CONTROL_CALL_BYTES_MAX: number = 64 * 1024;

/** The path of a Unix socket on the systems that allow the least, in bytes. */
export const CONTROL_PATH_BYTES_MAX: number = 100;

/** One frame of a backup, in bytes. The largest block of a log always fits. */
export const BACKUP_FRAME_BYTES_MAX: number = 4 * 1024 * 1024;

/** Rest of a backup after each step, in multiples of the time that the step took: how much of a server it takes. */
export const BACKUP_REST_FACTOR: number = 2;

/** Blocks that a restore writes in one transaction, in bytes; one block more may pass it. */
export const RESTORE_WRITE_BYTES: number = 4 * 1024 * 1024;

/** Blocks of a log that a reader has at hand before it asks for them, in bytes; one block more may pass it. */
export const LOG_READ_AHEAD_BYTES_MAX: number = 1024 * 1024;

/** Epochs from before its start that a log remembers, in epochs; the last of them always. */
export const LOG_EPOCHS_MAX: number = 256;

/** Sessions of a cluster unless its first record says otherwise, in sessions. */
export const SESSIONS_DEFAULT: number = 4096;

/** Of a cluster's sessions, what one owner may have without losing some to others once there are as many as there may be, in parts of one. */
export const SESSION_SHARE: number = 1 / 4;

/** The largest session limit a cluster's first record may set, in sessions. */
export const SESSIONS_MAX: number = 1024 * 1024;

/** How far a series may run ahead of what its client has acknowledged, in series. Part of the replicated rules: every replica must have the same. */
export const SESSION_WINDOW_MAX: number = 8192;

/** Result data kept for one session until acknowledged, in bytes. Part of the replicated rules: every replica must have the same. */
export const SESSION_RESULT_BYTES_MAX: number = 4 * 1024 * 1024;

/** Result data kept for all sessions of a cluster until acknowledged, in bytes. */
export const SESSIONS_RESULT_BYTES_MAX: number = 64 * 1024 * 1024;

/** Longest time for which appends are gathered before the machine is forked again to try them, where a fork takes long, in milliseconds. */
export const REHEARSAL_PAUSE_MS_MAX: number = 50;

/** Longest wait of an append for those before it to be applied, so that they need not be tried again, in turns of the event loop. */
export const REHEARSAL_TURNS_MAX: number = 4;

/** Longest time of a call of a fork before it counts as having thrown, in milliseconds in which the process was not suspended. */
export const REHEARSAL_CALL_MS_MAX: number = 10_000;

/** Calls of an asynchronous `validate` for one command, repeated because other commands changed the state it had looked up, in calls; after that the others wait. */
export const REHEARSAL_ASKS_MAX: number = 3;

/** Why a proposal was refused, as the log tells it, in bytes of text. Part of the replicated rules. */
export const REFUSAL_BYTES_MAX: number = 512;

/** Skipped entries that a cluster remembers, in entries; past it, the oldest are forgotten. */
export const SKIPPED_ENTRIES_MAX: number = 1024;

/** The owner a register record may name, in bytes. */
export const SESSION_OWNER_BYTES_MAX: number = 256;

/** The payload of one block of a snapshot container, in bytes. */
export const SNAPSHOT_BLOCK_BYTES_MAX: number = 64 * 1024;

/** Compressed bytes of a snapshot that are inflated in one step, to about a thousand times as many at most, in bytes. */
export const SNAPSHOT_INFLATE_BYTES_MAX: number = 4 * 1024;

/** The header of a snapshot container, in bytes. */
export const SNAPSHOT_HEADER_BYTES_MAX: number = 4096;

/** The session section of a snapshot container, in bytes. */
export const SNAPSHOT_SESSIONS_BYTES_MAX: number = 1024 * 1024 * 1024;

/** External files in one snapshot, in files. */
export const SNAPSHOT_FILES_MAX: number = 65_536;

/** Metadata of one external file, in bytes. With the file's id it fits in one block. */
export const SNAPSHOT_FILE_METADATA_BYTES_MAX: number =
  SNAPSHOT_BLOCK_BYTES_MAX - 8;

/** Full snapshots kept, in snapshots. */
export const SNAPSHOTS_KEPT: number = 2;

/** Hash checkpoints kept for comparison, in checkpoints. */
export const CHECKPOINTS_KEPT: number = 64;

/** Entries whose hashes are taken one by one to explain a divergence, in entries. */
export const EXPLAIN_ENTRIES_MAX: number = 16_384;

/** Commands that are kept while a divergence is explained, in bytes. */
export const EXPLAIN_BYTES_MAX: number = 4 * 1024 * 1024;

/** Entries that are gone over once more to explain a divergence, in entries. */
export const REPLAY_ENTRIES_MAX: number = 1024 * 1024;

/** How long the explanation of a divergence may take, in milliseconds. */
export const EXPLAIN_MS_MAX: number = 60_000;

/** Longest search of a replica for the entry of a batch at which `update()` threw, in milliseconds. */
export const LOCATE_MS_MAX: number = 10_000;

/** Commands that a view runs anew for one more before anybody asks, in commands. */
export const VIEW_EAGER_COMMANDS_MAX: number = 64;

/** Key of the key-value machines, in bytes. */
export const KV_KEY_BYTES_MAX: number = 64 * 1024;

/** Value of the key-value machines, in bytes. */
export const KV_VALUE_BYTES_MAX: number = COMMAND_BYTES_MAX;

/** Parts of one atomic batch of the key-value machines, in parts. */
export const KV_BATCH_PARTS_MAX: number = 65_536;

/** A page of rows in a block store, in bytes; one row more may pass it. */
export const PACKED_PAGE_BYTES: number = 8 * 1024;

/** Rows of one page, in rows. */
export const PACKED_PAGE_ROWS: number = 1024;

/** Changes that a packed store writes in the background once they are so many, in bytes. */
export const PACKED_FLUSH_BYTES: number = 256 * 1024;

/** Changes that may wait for the write under way before an update has to wait for it a moment, in bytes. */
export const PACKED_PENDING_BYTES: number = 512 * 1024;

/** How long that moment is, in milliseconds. */
export const PACKED_PENDING_MS: number = 20;

/** Changes that may wait for the write under way before an update has to wait for its end, in bytes; one update more may pass it. */
export const PACKED_PENDING_BYTES_MAX: number = 4 * 1024 * 1024;

/** One record of the log of a packed store, in bytes; one row more may pass it. A browser may keep what is larger than 64 KiB in a file of its own, at a cost of its own. */
export const PACKED_RECORD_BYTES: number = 56 * 1024;

/** Pages that go with one write, in bytes. */
export const PACKED_WRITE_BYTES_MAX: number = 1024 * 1024;

/** Log of a packed store of up to four times as many bytes, in bytes. */
export const PACKED_LOG_BYTES: number = 8 * 1024 * 1024;

/** What a block of the log counts for beyond its content, in bytes. */
export const PACKED_LOG_BLOCK_BYTES: number = 1024;

/** Pages that are in memory unless told otherwise, in bytes. */
export const PACKED_MEMORY_BYTES: number = 64 * 1024 * 1024;

/** The longest timer of the platform, in milliseconds: a longer one ends at once. */
export const TIMER_MS_MAX: number = 2 ** 31 - 1;

/** How long a stop waits for a machine that does not settle, in milliseconds. */
export const STOP_TIMEOUT_MS: number = 5_000;

/** The longest run of applying without giving the event loop a turn, in milliseconds. */
export const APPLY_SLICE_MS: number = 8;

/** First wait before an append or a read of the log that failed is tried again, in milliseconds. */
export const RETRY_FIRST_MS: number = 20;

/** Longest wait before an append or a read of the log that failed is tried again, in milliseconds. */
export const RETRY_LAST_MS: number = 5_000;

/** Longest wait before a session is opened again that was opened as somebody else's, in milliseconds. Each try is a record in the log. */
export const REGISTER_RETRY_LAST_MS: number = 600_000;

/** Time after which an on-disk machine with updates in core is synced, in milliseconds. */
export const SYNC_INTERVAL_MS: number = 1_000;

/** Time between two looks whether the files of an open log are still in place, in milliseconds. Appends look, too. */
export const LOG_VERIFY_MS: number = 1_000;

/** Largest index at which a snapshot that is imported may end, in entries: the log has to go on behind it, in safe integers. */
export const IMPORT_INDEX_MAX: number = 2 ** 52;

/** Reads of a log that may fail, one after the other, before a start on a log of this process gives up, in reads: with the waits between them, about ten seconds. */
export const START_READS_MAX: number = 10;

/** Time after which an on-disk machine that found no room is asked again, in milliseconds. */
export const STORE_FULL_RETRY_MS: number = 2_000;

/** Applied entries after which an on-disk machine with updates in core is synced, in entries. */
export const SYNC_ENTRIES_MAX: number = 16_384;

/** Commands of an outbox that were decided after which an on-disk machine is synced, in commands: well below the window of a session, which waits for it. */
export const SYNC_SUBMISSIONS_MAX: number = 4_096;

/** How long a database of the browser may take to open before it is asked again, and then given up, in milliseconds. */
export const STORE_OPEN_MS_MAX: number = 5_000;

/** How long an upgrade waits for a page that holds the older version open, in milliseconds. */
export const STORE_BLOCKED_MS_MAX: number = 10_000;

/** How long a page waits for the one before it to let go of a store, in milliseconds. */
export const STORE_LOCK_MS_MAX: number = 2_000;

/** Wait of a page for a store after it has asked a second time, in milliseconds. */
export const STORE_LOCK_AGAIN_MS_MAX: number = 1_000;

/** How often a store that waits looks at what it waits for, in milliseconds. */
export const STORE_TICK_MS: number = 1_000;

/** Looks without a sign of life after which a connection to a database is taken for dead, in looks. */
export const STORE_TICKS_MAX: number = 30;

/** How long the user's answer to a request for persistence is waited for, in milliseconds. */
export const PERSISTENCE_MS_MAX: number = 5_000;

/** One block of a snapshot in a block store, in bytes. */
export const SNAPSHOT_CHUNK_BYTES: number = 256 * 1024;

/** One frame of the protocol between server and client, in bytes. A batch of the log always fits. */
export const SYNC_FRAME_BYTES_MAX: number = BATCH_BYTES_MAX + 64 * 1024;

/** A part of a message that is not the last one, in bytes at least. */
export const SYNC_PART_BYTES_MIN: number = 512;

/** Messages of which a server has some parts, on all connections together, in bytes: past it, the connection goes that has one for longest. */
export const SYNC_PARTS_TOTAL_BYTES_MAX: number = 64 * 1024 * 1024;

/** The smallest frame an end of the protocol may be limited to, in bytes. */
export const SYNC_FRAME_BYTES_MIN: number = 1024;

/** A frame from which an end of the connection under it is taken for a sign that something on the way refuses large frames, in bytes. */
export const SYNC_FRAME_LARGE_BYTES: number = 8 * 1024;

/** Time for which frames stay small after something on the way refused large ones, before a connection tries larger ones, in milliseconds; doubled after each attempt that fails. */
export const SYNC_FRAME_GROW_FIRST_MS: number = 10 * 60_000;

/** Longest time before larger frames are tried again, in milliseconds. */
export const SYNC_FRAME_GROW_LAST_MS: number = 24 * 60 * 60_000;

/** A text in a message of the protocol, in characters. */
export const SYNC_TEXT_BYTES_MAX: number = 1024;

/** The token by which a client says who it is, in bytes. */
export const SYNC_TOKEN_BYTES_MAX: number = 16 * 1024;

/** The longest id of a principal, in UTF-16 code units: it has to fit into the welcome, as any text has. */
export const SYNC_PRINCIPAL_ID_LENGTH_MAX: number = SYNC_TEXT_BYTES_MAX;

/** Data frames an end takes before it grants more, in bytes; one frame more may pass it. */
export const SYNC_CREDIT_BYTES: number = 4 * 1024 * 1024;

/** Appends that all connections of a server together may send before they are granted more, in bytes: each has an equal share, and may pass it by one frame. What one sends waits behind what the others did. */
export const SYNC_CREDIT_TOTAL_BYTES: number = 32 * 1024 * 1024;

/** The smallest record that a server sends back to its author as a reference, in bytes. */
export const SYNC_REFERENCE_BYTES_MIN: number = 64;

/** Records of a client's own that it keeps until they are read back, in bytes for each cluster. */
export const SYNC_OWN_RECORDS_BYTES_MAX: number = SYNC_CREDIT_BYTES;

/** Own records of a client whose names a server keeps for one connection until they are sent back, in records. */
export const SYNC_SENT_RECORDS_MAX: number = 1024;

/** Connections that one client opens for its clusters, in connections. */
export const SYNC_LINKS_MAX: number = 16;

/** How long a client tries one connection, its token and the server's welcome included, in milliseconds. */
export const SYNC_CONNECT_MS_MAX: number = 15_000;

/** First wait before a client connects again, in milliseconds. */
export const SYNC_RETRY_FIRST_MS: number = 250;

/** Longest of the first waits before a client connects again, in milliseconds: a server that restarts is back soon. */
export const SYNC_RETRY_SOON_MS: number = 2_000;

/** Later waits before a client connects again, of the time it has been without a connection, in percent. */
export const SYNC_RETRY_DOWN_PERCENT: number = 10;

/** Longest wait before a client connects again, in milliseconds. */
export const SYNC_RETRY_LAST_MS: number = 30_000;

/** First wait after a server has refused a client or its token, in milliseconds. */
export const SYNC_REFUSED_FIRST_MS: number = 5_000;

/** Longest wait after a server has refused a client or its token, in milliseconds. */
export const SYNC_REFUSED_LAST_MS: number = 60_000;

/** First wait after two ends that understand nothing of each other have met, in milliseconds. */
export const SYNC_MISMATCH_FIRST_MS: number = 60_000;

/** Longest wait after two ends that understand nothing of each other have met, in milliseconds. */
export const SYNC_MISMATCH_LAST_MS: number = 600_000;

/** How long a connection must have lasted for the waits to start over, in milliseconds. */
export const SYNC_STABLE_MS: number = 5_000;

/** How far apart hints of the browser make a client try again, in milliseconds. */
export const SYNC_HINT_MS: number = 1_000;

/** How long the answer to a ping that a hint has caused is waited for, in milliseconds. */
export const SYNC_HINT_PING_MS: number = 5_000;

/** The shortest heartbeat a client lets a server tell it, in milliseconds. */
export const SYNC_HEARTBEAT_MS_MIN: number = 1_000;

/** Delay before a client downloads for a reader that was not asked for a batch yet, in milliseconds: most of those only check whether the log goes on from there. */
export const SYNC_READ_IDLE_MS: number = 1_000;

/** How far apart a watcher of a client is told of progress, in milliseconds. */
export const SYNC_PROGRESS_MS: number = 50;

/** How long what a client has received may fill all its credit, with nobody taking it, before others come first, in milliseconds. */
export const SYNC_STALL_MS: number = 5_000;

/** How long a client waits for a server to make a snapshot, in milliseconds. */
export const SYNC_SNAPSHOT_MS_MAX: number = 300_000;

/** How long a client keeps a snapshot on offer that nobody opens, in milliseconds. */
export const SYNC_SNAPSHOT_OFFER_MS: number = 30_000;

/** A block of a client's copy of the log that is still written to, in bytes; one batch more may pass it. */
export const SYNC_COPY_BLOCK_BYTES: number = 32 * 1024;

/** What a block of a client's copy of the log counts for beyond its content, in bytes. */
export const SYNC_COPY_BLOCK_COST_BYTES: number = 1024;

/** A client's copy of the log of one cluster, in bytes. What comes past it is not kept. */
export const SYNC_COPY_BYTES_MAX: number = 64 * 1024 * 1024;

/** What a client's copy of the log takes in before a snapshot is wanted, whatever the replica is told, in bytes; two let it be cut. */
export const SYNC_COPY_SNAPSHOT_BYTES: number = 16 * 1024 * 1024;

/** Clusters open on one connection, in channels. A client with more opens further connections. */
export const SYNC_CHANNELS_MAX: number = 64;

/** Reads, transfers and requests open on one connection, in streams. */
export const SYNC_STREAMS_MAX: number = 256;

/** Connections of one server, in connections. */
export const SYNC_CONNECTIONS_MAX: number = 4096;

/** Connections of one principal, in connections. */
export const SYNC_PRINCIPAL_CONNECTIONS_MAX: number = 64;

/** Sustained rate of one principal, on all its connections together, in commands per second; as many at once. Where clients are not authenticated, it bounds each connection. */
export const SYNC_COMMANDS_PER_SECOND_MAX: number = 50_000;

/** Commands that each record counts for which is refused, besides itself, in commands: to say why costs more than to add it to the log. */
export const SYNC_REFUSED_COMMANDS: number = 15;

/** Credit that each record of an append takes at least, in bytes: what a record costs the server does not depend on its length alone. */
export const SYNC_RECORD_CREDIT_BYTES: number = 64;

/** The longest run of work for what clients send before other events have a turn, in milliseconds. */
export const SYNC_SLICE_MS: number = 4;

/** Ranges that a server replays at one time to explain a divergence, in ranges. */
export const SYNC_EXPLAINS_MAX: number = 2;

/** Age from which permission to read is asked for again, in milliseconds. */
export const SYNC_RIGHT_ASK_MS: number = 2_000;

/** The oldest permission to read with which data is still sent, in milliseconds. */
export const SYNC_RIGHT_MS_MAX: number = 3_000;

/** Messages other than appends that one connection may send in the long run, in messages per second; as many at once. */
export const SYNC_MESSAGES_PER_SECOND_MAX: number = 20_000;

/** Snapshots that a server sends or takes at one time, in snapshots. */
export const SYNC_TRANSFERS_MAX: number = 16;

/** Of those, snapshots of one principal, in snapshots. */
export const SYNC_PRINCIPAL_TRANSFERS_MAX: number = 8;

/** Bound for one remote address at one time, in connections or snapshots: not limited, since one address may be that of a proxy or a company. */
export const SYNC_ADDRESS_MAX: number = Infinity;

/** Least mean rate of a snapshot that keeps its place while others wait for one, in bytes per second. A slower one goes on only as long as there are places. */
export const SYNC_TRANSFER_BYTES_PER_SECOND_MIN: number = 64 * 1024;

/** Snapshots that one connection is sent at one time, in snapshots. */
export const SYNC_CONNECTION_TRANSFERS_MAX: number = 2;

/** A snapshot that is uploaded, in bytes. */
export const SYNC_UPLOAD_BYTES_MAX: number = 16 * 1024 * 1024 * 1024;

/** How far behind a reader is when a snapshot is the better way, in entries. */
export const SYNC_FAR_ENTRIES: number = 16_384;

/** Recent records of a cluster that a server has in memory for its readers, in bytes; twice as many at most. */
export const SYNC_RING_BYTES: number = 4 * 1024 * 1024;

/** Frames of one connection that have not left before no data is sent to it, in bytes; past twice as many it is closed. */
export const SYNC_BUFFERED_BYTES_MAX: number = 4 * 1024 * 1024;

/** The same of all connections together, in bytes: each has an equal share, and may pass it by one frame. */
export const SYNC_BUFFERED_TOTAL_BYTES_MAX: number = 256 * 1024 * 1024;

/** Frames of one connection that have not left before no data is sent to it, in frames of the size that it takes: a small one costs as much as a large one. */
export const SYNC_BUFFERED_FRAMES_MAX: number = 256;

/** How often a server looks whether frames have left that it waits for, in milliseconds. */
export const SYNC_BUFFERED_TICK_MS: number = 10;

/** The longest wait for more records before what is there is sent to all readers, in milliseconds. */
export const SYNC_GATHER_MS_MAX: number = 10;

/** Who hears nothing for this long asks whether the other end is there, in milliseconds; for twice as long, hangs up. */
export const SYNC_HEARTBEAT_MS: number = 15_000;

/** First wait before a server whose listener has ended listens again, in milliseconds. */
export const SYNC_LISTEN_FIRST_MS: number = 100;

/** Longest wait before a server whose listener has ended listens again, in milliseconds. */
export const SYNC_LISTEN_LAST_MS: number = 2_000;

/** Time before a principal expires at which its client is asked for another token, in milliseconds; at most half of the time the principal is valid. */
export const SYNC_RENEW_MS: number = 30_000;

/** Grace period for a client whose principal is no longer valid to send another token, in milliseconds: until then nothing is sent to it or accepted from it. */
export const SYNC_RENEW_GRACE_MS: number = 5_000;

/** Messages of a client that wait until it has brought another token, in messages. */
export const SYNC_SUSPENDED_MESSAGES_MAX: number = 1024;

/** The least time after which a client is asked for a token again, in milliseconds. */
export const SYNC_RENEW_AGAIN_MS: number = 1_000;

/** How long a connection may take to say who it is, in milliseconds. */
export const SYNC_HELLO_MS_MAX: number = 10_000;

/** How long what the program that serves is asked (who somebody is, what they may do, whether a command is good) may take, in milliseconds. */
export const SYNC_HOOK_MS_MAX: number = 10_000;

/** Longest wait before a command that could not be judged is judged again, in milliseconds. */
export const SYNC_HELD_LAST_MS: number = 10_000;

/** How long a reader may take none of what waits for it, in milliseconds. */
export const SYNC_SLOW_MS_MAX: number = 30_000;

/** How long the log is kept for one who was sent a snapshot and has not read on, in milliseconds. */
export const SYNC_RETENTION_MS_MAX: number = 300_000;

/** How often a server looks after its connections, in milliseconds. */
export const SYNC_TICK_MS: number = 1_000;

/** How long a server that stops waits for what is under way, in milliseconds. */
export const SYNC_SHUTDOWN_MS_MAX: number = 5_000;

/** Commands of one cluster that an outbox keeps, in commands. */
export const OUTBOX_COMMANDS_MAX: number = 65_536;

/** Commands of one cluster that an outbox keeps, in bytes. */
export const OUTBOX_BYTES_MAX: number = 64 * 1024 * 1024;

/** Commands in one block of an outbox, in commands. */
export const OUTBOX_BLOCK_COMMANDS_MAX: number = 1024;

/** Commands in one block of an outbox, in bytes; one larger command may pass it. */
export const OUTBOX_BLOCK_BYTES_MAX: number = 1024 * 1024;

/** Commands that were decided and are removed from an outbox with the next write, in commands. Well below the window of a session. */
export const OUTBOX_DONE_COMMANDS_MAX: number = 1024;

/** How long fewer of them stay when nothing else is written, in milliseconds. */
export const OUTBOX_DONE_MS: number = 1_000;

/** Commands of an outbox that are on their way at once, in commands. */
export const OUTBOX_SENT_COMMANDS_MAX: number = 1024;

/** Commands that one write allows to be sent, in commands. */
export const OUTBOX_MARK_COMMANDS_MAX: number = 4096;

/** Holders of its session of whom an outbox does not know which one counts, in holders. */
export const OUTBOX_HOLDERS_MAX: number = 1024;

/** Replicas of which a server remembers whose their proposals are, in replicas. */
export const SYNC_ORIGINS_MAX: number = 65_536;

/** Of those, replicas of one owner, in replicas. */
export const SYNC_OWNER_ORIGINS_MAX: number = 1024;

/** What a server says of one connection between two looks after it, in records. */
export const SYNC_LOG_RECORDS_MAX: number = 100;

/** Time entries wait for a call of a machine before its host gets an event, in milliseconds. */
export const MACHINE_SLOW_MS: number = 5000;
