"""Every number that the protocol or the node promises: value, unit, source, reason.

*Specification* values come first and are never changed by configuration. *Ours* may be tuned; a ``Security:`` line stands where
an attacker chooses the value that the number bounds.
"""

from __future__ import annotations

from typing import Final

# --- Frame (design 3) -------------------------------------------------------------------------------------------------
HEADER_BYTES: Final = 20  # size u32, type 12, checksum 4 (specification, Message Format)
MAX_UNKNOWN_PAYLOAD: Final = 4 << 20  # bytes; an unknown type may be an extension. Security: skipped, never kept.
MAX_OPENING_PAYLOAD: Final = 1_024  # bytes before both veracks. Security: what a stranger may make us hold.

# --- Messages (design 4) ----------------------------------------------------------------------------------------------
MAX_USER_AGENT: Final = 256  # bytes of UTF-8
MAX_ADDR: Final = 1_000  # entries in one addr (BIP155)
MAX_ADDR_HOST: Final = 512  # bytes of an address of a network that we do not know (BIP155)
MAX_INVENTORY: Final = 50_000  # entries in inv, getdata, notfound (Bitcoin's MAX_INV_SZ)
MAX_LOCATOR: Final = 101  # hashes in getblocks, getheaders (Bitcoin's MAX_LOCATOR_SZ)
MAX_HEADERS: Final = 2_000  # entries in headers
HEADER_ITEM_BYTES: Final = 81  # a block header of Bitcoin and the zero behind it, in headers
MAX_BLOCK: Final = 4_000_000  # bytes; Bitcoin's MAX_BLOCK_SERIALIZED_SIZE
MAX_TX: Final = 4_000_000  # bytes; a transaction of a block may be as large as the block (one of 1 MB exists)
MAX_STEM_TX: Final = 100_000  # bytes; the mempool's own limit (design 12), since a stemtx is always relayed
MAX_BLOCK_TXS: Final = 65_535  # highest transaction index in compact block relay (BIP152: 16 bits)
MAX_PADDING_RULES: Final = 8  # rules in each half of padneg

# --- Handshake (design 5) ---------------------------------------------------------------------------------------------
PROTOCOL_VERSION: Final = 1
MIN_PROTOCOL_VERSION: Final = 1
HANDSHAKE_S: Final = 30.0  # seconds for channel and handshake together
MAX_CLOCK_SKEW_S: Final = 2 * 3600  # seconds; beyond it a peer's clock is noted, nothing else
COARSE_TIMESTAMP_S: Final = 300  # seconds; timestamps on anonymity networks are rounded to it (design 5)

# --- Channel (design 6) -----------------------------------------------------------------------------------------------
KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
MIN_FLIGHT: Final = 256  # bytes, plain carrier; flights are drawn uniform from MIN_FLIGHT..MAX_FLIGHT
MAX_FLIGHT: Final = 1_280  # bytes
NK_TRIAL_BYTES: Final = 56  # R 32 | E(hdr) 24: enough to know an NK flight from anything else
END_MARK_BYTES: Final = 16  # T of NX on plain
EPOCH_S: Final = 600  # seconds of unix time per replay epoch
REPLAY_EPOCHS: Final = 3  # epochs -1, 0, +1
REPLAY_KEPT: Final = 8  # epochs with flights that are remembered. Security: after a step of the clock they count again.
REPLAY_ENTRIES: Final = 65_536  # per epoch. Security: a full cache refuses rather than forgets.
FIRST_RECORD: Final = 256  # bytes of record 0 of each direction
MIN_RECORD: Final = 64  # bytes
MAX_RECORD: Final = 65_536  # bytes
RECORD_OVERHEAD: Final = 21  # bytes: flags 1, next size 2, used 2, tag 16
REKEY_RECORDS: Final = 4_096  # records under one key at most; the receiver enforces it
REKEY_S: Final = 600.0  # seconds under one key at most, by the sender
CLEAN_END_S: Final = 10.0  # seconds to finish the current frame and send the own flag 2
DISCARD_S: Final = (30.0, 90.0)  # seconds; plain reads and discards this long after a failure (uniform)
DISCARD_BYTES: Final = (4 << 10, 64 << 10)  # bytes; or this much, whichever is first (uniform)
TRIALS_PER_S: Final = 300.0  # key agreements per second for strangers in all. Security: 275 us each at most.
TRIALS_PER_GROUP_PER_S: Final = 2.0  # the same per network group, clearnet listeners only
TRIALS_PER_GROUP_BURST: Final = 10.0
TRIAL_GROUPS: Final = 4_096  # groups remembered. Security: many groups at once meet the total instead.
MAX_UNAUTHENTICATED: Final = 256  # connections without a proven channel, discarding ones included
UNAUTHENTICATED_BYTES: Final = 4_096  # bytes kept for each of them

# --- Web carriers (design 8; what strangers get has the numbers of nginx 1.22 as Debian 12 sets them) -------------------
CLIENT_HEADER_BUFFER: Final = 1_024  # bytes (client_header_buffer_size)
LARGE_HEADER_BUFFER: Final = 8_192  # bytes; a longer line is refused (large_client_header_buffers)
LARGE_HEADER_BUFFERS: Final = 4  # of them. Security: what a stranger's request may make us hold.
MAX_REQUEST_BODY: Final = 1 << 20  # bytes announced; they are discarded, never kept (client_max_body_size)
CLIENT_HEADER_S: Final = 60.0  # seconds for a whole request head, or a TLS handshake (client_header_timeout)
KEEPALIVE_S: Final = 75.0  # seconds between two requests (keepalive_timeout)
KEEPALIVE_REQUESTS: Final = 1_000  # on one connection (keepalive_requests)
KEEPALIVE_MOST_S: Final = 3_600.0  # seconds from the first request to the last (keepalive_time)
# seconds without and with bytes until an unread body is given up (lingering_timeout, _time)
LINGER_S: Final = (5.0, 30.0)
PROXY_READ_S: Final = 60.0  # seconds of a silent application until nginx ends its WebSocket (proxy_read_timeout)
GZIP_LEAST: Final = 20  # bytes; shorter pages are not compressed (gzip_min_length)
ZIPPED_PAGES: Final = 256  # pages kept compressed. Security: else a request of 60 bytes compresses 16 MiB.
CHUNK_OF_BODY: Final = 32 << 10  # bytes of a compressed page in one chunk (output_buffers)
SITE_WRITE_BYTES: Final = 128 << 10  # bytes of pages given to a socket at once. Security: one reader's cost.
SITE_STEP: Final = (256, 8)  # lines or chunks in one turn, and what a request adds. Security: as DNS_STEP_BYTES.
SITE_UNREAD_BYTES: Final = 64 << 10  # bytes of requests waiting behind an unread answer before we stop reading
# of visitors who came through a proxy and brought no token yet; the oldest are forgotten
PROXIED_COOKIES: Final = 4_096
SITE_FILE_BYTES: Final = 16 << 20  # bytes of one file of a site folder; sites are kept in memory
SITE_BYTES: Final = 64 << 20  # bytes of a whole site folder
TOKEN_BYTES: Final = (150, 560)  # bytes of flight 1 as a bearer token: as long as signed web tokens are
RENEWED_BYTES: Final = (120, 420)  # bytes of flight 2 as a renewed session cookie
MAX_PICTURE: Final = 1 << 20  # bytes of one body, either way (client_max_body_size)
# seconds that a request waits for news (long polling): at first, twice as long after each that heard none, then a drawn time.
# The client's own next word waits as long, since one request is out at a time.
POLL_FIRST_S: Final = 0.25
POLL_S: Final = (1.0, 3.0)
BODY_S: Final = 60.0  # seconds between two reads of a request's body (client_body_timeout)
POLL_END_S: Final = 10.0  # seconds for the request and the answer that an end may need (ours, CLEAN_END_S)
TLS_RECORD: Final = 16 << 10  # bytes in a record of TLS at the most (RFC 8446, 5.1; ssl_buffer_size)
MAX_CLIENT_HELLO: Final = 16 << 10  # bytes of a TLS opening that are looked at
MAX_ANSWER_HEAD: Final = 32 << 10  # bytes of a server's answer head that a dialler reads
MAX_FIRST_PAGE: Final = 4 << 20  # bytes of the first page that a dialler reads

