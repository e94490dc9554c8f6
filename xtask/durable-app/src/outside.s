# The flash under the application that is measured: names to call, and no more, as in ../../src/outside.s.

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
    outside flash_read
    outside flash_write
    outside flash_erase
    outside mark_stored
