/* SPDX-License-Identifier: BSD-2-Clause */
/* Streams (stdio) whose descriptors are accelerated sockets; stdio_streams.c has the theory of operation. */
#ifndef VD_STDIO_STREAMS_H
#define VD_STDIO_STREAMS_H

#include <stdbool.h>
#include <stdio.h>

/* At the start of the program: which streams libc has made. */
void streams_init(void);
/* Descriptor fd, at most 2, has just become an accelerated socket: stdin, stdout or stderr follows it. */
void streams_follow(int fd);
/* Is it one of ours? It closes its descriptor as the program would, after what is buffered has gone out. */
bool streams_made(FILE *stream);
/* exit(): what is buffered goes out while the sockets are still there. */
void streams_flush(void);

#endif