UPSTREAM_AHEAD: Final = 256 << 10  # bytes of a site's answer read before the visitor took them
UPSTREAM_REQUESTS: Final = 64  # requests with the site behind at once; others wait. Security: what strangers cost it.
# seconds between two looks at an answer that is awaited: at first, and at most; between them UPSTREAM_LOOK_SHARE of what was
# waited. Security: many requests to a slow site cost little, and a quick one is not seen to be looked for.
UPSTREAM_LOOK_S: Final = (0.001, 0.25)
UPSTREAM_LOOK_SHARE: Final = 1 / 8
# seconds of silence after which a port of several covers speaks first, as SSH does (sslh's own)
AUTO_S: Final = 2.0

# --- Carrier ssh (design 8; OpenSSH 8.4's own values unless said otherwise) ---------------------------------------------
SSH_BANNER_BYTES: Final = 8_192  # bytes of a line of identification
SSH_BANNER_LINES: Final = 1_024  # lines that a server may say before its identification
SSH_READ_BYTES: Final = 8_192  # bytes that it reads from a socket at once
SSH_PACKET_BYTES: Final = 256 << 10  # bytes; PACKET_MAX_SIZE
SSH_REKEY_BYTES: Final = 1 << 30  # bytes under one set of keys (RFC 4253, 9)
SSH_REKEY_S: Final = 3_600.0  # seconds under one set of keys (RFC 4253, 9)
SSH_LOGIN_GRACE_S: Final = 120.0  # seconds to authenticate; then the connection is closed without a word
SSH_AUTH_TRIES: Final = 6  # MaxAuthTries: the sixth failure ends the connection
SSH_FAILURE_S: Final = (0.005, 0.0042)  # seconds that a refusal takes at least, and what a user's name adds at most
SSH_STARTUPS: Final = (100, 0.3, 200)  # MaxStartups: unauthenticated connections, chance to be dropped, most (ours)
SSH_WINDOW: Final = 2 << 20  # bytes in flight in one direction of the channel
SSH_CHANNEL_PACKET: Final = 32 << 10  # bytes of channel data in one packet
SSH_QUEUED: Final = 256 << 10  # bytes waiting for the window above which the channel takes no more (ours)
# bytes held of an unauthenticated peer whose request is being answered. Security: dropped then.
SSH_HELD: Final = 1 << 20
SSH_FLIGHT: Final = 512  # bytes of flight 1: an rsa-sha2-512 signature by a key of 4,096 bits (ours)
SSH_ANSWER: Final = (400, 3_000)  # bytes of flight 2: what a repository's list of references has (ours)
SSH_DRAIN_S: Final = 30.0  # seconds for the peer's window to take what waits when we end a channel (ours)
SSH_CLOSE_S: Final = 5.0  # seconds for the peer to close the channel that we close (ours)
SSH_RSA_BITS: Final = 3_072  # bits of a generated RSA host key: ssh-keygen's default

# --- Carrier dns (design 8; BIND 9.18's own values unless said otherwise) ---------------------------------------------
DNS_IDLE_S: Final = 30.0  # seconds without a request until a connection is closed (tcp-idle-timeout)
DNS_UNREAD_BYTES: Final = 64 << 10  # bytes of requests held while answers wait. Security: who reads nothing waits.
DNS_WRITE_BYTES: Final = 128 << 10  # bytes of answers given to a socket at once (ours)
DNS_UDP_BYTES: Final = (512, 1_232)  # bytes of an answer over UDP: without EDNS, and at most (max-udp-size)
# bytes of a stranger's requests that are looked at in one turn of the loop (one to two milliseconds), and what each counts beside
# its own. Security: 64 KiB of small records take some twenty, which all links would wait for, and show to who watches.
DNS_STEP_BYTES: Final = 4 << 10
DNS_REQUEST_BYTES: Final = 256
# units of UDP per second from one network group, and saved up; the same in all. A request is 1 for each 512 bytes begun (0.1 to
# 0.2 ms of work). BIND limits nothing by itself and answers 10,000 per second; dig, nmap and bursts of resolvers stay far below.
# Security: sources are forged, so answers of up to 1,232 bytes go to whoever the attacker chose: 1 Mbit/s for a group, 10 in all.
DNS_UDP_GROUP: Final = (100.0, 1_000.0)
DNS_UDP_ALL: Final = (1_000.0, 4_000.0)
DNS_UDP_GROUPS: Final = 4_096  # groups remembered, the latest. Security: many at once meet the budget of all.
DNS_UDP_WAITING: Final = 64  # datagrams that wait behind a large one; more are lost, as in a full socket (ours)
DNS_RARE_BYTES: Final = 1_024  # bytes of rare records looked into per message. Security: the library is slow.
DNS_ALIASES: Final = 16  # CNAMEs followed in one answer (max-restarts has 11)
# used cookies remembered, each for DNS_COOKIE_S. Security: beyond it no flight is looked at; TRIALS_PER_S has to end first.
DNS_COOKIES: Final = 32_768
DNS_COOKIE_S: Final = 60.0  # seconds; a cookie is made anew each second
DNS_MESSAGE_BYTES: Final = 20_480  # bytes of one message of a transfer, or of our updates (transfer-message-size)
DNS_PIPELINED: Final = 64  # updates without an answer above which no more are sent (ours)
DNS_END_S: Final = 5.0  # seconds for a client to ask for the transfer that still has something to say (ours)
# seconds that one zone transfer lasts while there is little to send (uniform; ours)
DNS_TRANSFER_S: Final = (5.0, 20.0)
DNS_TRANSFER_BYTES: Final = 16 << 20  # bytes after which a transfer ends and the next one begins (ours)
DNS_QUEUED: Final = 256 << 10  # bytes waiting for a transfer above which no more is taken (ours)
DNS_FLIGHT: Final = (160, 500)  # bytes of flight 1, in one or two signatures (ours)
DNS_ANSWER: Final = (120, 900)  # bytes of flight 2 (ours)
DNS_RSA_BITS: Final = 2_048  # bits of a generated zone key: dnssec-keygen's default for RSASHA256
DNS_SIGNED_S: Final = 30 * 86_400  # seconds that signatures are valid (dnssec-signzone -e)
DNS_RESIGN_S: Final = 7 * 86_400.0  # seconds after which a zone is signed anew (ours)
DNS_ZONE_BYTES: Final = 4 << 20  # bytes of an operator's zone file, which is kept in memory (ours)
DNS_ZONE_RECORDS: Final = (1_000, 20_000)  # records of it: signed here, half a second of work; signed already (ours)

