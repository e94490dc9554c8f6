/*
 * dunlin: an MQTT 3.1.1 client session as a value. Bytes and time in, bytes and events out.
 *
 * No heap, no callback, no thread, no socket, no clock: memory, stream and time are the program's. Three questions, asked as
 * often as one likes and in any order:
 *
 *     dunlin_poll()       what happened?       an event, or: the connection is over
 *     dunlin_transmit()   what to send?        bytes, nothing, or: close the stream
 *     dunlin_wait_ms()    when to ask again?
 *
 * and requests, of which a refusal changes nothing: dunlin_publish(), dunlin_subscribe() and so on. A session outlives its
 * connections: what is not acknowledged when the stream is lost goes out again on the next one, by itself.
 *
 * One session may be used by one caller at a time, also where it is `const`. A call that comes in the middle of another, from
 * an interrupt, gets DUNLIN_BUSY and changes nothing; threads need a lock of their own around the calls, which never wait for
 * anything. A call that never came to its end (longjmp() out of a signal handler, a task that was deleted) leaves a session
 * that is busy until dunlin_init().
 *
 * Pointers are only kept where it says so. No memory that a session works in, or writes to, may overlap another.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef DUNLIN_H
#define DUNLIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Bytes and text ------------------------------------------------------------------------------------------------- */

/* Bytes of somebody else. Text is UTF-8 without U+0000 in it, at most 65,535 bytes, and need not end with a zero. */
typedef struct dunlin_bytes {
    const void *ptr; /* may be NULL where len is zero */
    size_t len;
} dunlin_bytes;

/* A literal, and nothing else, as an initialiser: static const dunlin_filter filter = { DUNLIN_TEXT("pump/+/set"), 1 }; */
#define DUNLIN_TEXT(literal) { "" literal "", sizeof(literal) - 1u }

/* ---- What calls answer ---------------------------------------------------------------------------------------------- */

typedef int32_t dunlin_status;

enum {
    DUNLIN_OK = 0,

    /* dunlin_transmit() */
    DUNLIN_BYTES = 1,   /* write so many bytes of `out` to the stream, all of them and in order */
    DUNLIN_PAYLOAD = 2, /* write bytes of an external payload to the stream: see dunlin_publish_external() */
    DUNLIN_CLOSE = 3,   /* close the stream, then call dunlin_lost() */

    /* A request was refused, and the session is as it was. */
    DUNLIN_FULL = -1,          /* no room now; some appears when a message is delivered, or has left at QoS 0 */
    DUNLIN_TOO_LARGE = -2,     /* the message can never fit `tx`, or is longer than MQTT can say */
    DUNLIN_BAD_TEXT = -3,      /* not a topic name, or not a topic filter */
    DUNLIN_OFFLINE = -4,       /* QoS 0 needs a connection, and there is none */
    DUNLIN_NOT_SUPPORTED = -5, /* the library was built without this option, or this quality of service */
    DUNLIN_UNKNOWN = -6,       /* there is no such message, receipt or payload any more */
    DUNLIN_ID_IN_USE = -7,     /* dunlin_restore_...(): this packet identifier was restored already */
    DUNLIN_CONNECTED = -8,     /* dunlin_restore_...(): comes before the first dunlin_open() */

    /* dunlin_init(): these options or this memory cannot be used. */
    DUNLIN_BAD_CLIENT_ID = -20, /* no text, or empty with a session that outlives the connection */
    DUNLIN_BAD_WILL = -21,      /* its topic is no topic name, its payload is longer than 65,535 bytes, or its qos is none */
    DUNLIN_BAD_USER_NAME = -22, /* no text */
    DUNLIN_BAD_PASSWORD = -23,  /* longer than 65,535 bytes, or without a user name */
    DUNLIN_BAD_MEMORY = -24,    /* `rx` of less than 16 bytes, or `received` of less than 2 entries */

    /* The connection is over: dunlin_fault() tells why, dunlin_transmit() says DUNLIN_CLOSE. */
    DUNLIN_FAULT = -30,

    /* The call was a mistake, and changed nothing. */
    DUNLIN_BAD_ARGUMENT = -40, /* a pointer is NULL, a length is more than memory has, or a number is out of range */
    DUNLIN_NOT_READY = -41,    /* dunlin_init() has not been called for this session, or has refused it */
    DUNLIN_BUSY = -42          /* another call for this session is not over */
};

/* ---- Memory --------------------------------------------------------------------------------------------------------- */

/* A session. Its content is private; its size is checked when the library is built. Zeroed memory, as a static has it, is a
 * session that dunlin_init() has not been called for. A copy is of no use: both would work in the same memory. */
