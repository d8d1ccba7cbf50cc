/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The program of a seed. A sketch of what each slot ought to hold (as if every call succeeded) makes most steps make
 * sense; some are meant not to. What programs never do is in one place: allowed(), with the reasons in
 * docs/conformance.md.
 */
#include "play.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum kind { EMPTY, GONE, FRESH, LISTENER, CONNECTION, DATAGRAM, SET };

struct sketch {
	uint64_t random;
	struct program *p;
	unsigned char kind[ACTORS][SLOTS];
	int port;               /* the next that nobody has */
	int own[ACTORS][SLOTS]; /* the port of a datagram socket, else -1 */
	int listening[PORTS], n_listening;
	int bound[PORTS], n_bound; /* UDP */
	bool holds_back;
};

/* SplitMix64 */
static uint64_t next(struct sketch *k)
{
	uint64_t z = k->random += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static int below(struct sketch *k, int n)
{
	return (int)(next(k) % (uint64_t)n);
}

static bool chance(struct sketch *k, int percent)
{
	return below(k, 100) < percent;
}

#define PICK(k, ...) pick(k, (const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int))
static int pick(struct sketch *k, const int *of, size_t n)
{
	return of[below(k, (int)n)];
}

static bool allowed(const struct sketch *k, const struct step *s)
{
	const int error = 0, cork = 16, notsent_lowat = 23; /* numbers in options.def */

	/* Data that is held back takes 200 ms to arrive. */
	if (!k->holds_back && ((s->op == OP_setopt && s->a[1] == cork) || (s->op == OP_send && s->a[2] & MSG_MORE) ||
			       (s->op == OP_sendmsg && s->a[3] & MSG_MORE)))
		return false;

	/* No TIME-WAIT over a wire, and a connection's backing socket keeps its port: another name for one that is
	 * dead. */
	if (s->op == OP_bind && k->kind[s->actor][s->a[0]] == CONNECTION)
		return false;
	/* See connect_datagrams. */
	if (s->op == OP_connect && k->kind[s->actor][s->a[0]] == DATAGRAM)
		return false;
	/* What is not sent counts in a strange way after connect() to AF_UNSPEC. */
	if (s->op == OP_setopt && s->a[1] == notsent_lowat)
		return false;
	/* An error that is read is gone: with a length that takes no byte, too. */
	return !(s->op == OP_setopt && s->a[1] == error);
}

#define STEP(k, actor, op, ...) add(k, (struct step){actor, OP_##op, {__VA_ARGS__}})
static void add(struct sketch *k, struct step s)
{
	if (k->p->n < STEPS_MAX && allowed(k, &s))
		k->p->step[k->p->n++] = s;
}

static int slot_of(struct sketch *k, int actor, enum kind kind)
{
	int from = below(k, SLOTS), slot;

	if (chance(k, 3))
		return from;
	for (int i = 0; i < SLOTS; i++) {
		slot = (from + i) % SLOTS;
		if (k->kind[actor][slot] == kind)
			return slot;
	}
	return -1;
}

static int free_slot(struct sketch *k, int actor)
{
	int slot = slot_of(k, actor, EMPTY);

	return slot >= 0 ? slot : slot_of(k, actor, GONE);
}

static int any_slot(struct sketch *k, int actor)
{
	static const enum kind order[] = {CONNECTION, DATAGRAM, CONNECTION, LISTENER, CONNECTION, FRESH, GONE, SET};
	int slot = slot_of(k, actor, order[below(k, sizeof order / sizeof *order)]);

	return slot >= 0 ? slot : below(k, SLOTS);
}

static int socket_flags(struct sketch *k)
{
	return PICK(k, 0, 0, SOCK_NONBLOCK, SOCK_NONBLOCK, SOCK_CLOEXEC, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

/* Where one binds for family, and where one then connects to. */
static int address_to_bind(struct sketch *k, int family)
{
	if (family == 4)
		return PICK(k, AT_V4, AT_V4, AT_ANY4);
	return PICK(k, AT_V6, AT_ANY6, AT_ANY6, AT_MAPPED);
}

static int address_to_reach(struct sketch *k, int bound, int family)
{
	switch (bound) {
	case AT_V6:
		return AT_V6;
	case AT_ANY6:
		return family == 6 ? PICK(k, AT_V6, AT_MAPPED, AT_ANY6) : AT_V4;
	case AT_ANY4:
		return family == 6 ? AT_MAPPED : PICK(k, AT_V4, AT_OTHER4, AT_ANY4);
	default:
		return family == 6 ? AT_MAPPED : AT_V4;
	}
}

static void open_listener(struct sketch *k, int *bound, int *port, int *actor, int *slot)
{
	const int reuseaddr = 9; /* its number in options.def */
	int family = chance(k, 60) ? 4 : 6;

	*actor = below(k, ACTORS);
	*slot = free_slot(k, *actor);
	if (*slot < 0 || k->port == PORTS)
		return;
	*bound = address_to_bind(k, family);
	*port = k->port++;
	STEP(k, *actor, socket, *slot, family, SOCK_STREAM, socket_flags(k), PICK(k, 0, 0, IPPROTO_TCP));
	/* So that one that was shut down can listen again: over a wire its connections don't hold the port. */
	STEP(k, *actor, setopt, *slot, reuseaddr, 1, 4);
	STEP(k, *actor, bind, *slot, AT(*bound, *port));
	STEP(k, *actor, listen, *slot, PICK(k, 8, 16, 128, -1));
	k->kind[*actor][*slot] = LISTENER;
	k->listening[k->n_listening++] = AT(*bound, *port);
}

static void open_connection(struct sketch *k)
{
	const int nodelay = 15; /* its number in options.def */
	int bound, port = -1, server, slot, client, mine, accepted, family;

	open_listener(k, &bound, &port, &server, &slot);
	if (port < 0)
		return;
	client = chance(k, 12) ? server : !server;
	for (int n = 1 + (chance(k, 25) ? 1 : 0); n; n--) {
		family = bound == AT_V6 ? 6 : chance(k, 75) ? 4 : 6;
		mine = free_slot(k, client);
		if (mine < 0)
			return;
		STEP(k, client, socket, mine, family, SOCK_STREAM, socket_flags(k), 0);
		if (!chance(k, 2)) /* else Nagle's algorithm waits for delayed ACKs */
			STEP(k, client, setopt, mine, nodelay, 1, 4);
		STEP(k, client, connect, mine, AT(address_to_reach(k, bound, family), port));
		k->kind[client][mine] = CONNECTION;
		accepted = free_slot(k, server);
		if (accepted < 0 || chance(k, 8))
			return;
		STEP(k, server, accept, slot, accepted, socket_flags(k), PICK(k, -1, 16, 28, 128, 4));
		k->kind[server][accepted] = CONNECTION;
		if (!chance(k, 2))
			STEP(k, server, setopt, accepted, nodelay, 1, 4);
	}
}

/* Datagrams to a connected socket go through the kernel until it has sent one: both ways have an order of their own. */
static void connect_datagrams(struct sketch *k, int actor, int slot, int address)
{
	k->kind[actor][slot] = FRESH;
	STEP(k, actor, connect, slot, address);
	STEP(k, actor, send, slot, 1, 0, -1);
	k->kind[actor][slot] = DATAGRAM;
}

static void open_datagrams(struct sketch *k)
{
	int family = chance(k, 60) ? 4 : 6, port[2], bound[2], slot, other = below(k, ACTORS);

	for (int i = 0; i < 2; i++) {
		if (k->port == PORTS)
			return;
		slot = free_slot(k, i ^ other);
		if (slot < 0)
			return;
		port[i] = k->port++;
		bound[i] = address_to_bind(k, family);
		STEP(k, i ^ other, socket, slot, family, SOCK_DGRAM, socket_flags(k), PICK(k, 0, IPPROTO_UDP));
		STEP(k, i ^ other, bind, slot, AT(bound[i], port[i]));
		k->kind[i ^ other][slot] = DATAGRAM;
		k->own[i ^ other][slot] = port[i];
		k->bound[k->n_bound++] = AT(bound[i], port[i]);
		if (i && chance(k, 60))
			connect_datagrams(k, other ^ 1, slot, AT(address_to_reach(k, bound[0], family), port[0]));
	}
}

static int some_address(struct sketch *k)
{
	int kind = chance(k, 90) ? below(k, AT_OTHER4 + 1) : below(k, AT_KINDS);

	return AT(kind, chance(k, 80) ? below(k, PORTS) : PICK(k, 8, 7));
}

static int send_flags(struct sketch *k)
{
	return PICK(k, 0, 0, 0, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_MORE, MSG_OOB, MSG_DONTWAIT | MSG_NOSIGNAL, MSG_EOR,
		    MSG_CONFIRM, MSG_DONTROUTE);
}

static int recv_flags(struct sketch *k)
{
	return PICK(k, 0, 0, 0, MSG_DONTWAIT, MSG_PEEK, MSG_WAITALL, MSG_TRUNC, MSG_OOB, MSG_PEEK | MSG_TRUNC,
		    MSG_PEEK | MSG_DONTWAIT, MSG_WAITALL | MSG_PEEK, MSG_OOB | MSG_PEEK, MSG_ERRQUEUE, MSG_CMSG_CLOEXEC,
		    MSG_WAITALL | MSG_DONTWAIT);
}

static int amount(struct sketch *k)
{
	return PICK(k, 0, 1, 2, 3, 7, 10, 100, 100, 500, 1000, 1448, 4000, 4096, 9000);
}

static void data_step(struct sketch *k, int actor)
{
	int datagram = chance(k, 30), slot = slot_of(k, actor, datagram ? DATAGRAM : CONNECTION), to = -1;

	if (slot < 0)
		return;
	if (k->kind[actor][slot] == DATAGRAM ? chance(k, 60) : chance(k, 4))
		to = k->n_bound && chance(k, 80) ? k->bound[below(k, k->n_bound)] : some_address(k);
	/* A datagram to itself takes another way than others: the order is open. */
	if (to >= 0 && to % 10 == k->own[actor][slot])
		to = -1;
	switch (below(k, 8)) {
	case 0:
	case 1:
		STEP(k, actor, send, slot, amount(k), send_flags(k), to);
		break;
	case 2:
		STEP(k, actor, write, slot, amount(k), PICK(k, 0, 0, 1, 2, 3, 6));
		break;
	case 3:
		STEP(k, actor, sendmsg, slot, amount(k), PICK(k, 0, 1, 3, 5), send_flags(k), to);
		break;
	case 4:
	case 5:
		STEP(k, actor, recv, slot, amount(k), recv_flags(k), chance(k, 40));
		break;
	case 6:
		STEP(k, actor, read, slot, amount(k), PICK(k, 0, 0, 1, 2, 3, 6));
		break;
	default:
		STEP(k, actor, recvmsg, slot, amount(k), PICK(k, 0, 1, 3, 5), recv_flags(k));
	}
}

static void option_step(struct sketch *k, int actor)
{
	int slot = any_slot(k, actor), option = below(k, n_options);
	int length = chance(k, 80) ? 4 : PICK(k, 0, 1, 2, 3, 5, 8, -1);

	if (chance(k, 50))
		STEP(k, actor, getopt, slot, option, length);
	else
		STEP(k, actor, setopt, slot, option, PICK(k, 0, 1, 1, 2, 5, 60, 255, 1000, -1),
		     length == 4 ? PICK(k, 4, 8) : length);
}

static void set_step(struct sketch *k, int actor)
{
	unsigned modes =
	    (unsigned)PICK(k, 0, 0, 0, (int)EPOLLET, EPOLLONESHOT, EPOLLEXCLUSIVE, (int)(EPOLLET | EPOLLONESHOT));
	unsigned events = (unsigned)PICK(k, EPOLLIN, EPOLLOUT, EPOLLIN | EPOLLOUT, EPOLLIN | EPOLLRDHUP, EPOLLPRI, 0);
	int set = slot_of(k, actor, SET);

	if (set < 0) {
		set = free_slot(k, actor);
		if (set >= 0) {
			STEP(k, actor, epoll, set, PICK(k, 0, EPOLL_CLOEXEC));
			k->kind[actor][set] = SET;
		}
		return;
	}
	if (chance(k, 60))
		STEP(k, actor, ctl, set,
		     PICK(k, EPOLL_CTL_ADD, EPOLL_CTL_ADD, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, 7),
		     any_slot(k, actor), (int)(events | modes));
	else
		STEP(k, actor, wait, set, PICK(k, 64, 64, 64, 64, 0, -1));
}

static void ready_step(struct sketch *k, int actor)
{
	int mask = (1 << SLOTS) - 1;

	if (chance(k, 50))
		STEP(k, actor, poll, below(k, mask + 1),
		     PICK(k, POLLIN, POLLOUT, POLLIN | POLLOUT | POLLPRI, 0,
			  POLLIN | POLLRDHUP | POLLRDNORM | POLLWRNORM | POLLRDBAND));
	else
		STEP(k, actor, select, below(k, mask + 1), below(k, mask + 1), below(k, mask + 1));
}

static void end_step(struct sketch *k, int actor)
{
	const int linger = 10; /* its number in options.def */
	int slot = any_slot(k, actor);

	if (chance(k, 50)) {
		STEP(k, actor, shutdown, slot, PICK(k, SHUT_WR, SHUT_WR, SHUT_RD, SHUT_RDWR, 3));
		return;
	}
	if (chance(k, 25))
		STEP(k, actor, setopt, slot, linger, 1, 8);
	STEP(k, actor, close, slot);
	k->kind[actor][slot] = GONE;
}

static void copy_step(struct sketch *k, int actor)
{
	int slot = any_slot(k, actor), to = chance(k, 70) ? free_slot(k, actor) : any_slot(k, actor);
	int how = below(k, 3);

	if (to < 0 || to == slot)
		return;
	if (how == 0)
		STEP(k, actor, dup, slot, to);
	else if (how == 1)
		STEP(k, actor, dup2, slot, to);
	else
		STEP(k, actor, dupfd, slot, to, PICK(k, 0, 10, 50));
	k->kind[actor][to] = k->kind[actor][slot];
	k->own[actor][to] = k->own[actor][slot];
}

static void name_step(struct sketch *k, int actor)
{
	int slot = any_slot(k, actor);

	switch (below(k, 7)) {
	case 0:
		STEP(k, actor, sockname, slot, PICK(k, 16, 28, 128, 0, 2, 7, -1));
		break;
	case 1:
		STEP(k, actor, peername, slot, PICK(k, 16, 28, 128, 0, 2, 7, -1));
		break;
	case 2:
		STEP(k, actor, getfl, slot);
		break;
	case 3:
		STEP(k, actor, nonblock, slot, below(k, 2), below(k, 2));
		break;
	case 4:
	case 5:
		STEP(k, actor, inq, slot);
		break;
	default:
		STEP(k, actor, atmark, slot);
	}
}

/* Calls that most often are mistakes. */
static void odd_step(struct sketch *k, int actor)
{
	int slot = any_slot(k, actor), free = free_slot(k, actor);

	switch (below(k, 6)) {
	case 0:
		STEP(k, actor, bind, slot, some_address(k));
		break;
	case 1:
		STEP(k, actor, listen, slot, PICK(k, 8, 16));
		break;
	case 2:
		STEP(k, actor, connect, slot, some_address(k));
		break;
	case 3:
		if (free >= 0)
			STEP(k, actor, accept, slot, free, PICK(k, 0, SOCK_NONBLOCK, 1), PICK(k, -1, 16));
		break;
	case 4:
		if (free >= 0) {
			STEP(k, actor, socket, free, PICK(k, 4, 4, 6, 99), PICK(k, SOCK_STREAM, SOCK_DGRAM, 77),
			     socket_flags(k), PICK(k, 0, 0, IPPROTO_UDP, 250));
			k->kind[actor][free] = FRESH;
		}
		break;
	default:
		if (k->n_listening && free >= 0) {
			STEP(k, actor, socket, free, 4, SOCK_STREAM, socket_flags(k), 0);
			STEP(k, actor, connect, free, k->listening[below(k, k->n_listening)]);
			k->kind[actor][free] = CONNECTION;
		}
	}
}

static void any_step(struct sketch *k)
{
	int actor = below(k, ACTORS), what = below(k, 100);

	if (what < 42)
		data_step(k, actor);
	else if (what < 52)
		set_step(k, actor);
	else if (what < 59)
		ready_step(k, actor);
	else if (what < 67)
		option_step(k, actor);
	else if (what < 75)
		name_step(k, actor);
	else if (what < 83)
		end_step(k, actor);
	else if (what < 88)
		copy_step(k, actor);
	else if (what < 94)
		odd_step(k, actor);
	else if (what < 96)
		open_datagrams(k);
	else if (what < 97)
		open_connection(k);
	else {
		int listener = slot_of(k, actor, LISTENER), accepted = free_slot(k, actor);

		if (listener >= 0 && accepted >= 0) {
			STEP(k, actor, accept, listener, accepted, socket_flags(k), PICK(k, -1, 28));
			k->kind[actor][accepted] = CONNECTION;
		}
	}
}

void generate(uint64_t seed, struct program *p)
{
	struct sketch k = {.random = seed * 0x2545f4914f6cdd1du + 1, .p = p};
	int length;

	memset(p, 0, sizeof *p);
	memset(k.own, -1, sizeof k.own);
	k.holds_back = below(&k, 300) == 0;
	if (!chance(&k, 8))
		open_connection(&k);
	if (chance(&k, 35))
		open_datagrams(&k);
	length = p->n + 8 + below(&k, 30);
	for (int tries = 0; p->n < length && tries < 500; tries++)
		any_step(&k);
}