# --- Padding (design 7) -----------------------------------------------------------------------------------------------
CELL: Final = 1_024  # bytes; record sizes of the rule `cells`, and every record before the own verack
UNIFORM_PADDING: Final = (64, 512)  # bytes; the published range of the rule `uniform`
# What an agreement is clamped to, at both ends alike. Security: a peer's padneg chooses what we send on its link.
NEGOTIABLE_RECORD_LOW: Final = (64, 4_096)  # bytes of the smallest record; above, each ping would cost 64 KiB
NEGOTIABLE_RECORD_HIGH: Final = (1_024, 65_536)  # bytes of the largest; below, a block would be 90,000 records
NEGOTIABLE_COVER_MS: Final = (1_000, 3_600_000)  # ms between two dummies, or two of chaff
NEGOTIABLE_BURST: Final = (1, 64)  # messages
NEGOTIABLE_SLOT_MS: Final = (20, 60_000)  # mean ms between two slots
MAX_HOLD_MS: Final = 2_000  # ms of jitter and burst together that any configuration may ask for
MAX_HELD_BYTES: Final = 64 << 10  # bytes; more than this waiting is bulk, and holding it back would hide nothing
MAX_HELD_MESSAGES: Final = 64  # messages, likewise
TOPPED_UP: Final = 0.1  # chance that a message which leaves alone is topped up; measured by `obscura lab leakage`
BREACH_SLACK: Final = 64  # records that an agreed rate may be exceeded by: bunched on the way, clocks that differ
BREACH_STALL_S: Final = 45.0  # seconds that a link may stall and send all at once then; more is a breach of the rate
BREACH_RATE: Final = 1.25  # times the agreed rate that is let pass

# --- Link (ours) ------------------------------------------------------------------------------------------------------
CONNECT_S: Final = 10.0  # seconds for TCP to connect
PATH_LOST_S: Final = 180.0  # seconds that what a dialled link sent may stay unacknowledged (TCP_USER_TIMEOUT, RFC 5482)
PING_INTERVAL_S: Final = 120.0  # seconds between pings of one link (design 10), each link with its own phase
PING_DEAD_S: Final = 1_200.0  # seconds without a pong: the peer is dead (design 10)
ARRIVING: Final = (4 << 10, 1.0)  # bytes, seconds at least: what is long is told to come on. Security: 0.4 kB/s last
SEND_QUEUE_HIGH: Final = 4 << 20  # bytes waiting for one peer; above it we stop reading from that peer
SEND_QUEUE_LOW: Final = 1 << 20  # bytes; below it we read again and senders go on
SEND_QUEUE_MAX: Final = 32 << 20  # bytes; a peer that makes us hold more is cut. Security: one slow reader's cost.
SEND_STALL_S: Final = 120.0  # seconds during which a peer takes nothing of what waits for it: cut
STALL_LOOK_S: Final = 15.0  # seconds between two looks at whether a full socket has taken anything
BLOCKED_POLL_S: Final = 1.0  # seconds between two looks at a link whose socket takes nothing
MOVE_WAIT_S: Final = 1_200.0  # seconds to leave the old connection: 4 MiB in slots of `high` take 1,040
# seconds without a byte on the old connection while its end is awaited; then the session is lost. Slots may be far apart.
MOVE_IDLE_S: Final = 300.0
ROTATION_HOURS: Final = (1.0, 24.0)  # hours between two moves of a session, uniform (design 8)
ROTATE_ASKED_S: Final = 600.0  # seconds between two moves that a peer may cause. Security: ours is the dialling.
ROTATION_AGAIN_S: Final = (60.0, 3_600.0)  # seconds after a move that failed: first wait, longest wait
ROTATION_STRANGERS: Final = 16  # addresses remembered per session as those of somebody else
# seconds from last words to a reset, time to acknowledge them: until sshd has ended, median of 40
RESET_S: Final = 0.0011
SHUT_S: Final = 5.0  # seconds in which none of the last bytes of a closed link leave before its socket is reset
# sockets of ended links that linger or still have something to say, the oldest are reset. Security: they are in no other count.
LEAVING_SOCKETS: Final = 256
STOP_S: Final = 10.0  # seconds for all links to end cleanly when the node stops
WRITE_BUFFER: Final = 128 << 10  # bytes in a socket's write buffer above which nothing more is sealed for it
FLUSH_BYTES: Final = 256 << 10  # bytes of frames sealed before they are written: what a processor's cache holds
MAX_JOINED_WRITE: Final = 128 << 10  # bytes that are copied into one write; above it a system call is cheaper
READ_CHUNK: Final = 256 << 10  # bytes of the one receive buffer that all links of a loop share
KEPT_FREE_BYTES: Final = 16 << 20  # bytes of freed memory that `obscura run` keeps: a few of the largest blocks

# --- Penalties (design 10) --------------------------------------------------------------------------------------------
MALFORMED_POINTS: Final = 20  # points for a message whose checksum or payload is wrong
DISCONNECT_POINTS: Final = 100  # points that end a link
POINTS_HALF_LIFE_S: Final = 600.0  # seconds in which points halve
FLOOD_POINTS: Final = 20  # each message over the hard limit of its kind
DISCOURAGED_S: Final = 24 * 3600.0  # seconds; a discouraged host only ranks last
DISCOURAGED_HOSTS: Final = 10_000  # remembered. Security: whoever owns more hosts pushes out the oldest ones.
LEFT_SCORES: Final = 4_096  # hosts whose points outlive their link, so that reconnecting does not clear them
MAX_BANS: Final = 10_000  # manual bans

