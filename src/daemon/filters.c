/* SPDX-License-Identifier: BSD-2-Clause */
/* See filters.h. */
#include "daemon/filters.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 16384u

struct claim {
	struct claim *next;
	struct steer_key key;
	uint32_t uid;
	uint32_t group;               /* shared: plus 1; 0: not */
	uint32_t members;             /* 1 if not shared */
	uint32_t id[STEER_MEMBERS];   /* under which each has it; 0: of an earlier viaductd */
	struct steer_group in_kernel; /* the members' numbers; not shared: just stack[0] */
};

struct filters {
	struct steer *steer;
	uint32_t count;
	struct steer_kinds kinds;
	bool adopting; /* the kernel has them as the earlier viaductd left them: right, until all are counted */
	uint8_t group_used[STEER_GROUPS];
	struct claim *bucket[BUCKETS];
};

struct filters *filters_new(struct steer *s)
{
	struct filters *f = calloc(1, sizeof(*f));

	if (f)
		f->steer = s;
	return f;
}

void filters_free(struct filters *f)
{
	if (!f)
		return;
	for (uint32_t i = 0; i < BUCKETS; i++)
		for (struct claim *c = f->bucket[i], *next; c; c = next) {
			next = c->next;
			free(c);
		}
	free(f);
}

uint32_t filters_count(const struct filters *f)
{
	return f->count;
}

int filters_use_table(struct filters *f)
{
	if (f->kinds.table)
		return 0;
	f->kinds.table = 1;
	return steer_kinds_set(f->steer, &f->kinds);
}

static struct claim **place_of(struct filters *f, const struct steer_key *key)
{
	const uint8_t *byte = (const uint8_t *)key;
	struct claim **at;
	uint32_t h = 0x811c9dc5u;

	for (size_t i = 0; i < sizeof(*key); i++)
		h = (h ^ byte[i]) * 0x01000193u;
	at = &f->bucket[(h ^ h >> 15) % BUCKETS];
	while (*at && memcmp(&(*at)->key, key, sizeof(*key)) != 0)
		at = &(*at)->next;
	return at;
}

static bool all_zero(const uint8_t addr[16])
{
	static const uint8_t zero[16];

	return !memcmp(addr, zero, sizeof(zero));
}

/* One more key of its kind (by 1), or one less (by -1). */
static int count_key(struct filters *f, const struct steer_key *key, int by)
{
	uint32_t *kind = key->remote_port       ? &f->kinds.flows
			 : all_zero(key->local) ? &f->kinds.anys
						: &f->kinds.addresses;
	bool had = *kind;

	*kind += (uint32_t)by;
	return f->adopting || had == (*kind != 0) ? 0 : steer_kinds_set(f->steer, &f->kinds);
}

static int member_of(const struct claim *c, uint32_t stack)
{
	for (uint32_t i = 0; i < c->members; i++)
		if (c->in_kernel.stack[i] == stack)
			return (int)i;
	return -1;
}

/* What the kernel's maps should say of c. A shared port's members first, so that the program never finds none. */
static int write_claim(struct filters *f, const struct claim *c)
{
	struct steer_target t = {.stack = c->in_kernel.stack[0]};

	if (c->group) {
		int rc = steer_group_set(f->steer, c->group - 1, &c->in_kernel);

		if (rc)
			return rc;
		t = (struct steer_target){.stack = STEER_SHARED, .group = c->group};
	}
	return steer_filter_set(f->steer, &c->key, &t);
}

static void remove_claim(struct filters *f, struct claim **at)
{
	struct claim *c = *at;

	steer_filter_clear(f->steer, &c->key);
	count_key(f, &c->key, -1);
	if (c->group)
		f->group_used[c->group - 1] = 0;
	*at = c->next;
	f->count--;
	free(c);
}

static int take_group(struct filters *f)
{
	for (uint32_t i = 0; i < STEER_GROUPS; i++)
		if (!f->group_used[i]) {
			f->group_used[i] = 1;
			return (int)i + 1;
		}
	return -ENOSPC;
}

static int new_claim(struct filters *f, struct claim **at, const struct steer_key *key, uint32_t uid, bool shared,
		     struct claim **made)
{
	int group = 0;
	struct claim *c;

	if (f->count >= STEER_FILTERS)
		return -ENOSPC;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	if (shared)
		group = take_group(f);
	if (group < 0) {
		free(c);
		return group;
	}
	c->key = *key;
	c->uid = uid;
	c->group = (uint32_t)group;
	*at = c;
	f->count++;
	*made = c;
	return count_key(f, key, 1);
}

static int join(struct filters *f, struct claim *c, uint32_t stack, uint32_t id)
{
	uint32_t at = c->members;
	int rc;

	if (at == STEER_MEMBERS)
		return -ENOSPC;
	c->in_kernel.stack[at] = stack;
	c->id[at] = id;
	c->members = c->in_kernel.count = at + 1;
	rc = write_claim(f, c);
	if (rc)
		c->members = c->in_kernel.count = at;
	return rc;
}

