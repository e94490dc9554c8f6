/*
 * Calls in any order, with arguments right and wrong, to a session that talks to a server which may say anything.
 *
 * Whatever is asked, nothing is written outside of what the library was given, what it gives lies within that, each answer is
 * one of the header's, and nothing goes on for ever.
 *
 *     hostile [ROUNDS [FIRST_SEED]]
 *
 * Compiled with -DGUARD=0, memory ends where the library's does, for tools that watch the accesses themselves (valgrind, a
 * library built with -Zsanitizer=address).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dunlin.h"

#ifndef GUARD
#define GUARD 16u
#endif
#define STEPS 300u
#define PARTS 7

static uint32_t seed, state;

static void fail(const char *what)
{
    fprintf(stderr, "seed %u: %s\n", (unsigned)seed, what);
    abort();
}

/* Marsaglia's xorshift. */
static uint32_t any(void)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

static uint32_t below(uint32_t limit)
{
    return limit == 0 ? 0 : any() % limit;
}

static bool one_in(uint32_t count)
{
    return below(count) == 0;
}

/* ---- Memory with guards ---- */

static struct {
    uint8_t *whole;
    size_t len;
} parts[PARTS];
static unsigned part_count;

/* What is in it is whatever malloc() left there. */
static void *part(size_t len)
{
    uint8_t *const whole = malloc(len + 2u * GUARD + 1u);
    if (whole == NULL || part_count == PARTS) fail("no memory");
    memset(whole, 0xA5, GUARD);
    memset(whole + GUARD + len, 0xA5, GUARD);
    if (GUARD == 0) { /* the end must be the end */
        free(whole);
        parts[part_count].whole = malloc(len == 0 ? 1u : len);
    } else {
        parts[part_count].whole = whole;
    }
    parts[part_count].len = len;
    return parts[part_count++].whole + GUARD;
}

static void check_guards(void)
{
    unsigned n;
    size_t at;
    for (n = 0; n < part_count; n++)
        for (at = 0; at < GUARD; at++)
            if (parts[n].whole[at] != 0xA5 || parts[n].whole[GUARD + parts[n].len + at] != 0xA5) fail("written outside");
}

static void free_parts(void)
{
    while (part_count > 0) free(parts[--part_count].whole);
}

/* ---- What is said ---- */

/* Texts outlive the session. */
static const char *const texts[] = {"a", "a/b", "a/+", "#", "a/#", "+/+", "", "$SYS/x", "b/long/enough/to/fill/something", "a/#/b",
                                    "\xC3\xA9", "\xC3", "\xED\xA0\x80", "a+"};

static dunlin_bytes some_text(void)
{
    dunlin_bytes text;
    const uint32_t which = below(sizeof texts / sizeof *texts);
    text.ptr = texts[which];
    text.len = strlen(texts[which]);
    if (one_in(40)) text.ptr = NULL;
    if (one_in(80)) text.len = SIZE_MAX - below(3);
    if (text.len > 1000u) text.ptr = NULL; /* else the library has to believe it */
    return text;
}

static const uint8_t zeroes[4096];

static dunlin_message some_message(void)
{
    dunlin_message message;
    const uint8_t retain = (uint8_t)any();
    memset(&message, (int)below(256), sizeof message); /* `dup` is not looked at */
    message.topic = some_text();
    message.payload.ptr = zeroes;
    message.payload.len = one_in(10) ? below(sizeof zeroes) : below(40);
    message.qos = (uint8_t)(one_in(20) ? any() : below(3));
    memcpy(&message.retain, &retain, 1); /* any byte */
    return message;
}

static dunlin_filter some_filter(void)
{
    dunlin_filter filter;
    memset(&filter, 0, sizeof filter);
    filter.text = some_text();
    filter.qos = (uint8_t)(one_in(20) ? any() : below(3));
    return filter;
}