# --- Rates (ours; a link over them is served later, then penalised) ---------------------------------------------------
# Per kind: messages per second, messages at once, bytes per second, bytes at once (one larger message may go when all of it was
# saved up). Security: what one peer can make us do; honest ones stay far below, blocks and headers being asked for by us.
UNKNOWN_KIND: Final = "?"  # all types that we do not know, together
RATES: Final[dict[str, tuple[float, float, float, float]]] = {
    "ping": (20, 200, 1, 1),
    "pong": (20, 200, 1, 1),
    "addr": (0.2, 10, 20e3, 128e3),
    "getaddr": (0.02, 5, 1, 1),
    "inv": (50, 500, 36e3, 180e3),
    "getdata": (100, 1_000, 36e3, 180e3),
    "notfound": (50, 500, 36e3, 180e3),
    "tx": (500, 2_000, 2e6, 16e6),
    "stemtx": (50, 500, 500e3, 4e6),
    "mempool": (0.005, 3, 1, 1),
    "getblocks": (5, 100, 1, 1),
    "getheaders": (20, 200, 1, 1),
    "headers": (500, 2_000, 50e6, 400e6),
    "block": (20_000, 50_000, 1e9, 2e9),
    "sendcmpct": (0.1, 10, 1, 1),
    "cmpctblock": (20, 500, 2e6, 64e6),
    "getblocktxn": (20, 500, 1, 1),
    "blocktxn": (20, 500, 16e6, 256e6),
    "rotate": (0.01, 5, 1, 1),
    UNKNOWN_KIND: (20, 500, 1e6, 16e6),
}
DEFERRED_MESSAGES: Final = 256  # over their rate and waiting, per peer; beyond: dropped and FLOOD_POINTS
DEFERRED_BYTES: Final = 8 << 20  # of memory for them, per peer; one message may always wait
ITEMS_SPREAD: Final = 3  # bytes of memory for each on the wire of inv, getdata, notfound, addr (measured: 105 for 36)
MEMORY_BUDGET: Final = 256 << 20  # bytes held for all peers; above it the peer that makes us hold most is cut

# --- Slots (design 10) ------------------------------------------------------------------------------------------------
MAX_INBOUND: Final = 125  # established inbound links
OUTBOUND_FULL: Final = 8  # outbound links that carry everything
OUTBOUND_BLOCKS: Final = 2  # outbound links for blocks alone, whose peers become the anchors of the next start
FEELER_S: Final = 120.0  # seconds (mean) between feelers
FILL_S: Final = (0.2, 1.0)  # seconds between two dials while slots are free (uniform)
EMPTY_S: Final = (0.5, 3.0)  # seconds after which news in the book is looked at, when it had nothing to dial (uniform)
STARVED_S: Final = 12.0  # seconds until the book is asked again without news: waits in it may be over
OFFLINE_MOST_S: Final = 30.0  # seconds between attempts at most while there is no network at all
ROTATION_S: Final = 12 * 3_600.0  # seconds (mean) until one outbound peer is replaced: each stays some days
MISSING_FACE_S: Final = 300.0  # seconds (mean) between extra dials while a face has no peer (Bitcoin's interval)
STALE_CHECK_S: Final = 600.0  # seconds between looks at the age of the best header (Bitcoin's interval)
STALE_SPACINGS: Final = 30  # block spacings without a new header after which the tip counts as stale
STALE_LEAST_S: Final = 1_800.0  # ... but at least so many seconds
SETTLED_S: Final = 600.0  # seconds for which a new outbound peer is not replaced
USELESS_PLACES: Final = 1_000  # places remembered as not dialable by this node
PEERS_FILE_BYTES: Final = 64 << 20  # bytes of the stored book; a full one has about 20 MB
PEERS_SAVED_S: Final = 900.0  # seconds between two writes of it
PROTECTED_GROUPS: Final = 4  # inbound links safe from eviction: of groups chosen by a secret key (Bitcoin's sizes)
PROTECTED_PINGS: Final = 8  # ... with the shortest round trips
PROTECTED_TRANSACTIONS: Final = 4  # ... that last brought a new transaction
PROTECTED_BLOCKS: Final = 4  # ... that last brought a new block
ASMAP_BYTES: Final = 16 << 20  # bytes of an asmap file; published ones have 2 MB

# --- Reconnection (ours) ----------------------------------------------------------------------------------------------
BACKOFF_FIRST_S: Final = 1.0  # seconds; shortest wait before a failed address is dialled again
BACKOFF_MOST_S: Final = 600.0  # seconds; longest

