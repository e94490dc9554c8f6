/*
 * What the board does for a program in C: time, one TCP connection, a sensor. ../src/pump_c.rs is behind it; on a board of
 * yours it is your network stack and your drivers.
 */
#ifndef BOARD_H
#define BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct board;

/* Milliseconds since the start. */
uint64_t board_now_ms(void);

/* Connects to the broker, and waits for the answer. */
bool board_connect(struct board *board);

/* Where the bytes go that are to leave next: the TCP stack's own buffer, as far as it is free and in one piece. board_sent()
 * then says how many are there. */
void *board_ring(struct board *board, size_t *room);
void board_sent(struct board *board, size_t len);

/* Takes what has come, at most `len` bytes of it, and says how many. It does not wait. */
size_t board_receive(struct board *board, void *into, size_t len);

/* Sleeps until bytes or a reading are there, or something else needs to be looked at, or the time is over. False: the connection
 * is over. */
bool board_wait(struct board *board, uint32_t milliseconds);

/* Says goodbye on the level of TCP, and waits until the broker has heard it. */
void board_close(struct board *board);

/* Breaks the connection off. */
void board_cut(struct board *board);

/* Has the sensor take so many readings, one every 20 milliseconds. */
void board_start_sensor(uint32_t readings);

/* The oldest reading that its interrupt has queued: how many there were before it since the start. */
bool board_take_reading(uint32_t *reading);

/* What was done since the last note bears this name, in the table of what things cost. */
void board_note(const char *name);

#endif
