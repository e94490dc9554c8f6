/*
 * The application in C: readings from an interrupt go out, and come back as commands.
 *
 * First eight at QoS 1, as in ../src/pump.rs. Then twelve at QoS 0, 1 and 2 in turn, while the connection breaks twice: behind
 * a message at QoS 2 that has just left, and in front of the answer to one that has just come. The server publishes the
 * will each time, and the session goes on as if nothing had happened.
 *
 * The TCP stack lends its buffer, and the session writes into it: a byte is copied once.
 */
#include "board.h"
#include "dunlin.h"

#define VALVE "plant/9/valve/1/set"
#define STATUS "plant/9/status"
#define ECHOES 8u  /* readings at QoS 1 */
#define MIXED 12u  /* readings after them, at QoS 0, 1 and 2 in turn */
#define ALL (ECHOES + MIXED)
#define MESSAGES 8 /* at most so many are under way */

static dunlin_session session;
static dunlin_slot slots[MESSAGES];
static dunlin_received received[21];
static uint8_t tx[MESSAGES * DUNLIN_TX_LEN(sizeof VALVE - 1, 4)], rx[256], filters[64];
static const dunlin_memory memory = {tx, sizeof tx, rx, sizeof rx, slots, MESSAGES, received, 21, filters, sizeof filters};

static const dunlin_filter subscriptions[] = {{DUNLIN_TEXT("plant/9/valve/+/set"), 2}, {DUNLIN_TEXT(STATUS), 1}};
static const dunlin_message lost = {DUNLIN_TEXT(STATUS), DUNLIN_TEXT("lost"), 1, false, false};
static const dunlin_options options = {
    .client_id = DUNLIN_TEXT("pump-9"),
    .user_name = DUNLIN_TEXT("pump"),
    .password = DUNLIN_TEXT("secret"),
    .keep_alive_s = 30,
    .persistent = true,
    .will = &lost,
    .subscriptions = subscriptions,
    .subscription_count = 2,
};

/* What has happened so far. */
static uint8_t arrived[ALL];
static uint32_t said, connections, cuts, wills, delivered;
static bool is_leaving;
static const char *wrong;

static uint8_t qos_of(uint32_t number)
{
    return (uint8_t)(number < ECHOES ? 1u : number % 3u);
}

/* As long as there is room: what stays in the sensor's queue holds the sensor back. */
static void publish_readings(void)
{
    uint32_t reading;
    while (dunlin_is_connected(&session) && dunlin_outgoing_count(&session) < MESSAGES && board_take_reading(&reading)) {
        const uint32_t number = said < ECHOES ? reading : ECHOES + reading;
        const uint8_t text[4] = {
            (uint8_t)(number >> 24), (uint8_t)(number >> 16), (uint8_t)(number >> 8), (uint8_t)number};
        const dunlin_message message = {DUNLIN_TEXT(VALVE), {text, sizeof text}, qos_of(number), false, false};
        if (dunlin_publish(&session, &message, NULL) != DUNLIN_OK || number != said) wrong = "publish";
        said++;
    }
}

static void on_message(const dunlin_message *message)
{
    const uint8_t *const text = message->payload.ptr;
    static const dunlin_bytes valves = DUNLIN_TEXT("plant/+/valve/#");
    if (!dunlin_matches(valves, message->topic)) {
        wills++;
    } else if (message->payload.len != 4 || text[0] != 0 || text[1] != 0 || text[2] != 0 || text[3] >= ALL) {
        wrong = "a command that nobody sent";
    } else {
        if (message->qos != qos_of(text[3])) wrong = "another quality of service";
        arrived[text[3]]++;
    }
}

static void on_event(const dunlin_event *event)
{
    switch (event->kind) {
    case DUNLIN_EVENT_CONNECTED:
        if (event->resumed != (connections > 0)) wrong = "the session is not the old one";
        connections++;
        break;
    case DUNLIN_EVENT_SUBSCRIBED: {
        const uint8_t *const codes = event->codes.ptr;
        if (event->codes.len != 2 || codes[0] != 2 || codes[1] != 1) wrong = "subscriptions";
        board_note("connect");
        board_start_sensor(ECHOES);
        break;
    }
    case DUNLIN_EVENT_MESSAGE:
        on_message(&event->message);
        break;
    case DUNLIN_EVENT_DELIVERED:
        delivered++;
        break;
    default:
        wrong = "an event that cannot be";
        break;
    }
}