# --- Addresses (design 10) --------------------------------------------------------------------------------------------
NEW_BUCKETS: Final = 1_024  # buckets of places that others told
TRIED_BUCKETS: Final = 256  # buckets of places that completed a handshake with us
BOOK_CELLS: Final = 64  # places in a bucket
BOOK_DRAWS: Final = 256  # random draws until the book is looked through; one of half as many places is at once
BOOK_LOOK: Final = 2_048  # places looked through at each such call: 10 ms, for which the loop waits
BUCKETS_REMEMBERED: Final = 1 << 16  # bucket numbers kept computed
NEW_BUCKETS_PER_SOURCE: Final = 64  # new buckets that the word of one group can reach. Security: 1/16 of the table.
TRIED_BUCKETS_PER_GROUP: Final = 8  # tried buckets that the places of one group can reach. Security: 1/32.
HORIZON_S: Final = 30 * 86_400  # seconds unseen after which a place is worthless (Bitcoin's ADDRMAN_HORIZON)
FAILURES_OF_NEW: Final = 3  # failures after which a place that never answered is worthless
FAILURES_OF_TRIED: Final = 10  # failures after which one that did, but not for STALE_SUCCESS_S, is
STALE_SUCCESS_S: Final = 7 * 86_400
RECENT_SUCCESS_S: Final = 4 * 3_600  # a tried place that answered this lately keeps its cell untested
TEST_S: Final = (600, 2_400)  # seconds between two tests of a tried place, and for its test before it loses its cell
PENDING_TESTS: Final = 10  # places waiting for the test of another
RETRY_S: Final = 10  # seconds until a place is dialled again at the earliest: a full one is not pestered
UNPROVEN_RETRY_S: Final = 86_400  # seconds until an address that proved no key is tried again, doubling (design 10)
ALONE_RETRY_S: Final = 600  # ... by a node without any link, if no failure was counted: the fault may have been its own
SEEN_AHEAD_S: Final = 600  # seconds by which a told time may be ahead of the own clock (Bitcoin's IsTerrible)
SEEN_STEP_S: Final = 3_600  # seconds by which gossip must be newer to count
MAX_CANDIDATE_KEYS: Final = 3  # unproven keys kept per address (design 10)
MAX_KEY_SOURCES: Final = 8  # groups counted as saying one key
KEY_FAILURES: Final = 3  # failures of a verified key, over KEY_FAILURES_S, until it is a candidate again (design 10)
KEY_FAILURES_S: Final = 86_400
BURNT_KEYS: Final = 8  # failed keys remembered per address, so that the same lie does not work twice
BURNT_S: Final = 86_400
LOW_PORTS: Final = frozenset({22, 53, 80, 443})  # ports under 1,024 that may be dialled on hearsay (design 10)
SERVICE_PORTS: Final = frozenset(  # ports of other services, which nobody shall make us knock at (IANA registry)
    {1080, 1194, 1433, 1521, 1719, 1720, 1723, 1883, 2049, 2375, 2376, 3128, 3268, 3306, 3389, 3478, 3659, 4045, 4190}
    | {4369, 5060, 5061, 5432, 5671, 5672, 5900, 5984, 6000, 6379, 6566, 6667, 6679, 6697, 8332, 8333, 9042, 9050, 9051}
    | {9092, 9200, 9300, 10080, 11211, 18080, 18081, 25565, 27017, 50000}
)
ADDRESS_BOOK_ENTRIES: Final = 1_024 * 64  # entries of the book
GETADDR_SHARE: Final = 0.23  # part of the book that one getaddr answer shows
GETADDR_CACHE_S: Final = (21 * 3_600.0, 27 * 3_600.0)  # seconds that one answer is given to all (uniform)
GETADDR_BLUR_S: Final = 2 * 86_400  # seconds by which times in an answer are moved back at most (uniform)
ADDR_PER_S: Final = 0.1  # addresses per second and peer that are looked at (Bitcoin's MAX_ADDR_RATE_PER_SECOND)
ADDR_BURST: Final = 1_000  # at once, and what asking for addresses allows
ADDR_RELAYED: Final = 10  # an addr with more entries is an answer, not news, and is not relayed
ADDR_FRESH_S: Final = 600  # seconds; older news is not relayed
ADDR_DELAY_S: Final = 10.0  # seconds (mean) until news goes on, so that its way through the network cannot be timed
ADDR_RELAY_PEERS: Final = 2  # peers that get a piece of news; one if we do not use that network ourselves
ADDR_KNOWN: Final = 500  # news of addresses that a link remembers its peer to have: over an hour at its rate, 40 kB
ADDR_PENALTY_S: Final = 7_200  # seconds taken off a told time (Bitcoin)
ANNOUNCE_S: Final = 86_400.0  # seconds (mean) between announcements of the own address on one link
OBSERVERS: Final = 3  # outbound peers of different groups that must see us at one address before we believe it

# --- Discovery (design 11) --------------------------------------------------------------------------------------------
SEEDS_WANTED: Final = 50  # usable entries of the book; with fewer, seeds are asked for (design 11)
SEED_OPERATORS: Final = 2  # operators asked in a round, and that must agree on each unsigned record (design 11)
SEED_ASKED: Final = 4  # operators asked in a round at most, where the first ones failed or disagreed
SEED_NAMES: Final = 8  # names to ask for
SEED_PROVIDERS: Final = 16  # providers in a configuration
SEED_START_S: Final = (5.0, 30.0)  # seconds after the start, uniform, if the book holds something: anchors come first
SEED_CHECK_S: Final = 600.0  # seconds between looks at the number of usable entries
SEED_AGAIN_S: Final = 3_600.0  # seconds after a round that found something, or the answer's time to live if longer
SEED_BACKOFF_S: Final = (30.0, 7_200.0)  # seconds after a round that found nothing: first wait, longest wait
SEED_UNHEARD_MOST_S: Final = 600.0  # the longest if nobody answered: perhaps this machine has no network
SEED_TTL_S: Final = (300, 86_400)  # seconds that an answer is kept. Security: neither for ever nor asked all the time.
SEED_NEGATIVE_TTL_S: Final = (60, 3_600)  # the same for "there is no such record" (RFC 2308, 5 says up to 3 h)
SEED_RECORDS: Final = 64  # records of one answer that are looked at. Security: the rest of a flood is ignored.
SEED_TEXT_BYTES: Final = 1_000  # bytes of one signed text that we make, so that a few fit one DNS answer
SEED_TEXT_MOST: Final = 4_096  # bytes of one signed text that we read
SEED_DAYS: Final = (30, 366)  # days that a signed list is valid: by default, at most
DOH_S: Final = 20.0  # seconds for one provider: connecting to any of its addresses, and all answers
DOH_CONNECT_S: Final = 6.0  # seconds for TCP, TLS and HTTP/2 with one of its addresses
DOH_ANSWER: Final = 32 << 10  # bytes of one answer. Security: a signed list of 100 seeds has 10 KB.
DOH_CONNECTION: Final = 128 << 10  # bytes read from one connection. Security: floods of empty frames end here.
DNS_PADDING: Final = 128  # bytes; queries are padded to a multiple (RFC 8467, 4.1)

# --- Port mapping (RFC 6887, RFC 6886; ours where they leave it open) --------------------------------------------------
PORT_MAPPING_PORT: Final = 5_351  # UDP port of a router that speaks PCP or NAT-PMP
PORT_MAPPING_BYTES: Final = 1_100  # bytes of a datagram (RFC 6887, 7). Security: a longer answer is passed over.
PORT_MAPPING_S: Final = 7_200  # seconds asked for (RFC 6886, 3.3); renewed at half of what is given
PORT_MAPPED_S: Final = (120, 86_400)  # seconds given that are believed. Security: no renewing all the time, nor never.
PORT_MAPPING_AGAIN_S: Final = 1_800.0  # seconds until a router that refused or kept silent is asked again
PORT_MAPPING_LOOK_S: Final = 30.0  # seconds between looks whether the router, or our address behind it, is another one
PCP_FIRST_S: Final = 3.0  # seconds to the first repetition, then doubling (RFC 6887, 8.1.1)
PCP_TRIES: Final = 3  # without an answer: then NAT-PMP
NATPMP_FIRST_S: Final = 0.25  # seconds to the first repetition, then doubling (RFC 6886, 3.1)
NATPMP_TRIES: Final = 7  # without an answer: 32 s; RFC 6886 has 9
PORT_UNMAPPED_S: Final = 0.25  # seconds to wait for the word that a mapping is gone, when a node stops
PORT_UNMAPPED_TRIES: Final = 3