/* Puts a packet of a server there, or something like one, of at most 300 bytes. */
static size_t some_packet(bool is_connected, uint8_t *into)
{
    static const uint8_t firsts[] = {0x20, 0x30, 0x31, 0x32, 0x34, 0x3A, 0x3C, 0x40, 0x50, 0x62, 0x70, 0x90, 0xB0, 0xD0};
    size_t len = 2, at;
    uint8_t type;
    into[0] = firsts[below(sizeof firsts)];
    if (!is_connected && !one_in(6)) into[0] = 0x20;
    if (is_connected && into[0] == 0x20) into[0] = 0x32;
    if (one_in(50)) into[0] = (uint8_t)any();
    type = into[0] >> 4;
    if (type == 3) {
        const uint32_t topic = one_in(30) ? below(200) : 1 + below(4), payload = below(one_in(8) ? 90 : 20);
        into[len++] = 0;
        into[len++] = (uint8_t)topic;
        for (at = 0; at < topic; at++) into[len++] = (uint8_t)('a' + below(3));
        if ((into[0] & 6) != 0) {
            into[len++] = 0;
            into[len++] = (uint8_t)(1 + below(6));
        }
        for (at = 0; at < payload; at++) into[len++] = (uint8_t)any();
        if (one_in(99)) into[len - payload - 1] = (uint8_t)any();
    } else if (type == 2) {
        into[len++] = (uint8_t)below(2);
        into[len++] = (uint8_t)(one_in(20) ? below(7) : 0);
    } else if (type != 13) {
        into[len++] = 0;
        into[len++] = (uint8_t)below(8);
        if (type == 9)
            for (at = below(3); at < 3; at++) into[len++] = (uint8_t)(one_in(5) ? 0x80 : below(3));
    }
    if (len - 2 < 128) {
        into[1] = (uint8_t)(len - 2);
    } else { /* a longer length, and one byte less of what is in it */
        into[1] = (uint8_t)(0x80 | ((len - 3) & 0x7F));
        into[2] = (uint8_t)((len - 3) >> 7);
    }
    if (one_in(99)) into[below((uint32_t)len)] = (uint8_t)any();
    return len;
}

/* ---- What is answered ---- */

static dunlin_memory memory;

static dunlin_status known(dunlin_status status)
{
    const bool is_known = (status >= DUNLIN_CONNECTED && status <= DUNLIN_CLOSE) ||
                          (status >= DUNLIN_BAD_MEMORY && status <= DUNLIN_BAD_CLIENT_ID) || status == DUNLIN_FAULT ||
                          (status >= DUNLIN_NOT_READY && status <= DUNLIN_BAD_ARGUMENT);
    if (!is_known) fail("no such answer");
    return status;
}

/* Within `rx`, and readable. */
static void check_bytes(dunlin_bytes bytes)
{
    const uint8_t *const ptr = bytes.ptr, *const rx = memory.rx;
    volatile uint8_t sum = 0;
    size_t at;
    if (bytes.len == 0) return;
    if (ptr < rx || bytes.len > memory.rx_len || ptr > rx + (memory.rx_len - bytes.len)) fail("bytes outside of rx");
    for (at = 0; at < bytes.len; at++) sum = (uint8_t)(sum + ptr[at]);
}

/* True when the byte that holds a bool holds nothing else. */
static bool is_bool(const bool *at)
{
    uint8_t byte;
    memcpy(&byte, at, 1);
    return byte <= 1;
}

static dunlin_receipt receipt;
static unsigned long seen[DUNLIN_EVENT_UNSUBSCRIBED + 1];

static void check_event(const dunlin_event *event)
{
    if (event->kind > DUNLIN_EVENT_UNSUBSCRIBED) fail("no such event");
    if (event->message.qos > 2) fail("no such quality of service");
    if (!is_bool(&event->message.retain) || !is_bool(&event->message.dup) || !is_bool(&event->resumed) ||
        !is_bool(&event->is_last))
        fail("a bool that is none");
    check_bytes(event->message.topic);
    check_bytes(event->message.payload);
    check_bytes(event->codes);
    if (event->kind == DUNLIN_EVENT_CHUNK && event->offset + event->message.payload.len > event->total)
        fail("a chunk beyond the end");
    if (event->kind == DUNLIN_EVENT_MESSAGE) receipt = event->receipt;
    seen[event->kind]++;
}

static void poll(dunlin_session *session, uint64_t now, unsigned most)
{
    unsigned turns;
    for (turns = 0; turns < most; turns++) {
        dunlin_event event;
        const dunlin_status status = known(dunlin_poll(session, now, &event));
        check_event(&event);
        if (status != DUNLIN_OK && event.kind != DUNLIN_EVENT_NONE) fail("an event with a refusal");
        if (status != DUNLIN_OK || event.kind == DUNLIN_EVENT_NONE) return;
    }
    if (most >= 1000) fail("events without an end");
}

