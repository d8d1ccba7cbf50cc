/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stdio on an accelerated socket. libc's streams make their system calls inside libc, past every name that we take
 * over, and on a backing socket, which is not connected, these fail. libc has a documented way for streams whose bytes
 * go through functions of the program's (fopencookie), and everything else of stdio works on them: buffering, locking,
 * printf, getline, ungetc.
 *
 * So fdopen of an accelerated socket makes such a stream; its functions are our read and write, with the descriptor's
 * number, which may stand for anything by then. stdin, stdout and stderr are made by libc before anybody is asked, but
 * they are variables, and may be set: as soon as 0, 1 or 2 becomes an accelerated socket, the variable gets a stream of
 * ours. What the old stream had buffered moves with it. It stays for good, as it serves files as well.
 *
 * What does not work: a copy of the old stdout that the program kept from before; wide-character output (fopencookie's
 * streams are of bytes).
 *
 * dprintf makes a stream for the time of a call; here the text is made in memory first.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "fdtable.h"
#include "stdio_streams.h"

#define UNBUFFERED 0x0002 /* of FILE._flags, where libc has no function that asks for it */

struct cookie {
	struct cookie *next;
	FILE *stream;
	int fd;
	char *rest; /* read ahead by the stream that this one follows */
	size_t rest_len;
};

static struct cookie *all;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all */
static FILE *libc_made[3];

static FILE **variable(int fd)
{
	return fd == 0 ? &stdin : fd == 1 ? &stdout : &stderr;
}

/* --- what libc calls --- */

static ssize_t cookie_read(void *arg, char *buf, size_t len)
{
	struct cookie *c = arg;
	size_t n = len < c->rest_len ? len : c->rest_len;

	if (!n)
		return read(c->fd, buf, len);
	memcpy(buf, c->rest, n);
	c->rest_len -= n;
	memmove(c->rest, c->rest + n, c->rest_len);
	return (ssize_t)n;
}

/* All of it, or an error: as libc's own. */
static ssize_t write_all(int fd, const char *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = write(fd, buf + done, len - done);

		if (n < 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static ssize_t cookie_write(void *arg, const char *buf, size_t len)
{
	return write_all(((struct cookie *)arg)->fd, buf, len);
}

static int cookie_seek(void *arg, off64_t *offset, int whence)
{
	off64_t to = lseek64(((struct cookie *)arg)->fd, *offset, whence);

	if (to < 0)
		return -1;
	*offset = to;
	return 0;
}

static int cookie_close(void *arg)
{
	struct cookie *c = arg, **at;
	int r = close(c->fd), error = errno;

	pthread_mutex_lock(&lock);
	for (at = &all; *at; at = &(*at)->next) {
		if (*at != c)
			continue;
		*at = c->next;
		break;
	}
	pthread_mutex_unlock(&lock);
	free(c->rest);
	free(c);
	errno = error;
	return r;
}

static FILE *open_stream(int fd, const char *mode)
{
	static const cookie_io_functions_t functions = {
	    .read = cookie_read, .write = cookie_write, .seek = cookie_seek, .close = cookie_close};
	struct cookie *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->fd = fd;
	c->stream = fopencookie(c, mode, functions);
	if (!c->stream) {
		free(c);
		return NULL;
	}
	c->stream->_fileno = fd; /* for fileno() */
	pthread_mutex_lock(&lock);
	c->next = all;
	all = c;
	pthread_mutex_unlock(&lock);
	return c->stream;
}

FILE *fdopen(int fd, const char *mode)
{
	return fd_vsock(fd) == VS_NONE ? real.fdopen(fd, mode) : open_stream(fd, mode);
}

/* --- stdin, stdout, stderr --- */

static void move_input(FILE *from, FILE *to)
{
	struct cookie *c = all;
	size_t n = (size_t)(from->_IO_read_end - from->_IO_read_ptr);

	while (c && c->stream != to)
		c = c->next;
	if (!n || !c)
		return;
	c->rest = malloc(n);
	if (!c->rest)
		return;
	memcpy(c->rest, from->_IO_read_ptr, n);
	c->rest_len = n;
	__fpurge(from);
}

static void move_output(FILE *from, FILE *to)
{
	size_t n = __fpending(from);

	setvbuf(to, NULL, from->_flags & UNBUFFERED ? _IONBF : __flbf(from) ? _IOLBF : _IOFBF, BUFSIZ);
	if (!n)
		return;
	fwrite(from->_IO_write_base, 1, n, to);
	__fpurge(from);
}

void streams_follow(int fd)
{
	FILE **at = variable(fd), *old = *at, *new;
	int error = errno;

	if (!old || old != libc_made[fd] || fileno(old) != fd)
		return;
	new = open_stream(fd, fd ? "w" : "r");
	if (new &&fd)
		move_output(old, new);
	else if (new)
		move_input(old, new);
	if (new)
		*at = new;
	errno = error;
}

bool streams_made(FILE *stream)
{
	const struct cookie *c;

	pthread_mutex_lock(&lock);
	for (c = all; c && c->stream != stream; c = c->next)
		;
	pthread_mutex_unlock(&lock);
	return c != NULL;
}

void streams_init(void)
{
	for (int fd = 0; fd <= 2; fd++)
		libc_made[fd] = *variable(fd);
}

void streams_flush(void)
{
	/* Nothing is taken off the list any more but by a thread that still runs: it is not walked without the lock. */
	FILE *streams[64];
	size_t n = 0;

	pthread_mutex_lock(&lock);
	for (struct cookie *c = all; c && n < sizeof(streams) / sizeof(streams[0]); c = c->next)
		streams[n++] = c->stream;
	pthread_mutex_unlock(&lock);
	while (n)
		fflush(streams[--n]);
}

/* --- dprintf --- */

static int print(int fd, const char *format, va_list args)
{
	char *text;
	int n = vasprintf(&text, format, args);

	if (n < 0)
		return n;
	if (write_all(fd, text, (size_t)n) < n)
		n = -1;
	free(text);
	return n;
}

int vdprintf(int fd, const char *format, va_list args)
{
	return fd_vsock(fd) == VS_NONE ? real.vdprintf(fd, format, args) : print(fd, format, args);
}

int dprintf(int fd, const char *format, ...)
{
	va_list args;
	int r;

	va_start(args, format);
	r = vdprintf(fd, format, args);
	va_end(args);
	return r;
}

int __vdprintf_chk(int fd, int flag, const char *format, va_list args)
{
	return fd_vsock(fd) == VS_NONE ? real.__vdprintf_chk(fd, flag, format, args) : print(fd, format, args);
}

int __dprintf_chk(int fd, int flag, const char *format, ...)
{
	va_list args;
	int r;

	va_start(args, format);
	r = __vdprintf_chk(fd, flag, format, args);
	va_end(args);
	return r;
}