# --- Tor (design 11; ours) --------------------------------------------------------------------------------------------
TOR_CONNECT_S: Final = 75.0  # seconds for a circuit and a stream; a client with a stale descriptor was seen to need 35
TOR_FIRST_TRY_S: Final = 25.0  # of them for an onion service whose descriptor may be stale; then it is fetched anew
TOR_DESCRIPTOR_S: Final = 10.0  # seconds to fetch a descriptor
SOCKS_CREDENTIAL_BYTES: Final = 16  # random bytes of a user and of a password: never the same twice
TOR_LINE_BYTES: Final = 64 << 10  # bytes of one line of the control port. Security: local, but perhaps no tor at all.
TOR_REPLY_LINES: Final = 10_000  # lines of one answer, data among them (circuit-status of a busy tor has hundreds)
TOR_REPLY_BYTES: Final = 4 << 20  # bytes of one answer: such lines of 400 bytes. Security: as TOR_LINE_BYTES.
TOR_REPLY_S: Final = 20.0  # seconds for an answer of the control port
HELPER_KEEP_ALIVE: Final = (60, 15, 4)  # seconds until tor's or the router's silent machine is asked, between; times
TOR_COOKIE_BYTES: Final = 32  # bytes of the cookie file (control-spec 3.24). Security: no other file is ever sent.
TOR_START_S: Final = 30.0  # seconds for an own tor to open its control port
TOR_STOP_S: Final = 5.0  # seconds for an own tor to end before it is killed
TOR_AGAIN_S: Final = (1.0, 30.0)  # seconds between attempts to reach tor: first, longest
TOR_HEALTHY_S: Final = 60.0  # seconds of service after which the waits begin anew
# introductions per second and burst before clients have to work (tor's own defaults)
TOR_POW_RATE: Final = (250, 2_500)

# --- I2P (design 11; ours) --------------------------------------------------------------------------------------------
I2P_CONNECT_S: Final = 80.0  # seconds of a dial: waiting for the own session, lookup (i2pd: 25 if absent), stream
I2P_AGAIN_STREAM_S: Final = 3.0  # seconds until the one further try where a known destination's LeaseSet was missing
I2P_APART_TRIES: Final = 3  # dials by sessions of their own after an unanswered one; each costs the router tunnels
I2P_SESSION_S: Final = 300.0  # seconds for the tunnels of a session; i2pd 2.45 answers at multiples of 20
I2P_PROGRESS_S: Final = 30.0  # seconds between two words in the log while tunnels are built
I2P_ACCEPTS: Final = 4  # STREAM ACCEPTs waiting at once: so many streams may come while one is being handed over
I2P_ACCEPT_AGAIN_S: Final = 2.0  # seconds until an accept that failed alone is tried again
I2P_AGAIN_S: Final = (1.0, 60.0)  # seconds between attempts to reach the router: first, longest
I2P_HEALTHY_S: Final = 60.0  # seconds of service after which the waits begin anew
I2P_INSTANT_S: Final = 0.25  # seconds; a session made faster has got a destination that the router had already ...
I2P_CLEANUP_S: Final = 10.0  # seconds; ... and that i2pd 2.45 deletes 5 s after its last session ended, whoever uses it
I2P_LEASES_S: Final = 55.0  # seconds until a lost destination is asked for anew: i2pd adds 51 to the life of a LeaseSet
I2P_LOOK_S: Final = (3.0, 300.0)  # seconds between looks at whether others can find our destination: first, longest
I2P_OWN_SESSIONS: Final = 16  # links with a transient destination of their own at once; each costs the router tunnels
I2P_DIALLED: Final = 65_536  # destinations with a lasting internal address (design 11)
I2P_INBOUND: Final = 4_096  # destinations with a passing one. Security: streams beyond are closed.
SAM_REPLY_S: Final = 20.0  # seconds for an answer that needs no network
SAM_LOOKUP_S: Final = 45.0  # seconds for a lookup
SAM_LINE_BYTES: Final = 8 << 10  # bytes of one line; a private key has 908. Security: it may be no SAM bridge at all.
DESTINATION_BYTES: Final = (387, 1_024)  # bytes of a destination (common structures); an Ed25519 one has 391

# --- Local control (ours) ---------------------------------------------------------------------------------------------
RPC_LINE_BYTES: Final = 16 << 20  # bytes of one request: a block of 4 MB as hex, twice over. Security: owner only.
RPC_CONNECTIONS: Final = 64  # clients of the control socket at once
RPC_EVENTS_QUEUED: Final = 10_000  # events held for a subscriber that does not read; then it is told how many were lost
RPC_BATCH: Final = 1_000  # calls in one batch
RPC_IN_FLIGHT: Final = 32  # calls of one client being worked on; beyond it we stop reading from that client
RPC_STALL_S: Final = 30.0  # seconds for a client to finish a line that it began, or to take an answer
RPC_LEAVE_S: Final = 1.0  # seconds for control clients to take what is left for them when the node stops (ours)
RPC_CALL_S: Final = 120.0  # seconds that our own client waits for an answer: TOR_CONNECT_S and HANDSHAKE_S with room
SOCKET_PATH_BYTES: Final = 107  # sun_path of unix(7), without its NUL
CONFIG_FILE_BYTES: Final = 64 << 10  # bytes; a larger file is a mistaken path, and finding its lines would take long

# --- The operator's HTTP on loopback (ours) ---------------------------------------------------------------------------
HTTP_HEAD_BYTES: Final = 16 << 10  # bytes of a request line with its headers. Security: of whoever is on this machine.
HTTP_HEAD_S: Final = 10.0  # seconds for them. Security: a connection that says nothing holds a place so long.
HTTP_IDLE_S: Final = 60.0  # seconds that a connection is kept for its next request
# connections at once; beyond it the oldest stranger goes, or the oldest with a small token where such hold over half; the new
# one where all are of scope admin. Security: whoever has a small token does not keep the owner out.
HTTP_CONNECTIONS: Final = 64
HTTP_STREAMS: Final = 16  # event streams at once, half of them without scope admin; they leave places for calls
HTTP_BEAT_S: Final = 15.0  # seconds of silence after which a stream says that it lives, and looks whether it still may
# random bytes of a cookie, token or session: no guessing, so a plain hash is enough to store it
SECRET_BYTES: Final = 32
MAX_TOKENS: Final = 64  # user tokens of one node
TOKENS_FILE_BYTES: Final = 64 << 10  # bytes of their file; a larger one is damaged
MAX_SESSIONS: Final = 32  # logins of browsers; the oldest of the secret that has most ends
SESSION_S: Final = 12 * 3600.0  # seconds that a login of a browser lasts
LOGIN_CODE_S: Final = 120.0  # seconds that a login code waits. Security: it stands in an address.
MAX_LOGIN_CODES: Final = 8  # that wait at once; the oldest ends
METRICS_CONNECTIONS: Final = 8  # scrapers at once
# seconds that one set of metrics is shown. Security: when in them something happened is not.
METRICS_EVERY_S: Final = 10.0
METRICS_QUEUE_STEP: Final = 64 << 10  # bytes; queues are shown in whole ones. Security: one transaction does not show.
# seconds; upper bounds of the histograms: coarse, so that they say nothing of one peer
DURATION_BOUNDS_S: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