#define DUNLIN_SESSION_WORDS 80
typedef struct dunlin_session {
    size_t opaque[DUNLIN_SESSION_WORDS];
} dunlin_session;

/* Room to keep track of one outgoing message, and of one incoming one. Need not be initialised. */
typedef struct dunlin_slot {
    size_t opaque[3];
} dunlin_slot;

typedef struct dunlin_received {
    uint32_t opaque;
} dunlin_received;

/* What a session works in. Belongs to it from dunlin_init() on, as long as it is used; this structure does not. A part with a
 * length of zero may be NULL. */
typedef struct dunlin_memory {
    void *tx; /* outgoing messages until they need not be sent again: DUNLIN_TX_LEN() each */
    size_t tx_len;
    void *rx; /* what came and has not been used up: the largest packet that is received whole. At least 16 bytes. */
    size_t rx_len;
    dunlin_slot *slots; /* one for each outgoing message that is not over */
    size_t slot_count;
    dunlin_received *received; /* one for each incoming message that is not over, and one more: 21 suit a mosquitto */
    size_t received_count;
    void *filters; /* what is subscribed to: DUNLIN_FILTER_LEN() each */
    size_t filters_len;
} dunlin_memory;

#ifdef __cplusplus
#define DUNLIN_SIZE_(number) static_cast<size_t>(number)
#else
#define DUNLIN_SIZE_(number) ((size_t)(number))
#endif

/* Bytes of `tx`, or of `rx`, for a message with a topic and a payload of these lengths. At most three too many. */
#define DUNLIN_TX_LEN(topic_len, payload_len) (DUNLIN_SIZE_(topic_len) + DUNLIN_SIZE_(payload_len) + 9u)
/* Bytes of `filters` for a topic filter of this length. */
#define DUNLIN_FILTER_LEN(filter_len) (DUNLIN_SIZE_(filter_len) + 5u)

/* ---- Options -------------------------------------------------------------------------------------------------------- */

/* A message to publish, a will, or a message that came. */
typedef struct dunlin_message {
    dunlin_bytes topic; /* a topic name: no wildcards, not empty */
    dunlin_bytes payload;
    uint8_t qos; /* 0: at most once, 1: at least once, 2: exactly once */
    bool retain; /* to be kept by the server for whoever subscribes later; of one that came: it had been kept */
    bool dup;    /* of one that came: it may have come before. Else not looked at. */
} dunlin_message;

/* A topic filter, and the quality of service to ask for. */
typedef struct dunlin_filter {
    dunlin_bytes text; /* `+` fills a whole level, `#` the last one */
    uint8_t qos;
} dunlin_filter;

/* What to do with a message that does not fit `rx` and is not wanted in chunks. */
enum {
    DUNLIN_OVERSIZE_CLOSE = 0, /* end the connection; when the server sends it again, let it pass */
    DUNLIN_OVERSIZE_SKIP = 1   /* let it pass, acknowledge it, and report DUNLIN_EVENT_SKIPPED */
};

/* How to connect. Zeroed, all but client_id has a sensible meaning. Texts, and the payload of the will, stay the program's: they
 * must be there, and stay as they are, as long as the session is used. The structures themselves are read by dunlin_init() and
 * need not stay; what is changed in them afterwards has no effect. */
typedef struct dunlin_options {
    dunlin_bytes client_id;    /* 1 to 23 of 0-9a-zA-Z suit every server; empty: the server chooses */
    dunlin_bytes user_name;    /* ptr NULL: none */
    dunlin_bytes password;     /* ptr NULL: none */
    const dunlin_message *will; /* what the server publishes when this client disappears; NULL: nothing */
    const dunlin_filter *subscriptions; /* subscribed to from the start, as by dunlin_subscribe(); are copied to `filters` */
    size_t subscription_count;
    uint16_t keep_alive_s;     /* the longest silence towards the server, in seconds; 0: any */
    uint16_t answer_timeout_s; /* how long the server may take to answer, in seconds; 0: 10 */
    uint16_t window;           /* most messages at QoS 1 and 2 that are sent and not acknowledged; 0: 20 */
    uint16_t chunk_align;      /* not 0: messages that do not fit `rx` come in chunks of a multiple of so many bytes */
    uint8_t oversize;          /* DUNLIN_OVERSIZE_... */
    bool persistent;           /* clean session off: the server keeps the session, and messages for the absent client */
    bool durable;              /* marks on (see below), and persistent */
    bool manual_acks;          /* messages are acknowledged by dunlin_acknowledge() alone */
} dunlin_options;