int filters_add(struct filters *f, const struct steer_key *key, uint32_t stack, uint32_t uid, uint32_t id, bool shared)
{
	struct claim **at = place_of(f, key), *c = *at;
	int rc = 0, member;

	if (c) {
		member = member_of(c, stack);
		if (member >= 0) {
			if (!c->id[member])
				c->id[member] = id;
			return (int)c->id[member];
		}
		if (!shared || !c->group || c->uid != uid)
			return -EADDRINUSE;
	} else {
		rc = new_claim(f, at, key, uid, shared, &c);
	}
	if (!rc)
		rc = join(f, c, stack, id);
	if (rc && *at && !(*at)->members)
		remove_claim(f, at);
	return rc ? rc : (int)id;
}

bool filters_others(struct filters *f, const struct steer_key *key, uint32_t stack)
{
	const struct claim *c = *place_of(f, key);

	return c && (c->members > 1 || member_of(c, stack) < 0);
}

int filters_keep_out(struct filters *f, const struct steer_key *flow)
{
	struct steer_target kernel = {.stack = STEER_KERNEL};

	count_key(f, flow, 1);
	return *place_of(f, flow) ? 0 : steer_filter_set(f->steer, flow, &kernel);
}

void filters_let_in(struct filters *f, const struct steer_key *flow)
{
	if (!*place_of(f, flow))
		steer_filter_clear(f->steer, flow);
	count_key(f, flow, -1);
}

uint32_t filters_id(struct filters *f, const struct steer_key *key, uint32_t stack)
{
	const struct claim *c = *place_of(f, key);
	int member = c ? member_of(c, stack) : -1;

	return member < 0 ? 0 : c->id[member];
}

bool filters_inherited(struct filters *f, const struct steer_key *key, uint32_t stack)
{
	const struct claim *c = *place_of(f, key);

	return c && member_of(c, stack) >= 0;
}

/* True: that was the last, *at is the next claim. */
static bool leave(struct filters *f, struct claim **at, int member)
{
	struct claim *c = *at;

	c->members = --c->in_kernel.count;
	if (!c->members) {
		remove_claim(f, at);
		return true;
	}
	c->in_kernel.stack[member] = c->in_kernel.stack[c->members];
	c->id[member] = c->id[c->members];
	write_claim(f, c);
	return false;
}

void filters_del(struct filters *f, const struct steer_key *key, uint32_t stack)
{
	struct claim **at = place_of(f, key);
	int member = *at ? member_of(*at, stack) : -1;

	if (member >= 0)
		leave(f, at, member);
}

static bool sweep_claim(struct filters *f, struct claim **at, uint32_t stack)
{
	for (int m = (int)(*at)->members - 1; m >= 0; m--)
		if (!(*at)->id[m] && (stack == FILTERS_ALL || (*at)->in_kernel.stack[m] == stack) && leave(f, at, m))
			return true;
	return false;
}

void filters_sweep(struct filters *f, uint32_t stack)
{
	for (uint32_t i = 0; i < BUCKETS; i++) {
		struct claim **at = &f->bucket[i];

		while (*at)
			if (!sweep_claim(f, at, stack))
				at = &(*at)->next;
	}
}

/* Those of the members whom somebody may come for. */
static void keep_known(struct steer_group *g, filters_known *known, void *arg, uint32_t *uid)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < g->count; i++)
		if (known(g->stack[i], arg, uid))
			g->stack[n++] = g->stack[i];
	g->count = n;
}

/* -EPROTO: the entry is nobody's. */
static int adopt_one(struct filters *f, const struct steer_key *key, filters_known *known, void *arg)
{
	struct claim **at = place_of(f, key), *c;
	struct steer_group members = {.count = 1};
	struct steer_target t;
	uint32_t uid = 0, had;
	int rc;

	if (steer_filter_get(f->steer, key, &t) || *at)
		return 0;
	/* looked up again when the stack comes for its port */
	if (t.stack == STEER_KERNEL)
		return -EPROTO;
	members.stack[0] = t.stack;
	if (t.stack == STEER_SHARED && (t.group - 1 >= STEER_GROUPS || f->group_used[t.group - 1] ||
					steer_group_get(f->steer, t.group - 1, &members)))
		return -EPROTO;
	if (members.count > STEER_MEMBERS)
		return -EPROTO;
	had = members.count;
	keep_known(&members, known, arg, &uid);
	if (!members.count)
		return -EPROTO;
	rc = new_claim(f, at, key, uid, false, &c);
	if (rc)
		return rc;
	c->in_kernel = members;
	c->members = members.count;
	if (t.stack == STEER_SHARED) {
		c->group = t.group;
		f->group_used[t.group - 1] = 1;
	}
	return members.count == had ? 0 : write_claim(f, c);
}

int filters_adopt(struct filters *f, filters_known *known, void *arg)
{
	struct steer_key key, next;
	int rc, last = steer_filter_next(f->steer, NULL, &next);

	f->adopting = true;
	f->kinds.table = 1; /* perhaps */
	while (!last) {
		key = next;
		rc = adopt_one(f, &key, known, arg);
		last = steer_filter_next(f->steer, &key, &next);
		if (rc == -EPROTO)
			steer_filter_clear(f->steer, &key);
		else if (rc)
			return rc;
	}
	f->adopting = false;
	return steer_kinds_set(f->steer, &f->kinds);
}