# --- Doctor (ours) ----------------------------------------------------------------------------------------------------
CLOCK_EARLIEST_UNIX: Final = 1_735_689_600  # unix seconds of 2025-01-01; this program is younger
CERTIFICATE_DAYS: Final = 14  # days left to a listener's certificate below which something has to be done
DISK_FREE_BYTES: Final = 200_000_000  # free bytes below which the store may stop soon
DISK_LOW_BYTES: Final = 2_000_000_000  # free bytes below which pruning is worth a thought
OPEN_FILES_BESIDE: Final = 64  # descriptors that a node needs beside those of its inbound links
PROBE_S: Final = 5.0  # seconds for what a stranger gets at an own door
PROBE_SILENCE_S: Final = 0.5  # seconds without a byte that count as silence
STORE_CHECK_S: Final = 10.0  # seconds that the check of the store may read

# --- Ledger (design 12; Bitcoin's consensus values where nothing else is said) ----------------------------------------
MAX_BLOCK_WEIGHT: Final = 4_000_000  # units: 3 x bytes without witnesses + bytes (BIP141)
MAX_MONEY: Final = 21_000_000 * 100_000_000  # smallest units; no output and no sum of outputs is larger
MAX_FUTURE_S: Final = 2 * 3600  # seconds a header's time may be ahead of our clock
MEDIAN_TIME_SPAN: Final = 11  # headers whose median time the next header's time must exceed
COINBASE_SCRIPT: Final = (2, 100)  # bytes of a coinbase's input script
RETARGET_FACTOR: Final = 4  # a retarget changes the target by at most this factor either way
PRESYNC_PERIOD: Final = 600  # headers per kept bit. Security: what a peer's presync costs.
PRESYNC_BUFFER: Final = 14_400  # headers held back on the second pass; 24 bits stand behind each released one
PRESYNC_AGAIN: Final = 3  # counts begun anew for one link: its chain may change meanwhile. Security: more are a fault.
PRESYNC_HEADERS: Final = 20_000_000  # headers in one presync at most. Security: ends a peer with endless headers.
NEAR_TIP_HEADERS: Final = 144  # headers' worth of work below our tip that a new branch may lack without a presync

# --- Store (ours) -----------------------------------------------------------------------------------------------------
KEPT_BLOCKS: Final = 288  # newest heights whose bodies pruning never takes (Bitcoin's MIN_BLOCKS_TO_KEEP)
LEAST_PRUNE_TARGET: Final = 64 << 20  # bytes; a smaller `prune` is refused by the configuration, not by the store
STORE_BATCH_BYTES: Final = 16 << 20  # bytes of bodies in one commit at most
STORE_PAGE: Final = 32 << 10  # bytes; measured: bodies of 1 MB are written 1.4 x faster than with 16 KiB
STORE_CHECKPOINT_PAGES: Final = 1_000  # pages of WAL (32 MB) before it is copied back; 8,000 halved the rate
STORE_PRUNED_PER_COMMIT: Final = 256  # bodies dropped in one commit at most, so that none takes long
STORE_FREE_PAGES: Final = 2_048  # free pages (64 MB) kept for the next bodies; above it the file is made shorter
STORE_CHECKED_BLOCKS: Final = 32  # newest bodies whose checksums are read again at a start after a crash

# --- Synchronisation (ours; most as in Bitcoin Core's net_processing) -------------------------------------------------
BLOCKS_IN_FLIGHT: Final = 16  # blocks asked of one peer at once ...
BYTES_IN_FLIGHT: Final = 4 << 20  # ... and more of them where they are small, up to about as many bytes ...
MOST_IN_FLIGHT: Final = 128  # ... and so many blocks
BLOCK_WINDOW: Final = 1_024  # heights above a chain's blocks without a gap within which its blocks are asked for
BLOCK_BYTES_WAITING: Final = 64 << 20  # bytes of blocks asked for (estimated) or not on the disk yet
BLOCK_BYTES_ASSUMED: Final = 250_000  # bytes of a block before any was seen
BLOCK_PATIENCE_S: Final = (10.0, 160.0)  # seconds without any block of a peer; doubles each time it was too short
BLOCK_STEAL_S: Final = 2.0  # seconds after which the block that holds the window up is asked of an idle peer too
BLOCK_REST_S: Final = 120.0  # seconds without a question for blocks: who lacks some; a manual peer that stalled
SYNC_TICK_S: Final = 1.0  # seconds between looks at these while blocks are in flight
REFETCHED_AT_ONCE: Final = 16  # blocks that the disk damaged, asked of peers anew at once ...
REFETCH_S: Final = 30.0  # ... seconds until the next ones, and until another peer is asked for what did not come ...
REFETCH_REST_S: Final = 3600.0  # ... and for which no peer is asked twice for the same one: it may have pruned it
HEADERS_S: Final = 20.0  # seconds for an answer to getheaders
# seconds, uniform, until a peer whose header came from too far in the future is asked again: nobody announces it twice.
# Security: whoever sends such headers gets one question each time; drawn for each link, so that no two show the same moment.
EARLY_AGAIN_S: Final = (60.0, 120.0)
HEADERS_LEAD: Final = 200_000  # headers above the tip (37 MB). Security: where work costs nothing, headers are endless.
MAX_UNCONNECTING: Final = 10  # headers messages in a row that connect to nothing known
MAX_GETBLOCKS: Final = 500  # ids in the inv that answers getblocks (Bitcoin)
ANNOUNCED_HEADERS: Final = 8  # new headers told at once; more are told as one inv (Bitcoin's MAX_BLOCKS_TO_ANNOUNCE)
CATCHING_UP_S: Final = 1.0  # seconds between two announcements while more blocks are known to come
SHOWN_BRANCHES: Final = 16  # left branches remembered as shown at a face, whose blocks it goes on giving (ours)
TIP_LAG_S: Final = 2.0  # seconds (uniform from 0) after which each face of a node with several shows what is new
BLOCKS_WANTED: Final = 1_024  # blocks that one peer may have asked for and not got. Security: memory per peer.
SERVING_FETCHES: Final = 2  # blocks being read from the disk for one peer at once; more where they are small
BAD_BLOCK_POINTS: Final = 100  # a block or header that no honest node sends
UNREQUESTED_POINTS: Final = 20  # data that nobody asked for
UNCONNECTING_POINTS: Final = 20  # headers again and again that connect to nothing