/* ---- A session and its connections ---------------------------------------------------------------------------------- */

/* Makes a session without a connection, whatever was in *session: a session that was there is gone, with what it had not
 * delivered. DUNLIN_OK, DUNLIN_BAD_..., DUNLIN_NOT_SUPPORTED, or what dunlin_subscribe() says of the subscriptions; when it
 * refuses there is no session, and other calls say DUNLIN_NOT_READY. */
dunlin_status dunlin_init(dunlin_session *session, const dunlin_options *options, const dunlin_memory *memory);

/* A byte stream to the server is up. Implies dunlin_lost(). */
dunlin_status dunlin_open(dunlin_session *session, uint64_t now_ms);

/* The stream is gone. What is not acknowledged stays, and goes out again on the next one. */
dunlin_status dunlin_lost(dunlin_session *session);

/* Says goodbye, so that the server drops the will: go on with dunlin_transmit() until it says DUNLIN_CLOSE. Without a connection
 * there is nothing to say, and it says DUNLIN_OK. What has not left does not leave any more, and is lost at QoS 0: call
 * dunlin_transmit() until it says DUNLIN_OK first. */
dunlin_status dunlin_close(dunlin_session *session);

/* Where to read the next bytes of the stream into, and how many there is room for; dunlin_filled() then says how many
 * came: DUNLIN_BAD_ARGUMENT if there was not so much room, or after a dunlin_poll() or dunlin_open() in between.
 *
 * No room means that something must be sent and polled first: do not read then, since reading into nothing looks like the end
 * of the stream. NULL when the session cannot be used. */
void *dunlin_inbox(dunlin_session *session, size_t *room);
dunlin_status dunlin_filled(dunlin_session *session, size_t count);

/* Fills `out`, of *len bytes, with what is to be sent next: DUNLIN_BYTES, with their number in *len, DUNLIN_PAYLOAD,
 * DUNLIN_CLOSE, or DUNLIN_OK, which says that there is nothing to send now. Call it until it says that. Any length will do;
 * with none, DUNLIN_OK only says that nothing could be sent. *len is 0 with all answers but DUNLIN_BYTES.
 *
 * now_ms: milliseconds since any fixed point, in this and all other calls. A clock of 32 bits that wraps may be fed as it
 * is: it costs one ping. `payload` may be NULL where nothing is published with dunlin_publish_external(). */
typedef struct dunlin_payload {
    uint32_t key;  /* which one */
    size_t offset; /* the first byte to write */
    size_t len;    /* how many are missing from there to the end */
} dunlin_payload;

dunlin_status dunlin_transmit(dunlin_session *session, uint64_t now_ms, void *out, size_t *len, dunlin_payload *payload);

/* How long nothing needs to be done, in milliseconds, if no bytes come: 0 means now, UINT32_MAX for ever. 0 when the session
 * cannot be used. */
uint32_t dunlin_wait_ms(const dunlin_session *session, uint64_t now_ms);

/* Says that what the server sends is not being read for now: then a missing answer is not its fault. */
dunlin_status dunlin_hold(dunlin_session *session, uint64_t now_ms);

/* ---- Events --------------------------------------------------------------------------------------------------------- */

enum {
    DUNLIN_EVENT_NONE = 0,         /* nothing more: call dunlin_transmit(), then wait */
    DUNLIN_EVENT_CONNECTED = 1,    /* resumed */
    DUNLIN_EVENT_MESSAGE = 2,      /* message, receipt */
    DUNLIN_EVENT_CHUNK = 3,        /* message, offset, total, is_last; receipt with the last one, the topic with the first */
    DUNLIN_EVENT_SKIPPED = 4,      /* message.qos, total: a message of so many bytes did not fit */
    DUNLIN_EVENT_DELIVERED = 5,    /* packet_id: the server has taken this message */
    DUNLIN_EVENT_REPLACED = 6,     /* packet_id: dunlin_publish_replacing() pushed this message out before it was sent */
    DUNLIN_EVENT_FORGOTTEN = 7,    /* packet_id: the server lost the session in between; the outcome is unknown */
    DUNLIN_EVENT_SUBSCRIBED = 8,   /* packet_id, codes: 0, 1 or 2 for each filter, 0x80 where the server refused */
    DUNLIN_EVENT_UNSUBSCRIBED = 9  /* packet_id */
};

/* Stands for a message that came at QoS 1 or 2, until it is acknowledged. */
typedef struct dunlin_receipt {
    uint8_t opaque[4];
} dunlin_receipt;

