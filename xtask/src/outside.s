# The world outside the applications that are measured: names to call, and no more. It has a section of its own, so that
# nothing of it counts.

.ifdef ARM
    .syntax unified
    .thumb
.endif

.macro outside name
    .global \name
    .type \name, %function
  .ifdef ARM
    .thumb_func
    \name: bx lr
  .else
    \name: ret
  .endif
    .size \name, . - \name
.endm

.section .outside, "ax", %progbits
    outside transport_connect
    outside transport_close
    outside transport_back_off
    outside transport_window
    outside transport_window_len
    outside transport_commit
    outside transport_receive
    outside clock_ms
    outside message_arrived
    outside flash_read
    outside flash_write
    outside flash_erase
    outside mark_stored