# --- Compact blocks (BIP152) ------------------------------------------------------------------------------------------
COMPACT_VERSION: Final = 2  # short ids of witness ids
HIGH_BANDWIDTH_PEERS: Final = 3  # peers asked to send cmpctblock without asking (BIP152)
COMPACT_DEPTH: Final = 5  # blocks below the tip still answered with cmpctblock (Bitcoin)
BLOCKTXN_DEPTH: Final = 10  # blocks below the tip for which getblocktxn is answered; deeper ones are sent whole
COMPACT_S: Final = 10.0  # seconds for blocktxn; then the whole block is asked for

# --- Transactions (design 9, 12) --------------------------------------------------------------------------------------
MEMPOOL_BYTES: Final = 64 << 20  # bytes of all waiting transactions
MEMPOOL_ENTRY_BYTES: Final = 500  # bytes that one entry costs beside its own. Security: many tiny transactions.
MEMPOOL_SHARE: Final = 4  # one peer's transactions may take 1 / 4 of the mempool
MEMPOOL_S: Final = 72 * 3600.0  # seconds that a transaction waits for a block
CLOCK_LEAP_S: Final = 12 * 3600.0  # seconds by which a clock that was behind leaps, for which no transaction waited
MEMPOOL_KEEP_S: Final = 5.0  # seconds between writes of what changed in the mempool to the disk
MEMPOOL_SWEEP_S: Final = 600.0  # seconds between looks for transactions that waited too long
LEAVING_BYTES: Final = 8 << 20  # of transactions that left, given until a face shows why (ours). Security: many blocks.
MEMPOOL_REQUEST_S: Final = 600.0  # seconds between mempool requests of one link that are answered
MEMPOOL_ASKED: Final = 3  # inbound peers whose mempools are asked for: announcements may have been missed
# Transactions of branches left behind are looked for at a start (ours): a crash just after a reorganisation lost them.
REENTRY_DEPTH: Final = 100  # heights below the tip. Security: each block takes its work to make.
MAX_RELAYED_TX: Final = 100_000  # bytes of a transaction outside a block
TX_IN_FLIGHT: Final = 100  # transactions asked of one peer at once
TX_PAUSE_S: Final = 2.0  # seconds that further announcements of that peer wait then
TX_SECOND_SOURCE_S: Final = 60.0  # seconds after which the next peer that announced it is asked
TX_ANNOUNCED: Final = 5_000  # announcements of one peer that wait to be asked for. Security: memory per peer.
TX_SOURCES: Final = 8  # peers remembered as sources of one transaction, beside those that we dialled
TX_KNOWN: Final = 10_000  # ids that do not wait here, remembered with the links that know them
TX_REFUSED: Final = 10_000  # ids remembered as refused, or in a block already, so that they are not asked for again
TX_INV: Final = 5_000  # ids in one announcement: as many as the peer remembers (TX_ANNOUNCED)
TX_OUTBOUND_MEAN_S: Final = 2.0  # seconds, mean of the exponential wait of each outbound link
TX_INBOUND_MEAN_S: Final = 5.0  # seconds, the same for all inbound links of a face together
BAD_TX_POINTS: Final = 20  # a transaction that no honest node relays

# --- Dandelion++ (design 9) -------------------------------------------------------------------------------------------
STEM_SUCCESSORS: Final = 2  # of the full outbound peers, per face and epoch (the paper's quasi-4-regular graph)
STEM_FLUFF: Final = 0.1  # probability that an inbound edge diffuses for an epoch; the privacy levels set their own
STEM_EPOCH_S: Final = 600.0  # seconds; each face with its own random phase
STEM_EPOCH_EXTRA_S: Final = 30.0  # seconds on top, uniform, so that epochs of two faces drift apart
STEM_HOP_S: Final = (0.3, 5.0)  # seconds of one hop that are believed. Security: a peer can delay its pongs.
EMBARGO_MISS: Final = 0.1  # probability that some embargo of an honest stem fires early
# seconds until what is diffused comes back; measured with `obscura simulate` (docs/simulator.md)
DIFFUSION_RETURN_S: Final = 3.0
STEM_TXS_PER_PEER: Final = 100  # transactions in the stem phase per inbound edge. Security: beyond it they are dropped.
STEM_BYTES_PER_PEER: Final = 1 << 20  # bytes of them. Security: 125 edges of strangers hold 125 MiB at the very most.
STEM_BYTES: Final = 32 << 20  # bytes of all, own ones apart, a third for each face. Security: bounds the whole node.
STEM_ENTRY_BYTES: Final = 900  # bytes that one costs beside its own (measured: 800). Security: many tiny transactions.
UNWANTED_STEM_POINTS: Final = 20  # points for a stemtx on a link that carries none, or one that can never be valid
BROADCAST_WAIT_S: Final = 30.0  # seconds that an own transaction waits for a successor, policy private
BROADCAST_STRICT_WAIT_S: Final = 3_600.0  # the same for policies that rather give up than show the origin
BROADCAST_POLL_S: Final = 1.0  # seconds between looks at whether an own transaction came back
BROADCAST_SEEN_PEERS: Final = 3  # peers that have an own transaction: then it is everywhere
BROADCAST_SEEN_S: Final = 60.0  # seconds after its diffusion by us, after which nobody waits for more of them
MAX_OWN_BROADCASTS: Final = 1_000  # own transactions under way at once

# --- Mining and import (ours) -----------------------------------------------------------------------------------------
FILLER_BYTES: Final = 700  # bytes of a random transaction that fills a block
MINING_TRIES: Final = 5_000  # nonces between two looks at the loop: about 5 ms
MINING_FILLERS: Final = 100  # random transactions made between two looks at the loop: about 3 ms
JOB_SLICE_S: Final = 5.0  # seconds that one call of a long job works; its caller asks for the next slice
JOB_LOOK_S: Final = 0.02  # seconds of such work between two looks at the loop

# --- Captures (ours) --------------------------------------------------------------------------------------------------
CAPTURE_RECORD: Final = 8 << 20  # bytes of one record. Security: a file from elsewhere cannot make us hold more.
# bytes of a network's file. Security: a capture names one, and a device has no end.
NETWORK_FILE_BYTES: Final = 1 << 20
CAPTURE_STATE: Final = 1 << 10  # bytes kept free for the last record, which says what the node had
CAPTURE_HEADERS: Final = 2_000  # headers in one record
CAPTURE_FLUSH_S: Final = 1.0  # seconds that a node which is killed loses of its capture
REPLAY_GAP_S: Final = 7 * 86_400.0  # seconds between two records. Security: a made-up file cannot turn timers for ever.
REPLAY_CHUNK: Final = 16_384  # records that are served at once. Security: a made-up file cannot make us hold all of it.
REPLAY_TOTAL_S: Final = 366 * 86_400.0  # seconds of a capture, for the same reason
REPLAY_LINK: Final = 1 << 24  # what recorded links' numbers are raised by, above all of the replay's own