static void transmit(dunlin_session *session, uint64_t now)
{
    const size_t room = one_in(3) ? below(6) : below(100);
    uint8_t *const out = malloc(room + GUARD + 1u);
    unsigned turns;
    if (out == NULL) fail("no memory");
    memset(out + room, 0xA5, GUARD + 1u);
    for (turns = 0;; turns++) {
        dunlin_payload payload;
        size_t len = room;
        const dunlin_status status = known(dunlin_transmit(session, now, out, &len, one_in(9) ? NULL : &payload));
        if ((len > 0) != (status == DUNLIN_BYTES) || len > room) fail("a length that cannot be");
        if (out[room] != 0xA5 || out[room + GUARD] != 0xA5) fail("written behind out");
        if (status == DUNLIN_PAYLOAD) {
            if (one_in(4)) (void)known(dunlin_give_up(session, below(3)));
            else (void)known(dunlin_supplied(session, 1 + below(200)));
        }
        if ((status != DUNLIN_BYTES && status != DUNLIN_PAYLOAD) || one_in(50)) break;
        if (turns > 100000u) fail("bytes without an end");
    }
    free(out);
}

/* What the server has said, and how much of it has come. */
static uint8_t bytes[512];
static size_t len, from;

static void open(dunlin_session *session, uint64_t now)
{
    from = len;
    (void)known(dunlin_open(session, now));
    if (!one_in(9)) transmit(session, now);
}

static void receive(dunlin_session *session)
{
    size_t room = 0, count;
    void *const at = dunlin_inbox(session, &room);
    if (at == NULL) return;
    if ((uint8_t *)at < (uint8_t *)memory.rx || (uint8_t *)at + room > (uint8_t *)memory.rx + memory.rx_len)
        fail("room outside of rx");
    if (from == len) {
        from = 0;
        len = some_packet(dunlin_is_connected(session), bytes);
    }
    count = one_in(4) ? below((uint32_t)(len - from) + 1u) : len - from;
    if (count > room) count = room;
    memcpy(at, bytes + from, count);
    from += count;
    if (one_in(50) && dunlin_filled(session, room + 1 + below(9)) != DUNLIN_BAD_ARGUMENT) fail("more than there was room for");
    if (known(dunlin_filled(session, count)) != DUNLIN_OK) fail("filled");
}

static void ask(dunlin_session *session, uint64_t now)
{
    dunlin_fault_info fault;
    (void)dunlin_wait_ms(session, now);
    if (dunlin_outgoing_count(session) > memory.slot_count) fail("more messages than slots");
    (void)dunlin_is_connected(session);
    (void)dunlin_is_idle(session);
    (void)dunlin_ignored_count(session);
    (void)dunlin_skipped_count(session);
    (void)dunlin_next_id(session);
    (void)dunlin_matches(some_text(), some_text());
    if (known(dunlin_fault(session, &fault)) == DUNLIN_OK && strlen(dunlin_fault_text(fault.kind, fault.detail)) < 8)
        fail("no text");
    if (strlen(dunlin_fault_text((uint8_t)any(), (uint8_t)any())) < 8) fail("no text");
}

static void mark(dunlin_session *session)
{
    dunlin_mark next;
    memset(&next, 0, sizeof next);
    if (known(dunlin_next_mark(session, &next)) == DUNLIN_OK && one_in(9)) next.stage = DUNLIN_MARK_REFUSED;
    if (one_in(30)) {
        next.packet_id = (uint16_t)below(9);
        next.stage = (uint8_t)below(9);
    }
    (void)known(dunlin_mark_stored(session, next));
}

static void restore(dunlin_session *session)
{
    const uint16_t id = (uint16_t)below(9);
    const dunlin_message message = some_message();
    const dunlin_filter filter = some_filter();
    switch (below(6)) {
    case 0: (void)known(dunlin_restore_released(session, id)); break;
    case 1: (void)known(dunlin_restore_message(session, id, &message)); break;
    case 2: (void)known(dunlin_restore_external(session, id, &message, below(3), below(500))); break;
    case 3: (void)known(dunlin_restore_received(session, id)); break;
    case 4: (void)known(dunlin_restore_filter(session, &filter)); break;
    default: (void)known(dunlin_restore_next_id(session, id)); break;
    }
}

static void request(dunlin_session *session)
{
    const dunlin_message message = some_message();
    dunlin_filter filters[3];
    dunlin_bytes names[3];
    uint16_t id = 0, *const tell = one_in(5) ? NULL : &id;
    size_t n, count = below(4);
    for (n = 0; n < 3; n++) {
        filters[n] = some_filter();
        names[n] = some_text();
    }
    switch (below(9)) {
    case 0: case 1: case 2: (void)known(dunlin_publish(session, one_in(30) ? NULL : &message, tell)); break;
    case 3: (void)known(dunlin_publish_replacing(session, &message, (uint8_t)below(4), tell)); break;
    case 4:
        (void)known(dunlin_publish_external(session, &message, below(3), one_in(9) ? any() : below(500), tell));
        break;
    case 5: (void)known(dunlin_withdraw(session, (uint16_t)below(9))); break;
    case 6: (void)known(dunlin_subscribe(session, one_in(30) ? NULL : filters, one_in(30) ? SIZE_MAX / 2 : count, tell)); break;
    case 7: (void)known(dunlin_unsubscribe(session, one_in(30) ? NULL : names, count, tell)); break;
    default:
        if (one_in(4)) receipt.opaque[below(4)] = (uint8_t)any();
        (void)known(dunlin_acknowledge(session, receipt));
        break;
    }
}

