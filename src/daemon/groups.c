/* SPDX-License-Identifier: BSD-2-Clause */
/* See groups.h. */
#include "daemon/groups.h"
#include "daemon/hearers.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NOBODY 0xffffffffu
#define HEARERS 64u /* sockets of one port that are looked at: more are not ours; members of one group */
#define GROUPS_MAX 1024u
#define USERS_SHARE 4u /* no user's sockets are the first of more than this part of the groups */
#define CPU_SHARE 20   /* looking takes no more than this part of the time */

struct group {
	struct group *next;
	struct steer_key key;
	uint32_t has; /* stack to which its frames go; NOBODY: to the kernel */
	struct group_member *member;
	uint32_t members, room;
	uint32_t uid; /* of who asked first */
};

struct groups {
	struct filters *filters;
	struct group *first;
	int64_t look_ms; /* when to look again; 0: at once */
};

static bool is_v4(const uint8_t addr[16])
{
	static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};

	return !memcmp(addr, prefix, sizeof(prefix));
}

bool groups_key(const struct steer_key *key)
{
	return key->proto == IPPROTO_UDP && !key->remote_port &&
	       (is_v4(key->local) ? key->local[12] >> 4 == 0xe : key->local[0] == 0xff);
}

/* --- who hears --- */

static bool hears(const struct hearer *s, const struct steer_key *key)
{
	static const uint8_t any4[16] = {[10] = 0xff, [11] = 0xff}, zero[16];

	if (!memcmp(s->addr, key->local, 16))
		return true;
	if (!memcmp(s->addr, any4, 16))
		return key->family == 4;
	return !memcmp(s->addr, zero, 16) && (!s->family || s->family == key->family);
}

/* --- whose it is --- */

static const struct group_member *member_of(const struct group *g, uint64_t inode)
{
	for (uint32_t i = 0; i < g->members; i++)
		if (g->member[i].inode == inode)
			return &g->member[i];
	return NULL;
}

/* The member of the one stack that all hearers belong to. NULL: there is no such. */
static const struct group_member *alone(const struct group *g, const struct hearers *p)
{
	const struct group_member *one = NULL;

	if (p->count == HEARERS)
		return NULL;
	for (uint32_t i = 0; i < p->count; i++) {
		const struct group_member *m;

		if (!hears(&p->at[i], &g->key))
			continue;
		m = member_of(g, p->at[i].inode);
		if (!m || (one && one->stack != m->stack))
			return NULL;
		one = m;
	}
	return one;
}

static void give(struct groups *all, struct group *g, const struct group_member *to)
{
	if (to && to->stack == g->has)
		return;
	if (g->has != NOBODY)
		filters_del(all->filters, &g->key, g->has);
	g->has = NOBODY;
	if (to && filters_add(all->filters, &g->key, to->stack, to->uid, to->id, false) >= 0)
		g->has = to->stack;
}

/* All groups at the port of one of them. */
static void look(struct groups *all, __be16 port, bool forwards4, bool forwards6)
{
	struct hearers p;
	int rc = hearers_ask(port, &p);

	for (struct group *g = all->first; g; g = g->next) {
		bool routed = g->key.family == 4 ? forwards4 : forwards6;

		if (g->key.local_port == port)
			give(all, g, rc || routed ? NULL : alone(g, &p));
	}
}

static bool seen(const struct groups *all, const struct group *until)
{
	for (const struct group *g = all->first; g != until; g = g->next)
		if (g->key.local_port == until->key.local_port)
			return true;
	return false;
}

static void look_at_all(struct groups *all)
{
	bool four = hearers_forwards(4), six = hearers_forwards(6);

	for (struct group *g = all->first; g; g = g->next)
		if (!seen(all, g))
			look(all, g->key.local_port, four, six);
}

/* --- members --- */

struct groups *groups_new(struct filters *f)
{
	struct groups *all = calloc(1, sizeof(*all));

	if (all)
		all->filters = f;
	return all;
}

static void free_group(struct group *g)
{
	free(g->member);
	free(g);
}

void groups_free(struct groups *all)
{
	while (all && all->first) {
		struct group *g = all->first;

		all->first = g->next;
		free_group(g);
	}
	free(all);
}

static struct group **find(struct groups *all, const struct steer_key *key)
{
	struct group **at = &all->first;

	while (*at && memcmp(&(*at)->key, key, sizeof(*key)) != 0)
		at = &(*at)->next;
	return at;
}

static int put_member(struct group *g, const struct group_member *m)
{
	if (g->members == HEARERS)
		return -ENOSPC;
	if (g->members == g->room) {
		uint32_t room = g->room ? 2 * g->room : 4;
		struct group_member *more = realloc(g->member, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		g->member = more;
		g->room = room;
	}
	g->member[g->members++] = *m;
	return 0;
}

static bool room_for(const struct groups *all, uint32_t uid)
{
	uint32_t n = 0, theirs = 0;

	for (const struct group *g = all->first; g; g = g->next, n++)
		theirs += g->uid == uid;
	return n < GROUPS_MAX && theirs < GROUPS_MAX / USERS_SHARE;
}

static int new_group(struct groups *all, struct group **at, const struct steer_key *key, uint32_t uid)
{
	struct group *g = room_for(all, uid) ? calloc(1, sizeof(*g)) : NULL;

	if (!g)
		return -ENOSPC;
	g->key = *key;
	g->uid = uid;
	g->has = NOBODY;
	*at = g;
	return 0;
}

int groups_add(struct groups *all, const struct steer_key *key, const struct group_member *m)
{
	struct group **at = find(all, key);
	int rc = *at ? 0 : new_group(all, at, key, m->uid);

	if (rc)
		return rc;
	rc = put_member(*at, m);
	if (rc && !(*at)->members) {
		free_group(*at);
		*at = NULL;
		return rc;
	}
	if ((*at)->has != m->stack) /* what an earlier viaductd has left */
		filters_del(all->filters, key, m->stack);
	look(all, key->local_port, hearers_forwards(4), hearers_forwards(6));
	return rc;
}

static bool has_stack(const struct group *g, uint32_t stack)
{
	for (uint32_t i = 0; i < g->members; i++)
		if (g->member[i].stack == stack)
			return true;
	return false;
}

void groups_del(struct groups *all, const struct steer_key *key, uint32_t stack, uint32_t id)
{
	struct group **at = find(all, key), *g = *at;

	for (uint32_t i = 0; g && i < g->members; i++) {
		if (g->member[i].stack != stack || g->member[i].id != id)
			continue;
		g->member[i] = g->member[--g->members];
		break;
	}
	if (g && g->has == stack && !has_stack(g, stack)) {
		filters_del(all->filters, key, stack);
		g->has = NOBODY;
	}
	if (g && !g->members) {
		*at = g->next;
		free_group(g);
	}
	all->look_ms = 0; /* when its socket is closed the others may be alone */
}

static int64_t microseconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int groups_run(struct groups *all, int64_t now_ms)
{
	if (!all->first)
		return -1;
	if (now_ms >= all->look_ms) {
		int64_t began = microseconds(), rest;

		look_at_all(all);
		rest = (microseconds() - began) * CPU_SHARE / 1000;
		all->look_ms = now_ms + (rest > GROUPS_LOOK_MS ? rest : GROUPS_LOOK_MS);
	}
	return (int)(all->look_ms - now_ms);
}