/* What happened. Its bytes lie in `rx`, and are there until the next dunlin_poll(), dunlin_inbox(), dunlin_open() or
 * dunlin_init() of the session; one may publish in between. What its kind does not name is zero. */
typedef struct dunlin_event {
    dunlin_message message;
    dunlin_bytes codes;
    size_t offset; /* where in the payload this chunk belongs */
    size_t total;  /* length of the whole payload; of what was skipped, of the packet */
    dunlin_receipt receipt;
    uint16_t packet_id;
    uint8_t kind;  /* DUNLIN_EVENT_... */
    bool resumed;  /* session present: the server went on with the session of an earlier connection */
    bool is_last;  /* the message is complete with this chunk */
} dunlin_event;

/* What happened: call it until the kind is DUNLIN_EVENT_NONE, which it also is when the answer is not DUNLIN_OK. A message counts
 * as handled when it is called again, unless acknowledgement is manual. DUNLIN_FAULT: the connection is over. */
dunlin_status dunlin_poll(dunlin_session *session, uint64_t now_ms, dunlin_event *event);

/* ---- Requests ------------------------------------------------------------------------------------------------------- */

/* Accepts a message for delivery and copies it to `tx`; its bytes leave with dunlin_transmit(). QoS 1 and 2 need no
 * connection. *packet_id, unless packet_id is NULL, names it in events; 0 at QoS 0. */
dunlin_status dunlin_publish(dunlin_session *session, const dunlin_message *message, uint16_t *packet_id);

/* As dunlin_publish(); when it must, pushes out messages that wait and were published with the same policy: the one with the
 * same topic, room or not, or the oldest. The new message takes over the identifier of the first, others are reported as
 * DUNLIN_EVENT_REPLACED. */
enum { DUNLIN_REPLACE_SAME_TOPIC = 1, DUNLIN_REPLACE_OLDEST = 2 };
dunlin_status dunlin_publish_replacing(
    dunlin_session *session, const dunlin_message *message, uint8_t policy, uint16_t *packet_id);

/* As dunlin_publish(), with a payload of `len` bytes that stays where it is; message->payload is not looked at. When the
 * stream has room, dunlin_transmit() says DUNLIN_PAYLOAD: write some of it to the stream, and say how many bytes with
 * dunlin_supplied(), at most as many as were missing. They may be asked for again until the message is delivered. If the
 * payload cannot be had any more, dunlin_give_up() reports the message as forgotten; close the stream then. `key` is what the
 * program knows the payload by, and says nothing to the session. */
dunlin_status dunlin_publish_external(
    dunlin_session *session, const dunlin_message *message, uint32_t key, uint32_t len, uint16_t *packet_id);
dunlin_status dunlin_supplied(dunlin_session *session, size_t count);
dunlin_status dunlin_give_up(dunlin_session *session, uint32_t key);

/* Takes back a message that has never been sent. DUNLIN_UNKNOWN when it may have been: then it goes its way. */
dunlin_status dunlin_withdraw(dunlin_session *session, uint16_t packet_id);

/* Subscribes to all of `filters` with one packet. They are copied, kept, and asked for again whenever the server lost the
 * session. */
dunlin_status dunlin_subscribe(
    dunlin_session *session, const dunlin_filter *filters, size_t count, uint16_t *packet_id);
dunlin_status dunlin_unsubscribe(
    dunlin_session *session, const dunlin_bytes *filters, size_t count, uint16_t *packet_id);

/* A message is handled; only with manual_acks. DUNLIN_UNKNOWN when there is nothing to acknowledge any more: the server
 * sends it again. */
dunlin_status dunlin_acknowledge(dunlin_session *session, dunlin_receipt receipt);

/* ---- Questions ------------------------------------------------------------------------------------------------------ */

/* Of a session that cannot be used (NULL, not ready, busy), those that do not answer with a status say false or 0. */

enum {
    DUNLIN_FAULT_NONE = 0,            /* no fault: dunlin_close() was called, or there is a connection, or never was one */
    DUNLIN_FAULT_MALFORMED = 1,       /* the server broke MQTT; detail says how: DUNLIN_VIOLATION_... */
    DUNLIN_FAULT_REFUSED = 2,         /* detail: the return code of CONNACK, 1 to 255 */
    DUNLIN_FAULT_CONNECT_TIMEOUT = 3, /* no CONNACK in time */
    DUNLIN_FAULT_SILENT = 4,          /* the server does not answer pings */
    DUNLIN_FAULT_TOO_LARGE = 5,       /* a packet of `len` bytes does not fit `rx` */
    DUNLIN_FAULT_TOO_MANY = 6         /* `received` is too short for what the server has under way at QoS 2 */
};

