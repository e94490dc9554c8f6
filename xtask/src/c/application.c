/*
 * The application of xtask/size-app in C: what a device pays that calls the session through dunlin.h.
 *
 * Transport, clock and the receiver of messages are symbols that the linker finds elsewhere.
 */
#include "dunlin.h"

int32_t transport_connect(void);
void transport_close(void);
void transport_back_off(void);
uint8_t *transport_window(void);
size_t transport_window_len(void);
void transport_commit(size_t len);
int32_t transport_receive(void *into, size_t len, uint32_t wait_ms);
uint32_t clock_ms(void);
void message_arrived(const void *topic, size_t topic_len, const void *payload, size_t payload_len);

/* How long the application receives before it says goodbye. */
#define SHIFT_MS 100000u

static uint8_t tx[1024], rx[1024], filters[128];
static dunlin_slot slots[8];
static dunlin_received received[21];
static dunlin_session session;

static const dunlin_bytes commands = DUNLIN_TEXT("pump/3/set/#");
static const dunlin_filter subscription = {DUNLIN_TEXT("pump/3/set/#"), 2};
static const dunlin_message will = {DUNLIN_TEXT("pump/3/status"), DUNLIN_TEXT("offline"), 1, true, false};
static const dunlin_message online = {DUNLIN_TEXT("pump/3/status"), DUNLIN_TEXT("online"), 0, true, false};
static const dunlin_message speed = {DUNLIN_TEXT("pump/3/speed"), DUNLIN_TEXT("1200"), 1, false, false};
static const dunlin_message energy = {DUNLIN_TEXT("pump/3/energy"), DUNLIN_TEXT("17"), 2, false, false};

static const dunlin_memory memory = {tx, sizeof tx, rx, sizeof rx, slots, 8, received, 21, filters, sizeof filters};
static const dunlin_options options = {
    .client_id = DUNLIN_TEXT("pump-3"),
    .user_name = DUNLIN_TEXT("pump"),
    .password = DUNLIN_TEXT("secret"),
    .will = &will,
    .subscriptions = &subscription,
    .subscription_count = 1,
    .keep_alive_s = 60,
    .persistent = true,
};

/* Serves one connection. True when the application is at its end, not only the connection. */
static bool serve(uint32_t begin)
{
    bool is_leaving = false;
    for (;;) {
        const uint32_t now = clock_ms();
        dunlin_event event;
        size_t len;
        if (now - begin >= SHIFT_MS && !is_leaving) {
            is_leaving = true;
            (void)dunlin_unsubscribe(&session, &commands, 1, NULL);
            (void)dunlin_close(&session);
        }
        while (dunlin_poll(&session, now, &event) == DUNLIN_OK && event.kind != DUNLIN_EVENT_NONE) {
            const dunlin_message *const message = &event.message;
            if (event.kind == DUNLIN_EVENT_CONNECTED) (void)dunlin_publish(&session, &online, NULL);
            if (event.kind == DUNLIN_EVENT_MESSAGE)
                message_arrived(message->topic.ptr, message->topic.len, message->payload.ptr, message->payload.len);
        }
        len = transport_window_len();
        switch (dunlin_transmit(&session, now, transport_window(), &len, NULL)) {
        case DUNLIN_BYTES:
            transport_commit(len);
            break;
        case DUNLIN_OK: {
            size_t room;
            void *const at = dunlin_inbox(&session, &room);
            const int32_t got = transport_receive(at, room, dunlin_wait_ms(&session, now));
            if (got < 0) return is_leaving;
            (void)dunlin_filled(&session, (size_t)got);
            break;
        }
        default:
            return is_leaving;
        }
    }
}

/* Runs the application once; the only thing that is called from outside. */
void application(void)
{
    bool is_done = dunlin_init(&session, &options, &memory) != DUNLIN_OK;
    (void)dunlin_publish(&session, &speed, NULL);
    (void)dunlin_publish(&session, &energy, NULL);
    const uint32_t begin = clock_ms();
    while (!is_done) {
        if (transport_connect() >= 0) {
            (void)dunlin_open(&session, clock_ms());
            is_done = serve(begin);
            (void)dunlin_lost(&session);
            transport_close();
        }
        transport_back_off();
    }
}
