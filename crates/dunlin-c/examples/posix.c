/*
 * A whole program on POSIX sockets: says hello to itself through a broker, at each quality of service, and loses its connection
 * in between.
 *
 *     posix HOST PORT
 *
 * Ends with 0 when what was promised was kept: each message at QoS 2 arrived once, at QoS 1 at least once. At QoS 0 nothing
 * is promised, and where the link breaks something may be missing.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "dunlin.h"

#define TOPIC "dunlin/c/hello"
#define HELLOS 9 /* three at each quality of service */

static dunlin_session session;
static dunlin_slot slots[8];
static dunlin_received received[21];
static uint8_t tx[8 * DUNLIN_TX_LEN(sizeof TOPIC, 16)], rx[256], filters[64];

static const dunlin_filter hello = {DUNLIN_TEXT(TOPIC), 2};
static const dunlin_message will = {DUNLIN_TEXT("dunlin/c/status"), DUNLIN_TEXT("offline"), 1, true, false};

static unsigned arrived[HELLOS];

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

/* A connected socket, or -1. */
static int connect_to(const char *host, const char *port)
{
    struct addrinfo hints, *found, *at;
    int fd = -1;
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(host, port, &hints, &found) != 0) return -1;
    for (at = found; at != NULL && fd < 0; at = at->ai_next) {
        fd = socket(at->ai_family, at->ai_socktype, at->ai_protocol);
        if (fd >= 0 && connect(fd, at->ai_addr, at->ai_addrlen) != 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    return fd;
}

static bool send_all(int fd, const uint8_t *bytes, size_t len)
{
    while (len > 0) {
        const ssize_t sent = send(fd, bytes, len, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return false;
        bytes += sent;
        len -= (size_t)sent;
    }
    return true;
}

/* Publishes hello number `n` at QoS n % 3. */
static bool say(unsigned n)
{
    char text[16];
    dunlin_message message = {DUNLIN_TEXT(TOPIC), {NULL, 0}, 0, false, false};
    message.payload.ptr = text;
    message.payload.len = (size_t)snprintf(text, sizeof text, "%u", n);
    message.qos = (uint8_t)(n % 3);
    return dunlin_publish(&session, &message, NULL) == DUNLIN_OK;
}

static void on_message(const dunlin_message *message)
{
    char text[16] = "";
    unsigned n = HELLOS;
    if (message->payload.len < sizeof text) memcpy(text, message->payload.ptr, message->payload.len);
    if (sscanf(text, "%u", &n) == 1 && n < HELLOS) arrived[n]++;
    printf("QoS %u: %s%s\n", (unsigned)message->qos, text, message->dup ? " (again)" : "");
}

/* Whether all has arrived that was promised to, and the server has answered all that was asked. */
static bool everything_arrived(void)
{
    unsigned n;
    for (n = 0; n < HELLOS; n++)
        if (n % 3 != 0 && arrived[n] == 0) return false;
    return dunlin_is_idle(&session);
}

static bool nothing_arrived_twice(void)
{
    unsigned n;
    for (n = 0; n < HELLOS; n++)
        if (n % 3 == 2 && arrived[n] > 1) return false;
    return true;
}

/* Serves one connection. True when everything is done, not only the connection. */
static bool serve(int fd, unsigned *said, unsigned leave_after)
{
    uint8_t out[128];
    bool is_leaving = false;
    for (;;) {
        dunlin_event event;
        while (dunlin_poll(&session, now_ms(), &event) == DUNLIN_OK && event.kind != DUNLIN_EVENT_NONE) {
            if (event.kind == DUNLIN_EVENT_CONNECTED) printf("connected, %s session\n", event.resumed ? "old" : "new");
            if (event.kind == DUNLIN_EVENT_MESSAGE) on_message(&event.message);
        }
        if (dunlin_is_connected(&session))
            while (*said < leave_after && say(*said)) ++*said;
        if (everything_arrived() && !is_leaving) {
            is_leaving = true;
            dunlin_close(&session);
        }

        size_t len = sizeof out;
        const dunlin_status status = dunlin_transmit(&session, now_ms(), out, &len, NULL);
        if (status == DUNLIN_BYTES) {
            if (!send_all(fd, out, len)) return false;
            if (*said == leave_after && leave_after < HELLOS) return false; /* a link that breaks, whatever was under way */
            continue;
        }
        if (status == DUNLIN_CLOSE) {
            dunlin_fault_info fault;
            dunlin_fault(&session, &fault);
            if (fault.kind != DUNLIN_FAULT_NONE) fprintf(stderr, "%s\n", dunlin_fault_text(fault.kind, fault.detail));
            return is_leaving;
        }

        /* Nothing left to do: sleep until bytes come, or the protocol's own deadline. */
        const uint32_t wait = dunlin_wait_ms(&session, now_ms());
        struct pollfd readable = {fd, POLLIN, 0};
        if (poll(&readable, 1, wait > 60000u ? 60000 : (int)wait) > 0) {
            size_t room;
            void *at = dunlin_inbox(&session, &room);
            const ssize_t got = recv(fd, at, room, 0);
            if (got < 0 && errno == EINTR) continue;
            if (got <= 0) return is_leaving;
            dunlin_filled(&session, (size_t)got);
        }
    }
}

int main(int argc, char **argv)
{
    dunlin_options options;
    dunlin_memory memory = {tx, sizeof tx, rx, sizeof rx, slots, 8, received, 21, filters, sizeof filters};
    unsigned said = 0, attempt;
    bool is_done = false;
    if (argc != 3) {
        fprintf(stderr, "usage: %s HOST PORT\n", argv[0]);
        return 2;
    }
    memset(&options, 0, sizeof options);
    options.client_id = (dunlin_bytes)DUNLIN_TEXT("dunlin-c-posix");
    options.keep_alive_s = 30;
    options.persistent = true;
    options.will = &will;
    options.subscriptions = &hello;
    options.subscription_count = 1;
    const dunlin_status status = dunlin_init(&session, &options, &memory);
    if (status != DUNLIN_OK) {
        fprintf(stderr, "dunlin_init: %d\n", (int)status);
        return 1;
    }
    for (attempt = 0; attempt < 10 && !is_done; attempt++) {
        const int fd = connect_to(argv[1], argv[2]);
        if (fd < 0) {
            fprintf(stderr, "no connection to %s, port %s\n", argv[1], argv[2]);
            return 1;
        }
        dunlin_open(&session, now_ms());
        /* Three hellos, then the link breaks; three more; the rest. */
        is_done = serve(fd, &said, attempt < 2 ? 3 * (attempt + 1) : HELLOS);
        close(fd);
        dunlin_lost(&session);
    }
    return is_done && nothing_arrived_twice() ? 0 : 1;
}