enum {
    DUNLIN_VIOLATION_PACKET_TYPE = 1,
    DUNLIN_VIOLATION_FLAGS = 2,
    DUNLIN_VIOLATION_LENGTH = 3,
    DUNLIN_VIOLATION_TEXT = 4,
    DUNLIN_VIOLATION_TOPIC = 5,
    DUNLIN_VIOLATION_QOS = 6,
    DUNLIN_VIOLATION_DUPLICATE = 7,
    DUNLIN_VIOLATION_PACKET_ID = 8,
    DUNLIN_VIOLATION_OUT_OF_PLACE = 9,
    DUNLIN_VIOLATION_SESSION_PRESENT = 10,
    DUNLIN_VIOLATION_RETURN_CODE_COUNT = 11,
    DUNLIN_VIOLATION_RETURN_CODE = 12
};

/* Why the connection is over. */
typedef struct dunlin_fault_info {
    size_t len;
    uint8_t kind;   /* DUNLIN_FAULT_... */
    uint8_t detail;
    bool may_heal;  /* a new connection with the same options may go better */
} dunlin_fault_info;

dunlin_status dunlin_fault(const dunlin_session *session, dunlin_fault_info *fault);

/* A sentence for people, which ends with a zero. */
const char *dunlin_fault_text(uint8_t kind, uint8_t detail);

/* Whether the server has accepted the connection and it is not over. */
bool dunlin_is_connected(const dunlin_session *session);

/* Whether everything asked for has been sent and answered: no message and no request is under way. */
bool dunlin_is_idle(const dunlin_session *session);

/* Outgoing messages that are not over. */
size_t dunlin_outgoing_count(const dunlin_session *session);

/* Acknowledgements that fitted nothing, and messages that were skipped, since dunlin_init(); they wrap. */
uint32_t dunlin_ignored_count(const dunlin_session *session);
uint32_t dunlin_skipped_count(const dunlin_session *session);

/* Whether a topic filter matches a topic name; false when it is none. */
bool dunlin_matches(dunlin_bytes filter, dunlin_bytes topic);

/* ---- Sessions that survive a power cut ------------------------------------------------------------------------------ */

/* With `durable`, nothing that a power cut could turn into a lost or doubled message leaves before the mark that it depends on
 * is on stable storage: ask dunlin_next_mark() after each request and dunlin_poll(), store the fact, then say so with
 * dunlin_mark_stored(). */
enum {
    DUNLIN_MARK_ACCEPTED = 1,  /* outgoing: store the message with its identifier */
    DUNLIN_MARK_REFUSED = 2,   /* never asked for; said in the place of ACCEPTED, it takes the message back */
    DUNLIN_MARK_RELEASED = 3,  /* outgoing: PUBREC came; the payload is no longer needed */
    DUNLIN_MARK_DONE = 4,      /* outgoing: it is over; forget it */
    DUNLIN_MARK_RECEIVED = 5,  /* incoming: remember the identifier */
    DUNLIN_MARK_FORGOTTEN = 6  /* incoming: forget the identifier */
};

typedef struct dunlin_mark {
    uint16_t packet_id;
    uint8_t stage; /* DUNLIN_MARK_... */
} dunlin_mark;

/* The next mark to store: DUNLIN_OK, or DUNLIN_UNKNOWN when there is none. Asking twice gives the same one. */
dunlin_status dunlin_next_mark(dunlin_session *session, dunlin_mark *mark);
dunlin_status dunlin_mark_stored(dunlin_session *session, dunlin_mark mark);

/* The packet identifier that the next message is likely to get, for dunlin_restore_next_id(). */
uint16_t dunlin_next_id(const dunlin_session *session);

/* After a restart, before the first dunlin_open(), what was stored: released messages in the order of their marks, then
 * messages in the order in which they were accepted; identifiers of incoming ones, filters, and the next identifier. */
dunlin_status dunlin_restore_released(dunlin_session *session, uint16_t packet_id);
dunlin_status dunlin_restore_message(dunlin_session *session, uint16_t packet_id, const dunlin_message *message);
dunlin_status dunlin_restore_external(
    dunlin_session *session, uint16_t packet_id, const dunlin_message *message, uint32_t key, uint32_t len);
dunlin_status dunlin_restore_received(dunlin_session *session, uint16_t packet_id);
dunlin_status dunlin_restore_filter(dunlin_session *session, const dunlin_filter *filter);
dunlin_status dunlin_restore_next_id(dunlin_session *session, uint16_t packet_id);

#ifdef __cplusplus
}
#endif

#endif
