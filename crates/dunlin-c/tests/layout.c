/* Prints what the header says of each structure, a line for each field: name, offset, size. */
#include <stdio.h>

#include "dunlin.h"

#define STRUCTURE(type) printf(#type " 0 %zu\n", sizeof(type))
#define FIELD(type, field) printf(#type "." #field " %zu %zu\n", offsetof(type, field), sizeof(((type *)0)->field))

int main(void)
{
    STRUCTURE(dunlin_bytes);
    FIELD(dunlin_bytes, ptr);
    FIELD(dunlin_bytes, len);
    STRUCTURE(dunlin_session);
    STRUCTURE(dunlin_slot);
    STRUCTURE(dunlin_received);
    STRUCTURE(dunlin_memory);
    FIELD(dunlin_memory, tx);
    FIELD(dunlin_memory, tx_len);
    FIELD(dunlin_memory, rx);
    FIELD(dunlin_memory, rx_len);
    FIELD(dunlin_memory, slots);
    FIELD(dunlin_memory, slot_count);
    FIELD(dunlin_memory, received);
    FIELD(dunlin_memory, received_count);
    FIELD(dunlin_memory, filters);
    FIELD(dunlin_memory, filters_len);
    STRUCTURE(dunlin_message);
    FIELD(dunlin_message, topic);
    FIELD(dunlin_message, payload);
    FIELD(dunlin_message, qos);
    FIELD(dunlin_message, retain);
    FIELD(dunlin_message, dup);
    STRUCTURE(dunlin_filter);
    FIELD(dunlin_filter, text);
    FIELD(dunlin_filter, qos);
    STRUCTURE(dunlin_options);
    FIELD(dunlin_options, client_id);
    FIELD(dunlin_options, user_name);
    FIELD(dunlin_options, password);
    FIELD(dunlin_options, will);
    FIELD(dunlin_options, subscriptions);
    FIELD(dunlin_options, subscription_count);
    FIELD(dunlin_options, keep_alive_s);
    FIELD(dunlin_options, answer_timeout_s);
    FIELD(dunlin_options, window);
    FIELD(dunlin_options, chunk_align);
    FIELD(dunlin_options, oversize);
    FIELD(dunlin_options, persistent);
    FIELD(dunlin_options, durable);
    FIELD(dunlin_options, manual_acks);
    STRUCTURE(dunlin_payload);
    FIELD(dunlin_payload, key);
    FIELD(dunlin_payload, offset);
    FIELD(dunlin_payload, len);
    STRUCTURE(dunlin_receipt);
    FIELD(dunlin_receipt, opaque);
    STRUCTURE(dunlin_event);
    FIELD(dunlin_event, message);
    FIELD(dunlin_event, codes);
    FIELD(dunlin_event, offset);
    FIELD(dunlin_event, total);
    FIELD(dunlin_event, receipt);
    FIELD(dunlin_event, packet_id);
    FIELD(dunlin_event, kind);
    FIELD(dunlin_event, resumed);
    FIELD(dunlin_event, is_last);
    STRUCTURE(dunlin_fault_info);
    FIELD(dunlin_fault_info, len);
    FIELD(dunlin_fault_info, kind);
    FIELD(dunlin_fault_info, detail);
    FIELD(dunlin_fault_info, may_heal);
    STRUCTURE(dunlin_mark);
    FIELD(dunlin_mark, packet_id);
    FIELD(dunlin_mark, stage);
    return 0;
}