static dunlin_options some_options(const dunlin_message *will, const dunlin_filter *filters)
{
    static const char *const names[] = {"c", "client", "\xC3\xA9"};
    dunlin_options options;
    uint8_t yes = (uint8_t)(1 + below(255));
    memset(&options, 0, sizeof options);
    options.client_id.ptr = names[below(3)];
    options.client_id.len = strlen(options.client_id.ptr);
    if (one_in(30)) options.client_id = some_text();
    if (one_in(4)) options.user_name = some_text();
    if (one_in(options.user_name.ptr == NULL ? 20 : 2)) options.password = some_text();
    if (one_in(6)) options.will = will;
    if (one_in(4)) {
        if (!one_in(9)) options.subscriptions = filters;
        options.subscription_count = below(3);
    }
    if (one_in(2)) options.keep_alive_s = (uint16_t)any();
    if (one_in(2)) options.answer_timeout_s = (uint16_t)any();
    if (one_in(3)) options.window = (uint16_t)below(5);
    if (one_in(3)) options.chunk_align = (uint16_t)(one_in(4) ? any() : below(20));
    options.oversize = (uint8_t)(one_in(30) ? any() : below(2));
    if (one_in(2)) memcpy(&options.persistent, &yes, 1); /* any byte but zero */
    if (one_in(3)) memcpy(&options.durable, &yes, 1);
    if (one_in(3)) memcpy(&options.manual_acks, &yes, 1);
    return options;
}

static void round_of(dunlin_session *session)
{
    const dunlin_message will = some_message();
    const dunlin_filter filters[2] = {some_filter(), some_filter()};
    const dunlin_options options = some_options(&will, filters);
    uint64_t now = any();
    unsigned step;
    memory.tx_len = below(400);
    memory.tx = part(memory.tx_len);
    memory.rx_len = one_in(30) ? below(20) : 16 + below(200);
    memory.rx = part(memory.rx_len);
    memory.slot_count = below(7);
    memory.slots = part(memory.slot_count * sizeof *memory.slots);
    memory.received_count = one_in(30) ? below(3) : 2 + below(10);
    memory.received = part(memory.received_count * sizeof *memory.received);
    memory.filters_len = below(90);
    memory.filters = part(memory.filters_len);
    if (known(dunlin_init(session, &options, &memory)) != DUNLIN_OK && dunlin_open(session, now) != DUNLIN_NOT_READY)
        fail("a session that was refused");
    for (step = 0; step < STEPS; step++) {
        now += one_in(20) ? below(100000) : below(50);
        if (one_in(200)) now = any();
        switch (below(16)) {
        case 0: case 1: case 2: case 3: case 4: receive(session); break;
        case 5: case 6: poll(session, now, 1000000); break;
        case 7: poll(session, now, 1 + below(3)); break;
        case 8: case 9: transmit(session, now); break;
        case 10: case 11: request(session); break;
        case 12: ask(session, now); break;
        case 13: mark(session); break;
        case 14: restore(session); break;
        default:
            switch (below(8)) {
            case 0: (void)known(dunlin_lost(session)); break;
            case 1: if (one_in(4)) (void)known(dunlin_close(session)); break;
            case 2: (void)known(dunlin_hold(session, now)); break;
            default: if (!dunlin_is_connected(session) || one_in(20)) open(session, now); break;
            }
            break;
        }
        check_guards();
    }
}

int main(int argc, char **argv)
{
    const uint32_t rounds = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 3000;
    unsigned kind;
    const uint32_t first = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 1;
    for (seed = first; seed - first < rounds; seed++) {
        state = seed * 2654435761u + 1u;
        if (state == 0) state = 1;
        round_of(part(sizeof(dunlin_session)));
        free_parts();
    }
    printf("%u hostile programs, with so many events of each kind:", (unsigned)rounds);
    for (kind = DUNLIN_EVENT_CONNECTED; kind <= DUNLIN_EVENT_UNSUBSCRIBED; kind++) printf(" %lu", seen[kind]);
    printf("\n");
    return 0;
}