/* Whether each of the first `count` readings has arrived as often as its quality of service promises. */
static bool have_arrived(uint32_t count)
{
    uint32_t number;
    for (number = 0; number < count; number++) {
        const uint8_t qos = qos_of(number);
        if (arrived[number] == 0 && qos > 0) return false;
        if (arrived[number] > 1 && qos != 1) wrong = "doubled";
    }
    return said >= count && dunlin_is_idle(&session);
}

/* What comes next in the story. True when the connection is to break. */
static bool go_on(uint64_t connected_ms)
{
    static bool is_second_half;
    if (is_leaving) return false;
    if (!is_second_half && have_arrived(ECHOES)) {
        is_second_half = true;
        board_note("echo1");
        board_start_sensor(MIXED);
    }
    if (have_arrived(ALL)) {
        /* Two thirds of the second half, and the first one. */
        if (delivered != ECHOES + MIXED / 3u * 2u) wrong = "delivered";
        if (connections < 3) wrong = "the connection was not cut";
        is_leaving = wills > 0;
        if (is_leaving) (void)dunlin_close(&session);
        /* mosquitto drops the will of a client that is back before it is missed. */
        return !is_leaving && board_now_ms() - connected_ms > 2000u;
    }
    return false;
}

/* Serves one connection until it is over. */
static void serve(struct board *board)
{
    const uint64_t begin_ms = board_now_ms();
    (void)dunlin_open(&session, begin_ms);
    while (wrong == NULL) {
        dunlin_event event;
        dunlin_status status;
        uint32_t wait_ms;
        size_t len;
        void *at;

        publish_readings(); /* before anything is sent, so that they leave now and not after the next sleep */
        at = dunlin_inbox(&session, &len);
        (void)dunlin_filled(&session, board_receive(board, at, len));
        while (dunlin_poll(&session, board_now_ms(), &event) == DUNLIN_OK && event.kind != DUNLIN_EVENT_NONE) {
            on_event(&event);
            if (cuts == 1 && event.kind == DUNLIN_EVENT_MESSAGE && event.message.qos == 2) {
                cuts++;
                board_cut(board);
                return;
            }
        }
        if (go_on(begin_ms)) {
            board_cut(board);
            return;
        }

        do {
            at = board_ring(board, &len);
            status = dunlin_transmit(&session, board_now_ms(), at, &len, NULL);
            if (status == DUNLIN_BYTES) board_sent(board, len);
        } while (status == DUNLIN_BYTES);
        if (status != DUNLIN_OK) { /* DUNLIN_CLOSE */
            dunlin_fault_info fault;
            if (dunlin_fault(&session, &fault) == DUNLIN_OK && fault.kind != DUNLIN_FAULT_NONE)
                wrong = dunlin_fault_text(fault.kind, fault.detail);
            board_close(board);
            return;
        }
        if (cuts == 0 && said > ECHOES && said % 3 == 0) { /* the last one was at QoS 2 */
            if (dunlin_outgoing_count(&session) == 0) wrong = "nothing was under way";
            cuts++;
            board_cut(board);
            return;
        }

        /* Nothing left to do: sleep until bytes or a reading come, or the protocol's own deadline. */
        wait_ms = dunlin_wait_ms(&session, board_now_ms());
        if (!board_wait(board, wait_ms < 500u ? wait_ms : 500u)) return;
        if (board_now_ms() > 30000u) wrong = "too slow";
    }
}

/* Tells the whole story. NULL: all went well; else what did not. */
const char *pump(struct board *board)
{
    board_note("start");
    if (dunlin_init(&session, &options, &memory) != DUNLIN_OK) return "dunlin_init";
    while (wrong == NULL && !is_leaving) {
        if (board_connect(board)) serve(board);
        (void)dunlin_lost(&session); /* what is not acknowledged goes out again on the next connection */
        if (!is_leaving) (void)board_wait(board, 100); /* devices in a field wait longer each time */
    }
    return wrong;
}
