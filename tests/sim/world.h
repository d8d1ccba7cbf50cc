/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A simulated world: two hosts, each with a stack of its own, joined by one link, in virtual time, made from a seed.
 *
 *   world.c   makes the world from the seed, moves the time, checks what must hold at the end
 *   app.c     the programs at both ends of each connection: a model of what they may see, compared with what they see
 *   datagrams.c   UDP beside the connections
 *   trace.c   segments as text, and what may be checked by looking at the wire alone
 */
#ifndef VD_TEST_WORLD_H
#define VD_TEST_WORLD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "engine/engine.h"
#include "vnic/sim.h"

#define CONNS_MAX 24
#define SERVER_PORT 80
#define DEAD_PORT 81
#define CLIENT_PORT 10000 /* plus the number of the connection */
#define CROSS_PORT 20000  /* plus that number: both ends connect (simultaneous open) */

struct world;

/* How the program at one end finishes. */
enum finish {
	FINISH_AFTER_EOF,  /* shut down for writing when all is sent, read to the end, close */
	FINISH_AFTER_SEND, /* close at once when all is sent: what the peer still sends is refused */
	FINISH_ABORT,      /* close with linger 0 after some bytes */
	FINISH_PEER_FIRST, /* send, wait for the peer's end of stream, then close */
	FINISH_COUNT
};

/* One end of a connection. */
struct app {
	struct world *w;
	uint8_t host;
	uint8_t finish; /* enum finish */
	bool born, open, connected, wr_shut, eof;
	bool want_read, want_write; /* not blocked: a call may succeed */
	bool linger0_closed;        /* closed with a reset */
	bool closed_early;          /* closed before the end of the peer's stream was read */
	bool failed;                /* a call gave an error */
	bool cork;
	int err;
	uint32_t sock, gen;
	uint64_t stream; /* names the pattern of what it sends */
	uint64_t to_send, sent, received;
	uint64_t abort_at; /* FINISH_ABORT: bytes sent and received */
	uint32_t max_write, max_read, write_pause_us, read_pause_us;
	uint64_t write_at_us, read_at_us;
	uint32_t options;   /* OPT_* */
	uint64_t urgent_at; /* where in its stream it writes an urgent byte; URGENT_NONE */
	bool urgent_got;    /* the other end's was read */
};

#define OPT_NODELAY 0x1u
#define OPT_CORK 0x2u /* corks and uncorks from time to time */
#define OPT_MORE 0x4u /* writes with MSG_MORE now and then */
#define OPT_PEEK 0x8u
#define OPT_NEWRENO 0x10u
#define OPT_KEEPALIVE 0x20u
#define OPT_SMALL_RCV 0x40u
#define OPT_SMALL_SND 0x80u
#define OPT_INLINE 0x100u      /* urgent bytes stay in the stream (SO_OOBINLINE) */
#define OPT_URGENT_MANY 0x200u /* many urgent bytes, to an end that has them in the stream */
#define URGENT_NONE UINT64_MAX

struct conn {
	struct app end[2]; /* client, server */
	uint16_t client_port, server_port;
	uint64_t start_us; /* since the world's beginning */
	bool started;
	bool simultaneous;  /* both ends call connect at the same time */
	struct conn *after; /* begins when that one is over, with the same ports; NULL: none */
};

#define DATAGRAMS_MAX 200u

/* UDP at one host (datagrams.c). */
struct datagram_end {
	uint32_t sock; /* index; 0: none */
	uint64_t stream;
	uint32_t total, sent; /* by this end */
	uint64_t next_us;     /* when it sends again */
	uint32_t pause_us;
	uint32_t got, next_number; /* of the other end's: how many, and what would be in order */
	bool seen[DATAGRAMS_MAX];
};

struct datagrams {
	struct datagram_end end[2];
	uint32_t max_len;
};

struct host {
	struct engine *e;
	uint32_t listener; /* socket's index; 0: none */
	uint32_t backlog;
	uint32_t accept_pause_us;
	uint64_t accept_at_us;
	uint8_t addr[16];
	bool listener_closed;
};

struct world {
	uint64_t seed, random;
	uint64_t more; /* a second generator, for what was added later: the seeds' worlds are else as they were */
	uint64_t now, begin_us, progress_us;
	bool verbose, failed;
	bool clean;                 /* the link loses, changes and reorders nothing */
	bool heavy;                 /* so much loss that a connection may time out */
	uint64_t cut_at, cut_until; /* the link is down for a while; 0: never */
	bool cut_for_good;
	uint8_t family;
	bool no_sack; /* the option is taken out of the SYNs */
	struct sim_config cfg;
	struct sim *link;
	struct host host[2];
	struct conn conn[CONNS_MAX];
	uint32_t conns, open_ends;
	uint64_t steps, bytes;
	uint64_t retrans; /* segments sent again, seen in the counters of both stacks */
	struct datagrams datagrams;
	uint64_t delivered; /* datagrams */
	uint64_t marked;    /* packets with CE */
	struct monitor *monitor;
};

/* world.c */
bool world_run(struct world *w, uint64_t seed, bool verbose);
void world_fail(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void world_say(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline uint32_t pick(struct world *w, uint32_t n)
{
	return sim_below(&w->random, n);
}
static inline bool one_in(struct world *w, uint32_t n)
{
	return pick(w, n) == 0;
}
/* The same from the second generator. */
static inline uint32_t pick_more(struct world *w, uint32_t n)
{
	return sim_below(&w->more, n);
}
/* Of any magnitude between low and high. */
uint32_t pick_log(struct world *w, uint32_t low, uint32_t high);

/* app.c */
void app_plan(struct world *w, struct conn *c);
void app_connect(struct world *w, struct conn *c);
/* The connection whose ports these are (the latest, where ports were used again); NULL: nobody's. */
struct conn *app_of_ports(struct world *w, uint16_t a, uint16_t b);
void app_accept(struct world *w, int host);
/* The program looks: reads and writes what it wants to. */
void app_run(struct world *w, struct conn *c, int end);
void app_news(struct world *w, int host, uint32_t sock, uint32_t edges);
/* When the program wants to run next; UINT64_MAX: it waits for news. */
uint64_t app_next(const struct app *a);

/* n bytes of a stream from offset on; a multiple of 8 may be written beyond. */
void app_pattern(uint64_t stream, uint64_t offset, uint8_t *to, size_t n);

/* datagrams.c */
void datagrams_plan(struct world *w);
void datagrams_run(struct world *w);
uint64_t datagrams_next(const struct world *w); /* when the next is to be sent; UINT64_MAX: all were */
bool datagrams_done(const struct world *w);
void datagrams_close(struct world *w);

/* trace.c */
void trace_frame(void *world, uint64_t now_us, int from, const uint8_t *frame, uint32_t len, enum sim_fate fate);
void trace_reset(struct world *w);

#endif
