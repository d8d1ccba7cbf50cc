/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of sockets by address: chains by index in buckets chosen by a keyed hash.
 *
 * A connected socket is filed under its four-tuple, a bound one (remote port 0) under its local address and port, where
 * every form of "any" counts as ::. So a segment costs one probe, a datagram to an unconnected socket three at
 * most: the four-tuple, the exact local address, any.
 */
#include <assert.h>

#include "engine/engine.h"
#include "engine/hash.h"

static const struct endpoint any_endpoint;

static inline bool endpoint_equal(const struct endpoint *a, const struct endpoint *b)
{
	return addr_equal(a->addr, b->addr) && a->port == b->port;
}

static inline uint32_t *bucket(struct stack *s, uint32_t proto, const struct endpoint *local,
			       const struct endpoint *remote)
{
	uint64_t l = hash_mul(get_word(local->addr) ^ s->hash_key[0], get_word(local->addr + 8) ^ s->hash_key[1]);
	uint64_t r = hash_mul(get_word(remote->addr) ^ s->hash_key[2], get_word(remote->addr + 8) ^ s->hash_key[3]);
	uint64_t ports = (uint64_t)proto << 32 | (uint32_t)local->port << 16 | remote->port;
	uint64_t h = hash_mul(l ^ ports, r ^ s->hash_key[0]);

	return (uint32_t *)((char *)s + s->off_hash) + (h & (s->cfg.hash_buckets - 1));
}

static uint32_t *sock_bucket(struct stack *s, const struct sock *k)
{
	struct endpoint local = k->local;

	if (k->remote.port)
		return bucket(s, k->proto, &k->local, &k->remote);
	if (is_any(local.addr))
		memcpy(local.addr, any_endpoint.addr, sizeof(local.addr));
	return bucket(s, k->proto, &local, &any_endpoint);
}

void sock_hash(struct stack *s, struct sock *k)
{
	uint32_t *head = sock_bucket(s, k);

	assert(!(k->flags & SOCKF_HASHED));
	k->hash_next = *head;
	*head = sock_index(s, k);
	k->flags |= SOCKF_HASHED;
}

void sock_unhash(struct stack *s, struct sock *k)
{
	uint32_t *at = sock_bucket(s, k);
	uint32_t i = sock_index(s, k);
	struct sock *o;

	assert(k->flags & SOCKF_HASHED);
	while (*at != i && (o = sock_at(s, *at)))
		at = &o->hash_next;
	assert(*at == i); /* its addresses have not changed since sock_hash */
	*at = k->hash_next;
	k->hash_next = 0;
	k->flags &= ~SOCKF_HASHED;
}

struct sock *sock_lookup(struct stack *s, enum sock_proto proto, const struct endpoint *local,
			 const struct endpoint *remote)
{
	struct sock *k = sock_at(s, *bucket(s, proto, local, remote));

	for (; k; k = sock_at(s, k->hash_next))
		if (k->proto == proto && endpoint_equal(&k->remote, remote) && endpoint_equal(&k->local, local))
			return k;
	return NULL;
}

/* A socket bound to any address that takes packets of this family; one of the packet's own family comes first. */
static struct sock *lookup_any(struct stack *s, enum sock_proto proto, uint16_t port, bool v4)
{
	struct endpoint local = {.port = port};
	struct sock *k = sock_at(s, *bucket(s, proto, &local, &any_endpoint)), *both = NULL;

	for (; k; k = sock_at(s, k->hash_next)) {
		if (k->proto != proto || k->remote.port || k->local.port != port || !is_any(k->local.addr))
			continue;
		if (v4 == (k->family == 4 || is_v4(k->local.addr)))
			return k;
		if (v4 && !(k->flags & SOCKF_V6ONLY))
			both = k;
	}
	return both;
}

struct sock *sock_lookup_bound(struct stack *s, enum sock_proto proto, const struct endpoint *local)
{
	struct sock *k;

	if (is_any(local->addr))
		return lookup_any(s, proto, local->port, is_v4(local->addr));
	k = sock_at(s, *bucket(s, proto, local, &any_endpoint));
	for (; k; k = sock_at(s, k->hash_next))
		if (k->proto == proto && !k->remote.port && endpoint_equal(&k->local, local))
			return k;
	return lookup_any(s, proto, local->port, is_v4(local->addr));
}

struct sock *sock_bound_next(struct stack *s, enum sock_proto proto, const struct endpoint *local, const struct sock *k)
{
	struct endpoint at = *local;
	bool any = is_any(local->addr);
	struct sock *next;

	if (any)
		memcpy(at.addr, any_endpoint.addr, sizeof(at.addr));
	next = sock_at(s, k ? k->hash_next : *bucket(s, proto, &at, &any_endpoint));
	for (; next; next = sock_at(s, next->hash_next))
		if (next->proto == proto && !next->remote.port && next->local.port == local->port &&
		    (any ? is_any(next->local.addr) : addr_equal(next->local.addr, local->addr)))
			return next;
	return NULL;
}
