/* SPDX-License-Identifier: BSD-2-Clause */
/* See requests.h. */
#include "daemon/requests.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "daemon/closer.h"
#include "daemon/own_queue.h"
#include "engine/stack.h"

#define VERSION (0u << 16 | 1u << 8 | 0u)

static int refuse(struct client *c, const struct request *q, int status, const char *why)
{
	return reply_error(c->fd, &q->head, status, why);
}

/* --- who is there --- */

/* A memfd. What is in it concerns only the process that will run it after its owner's death. */
static bool is_stack_memory(int fd)
{
	struct statfs fs;

	return fcntl(fd, F_GET_SEALS) >= 0 && !fstatfs(fd, &fs) && fs.f_type == TMPFS_MAGIC;
}

static int welcome(struct house *h, struct client *c, const struct request *q)
{
	struct daemon_welcome w = {.version = VERSION,
				   .stack_version = STACK_VERSION,
				   .netview_size = sizeof(struct netview),
				   .flags = DAEMON_WELCOME_JOINS};
	int fds[2] = {mirror_view_fd(h->mirror), -1};

	if (q->body.hello.flags & DAEMON_HELLO_NEWS)
		fds[1] = c->news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->greeted = true;
	return reply_send(c->fd, &q->head, &w, sizeof(w), fds, 1 + (fds[1] >= 0));
}

/* One more process of a stack that is here. */
static int join(struct server *s, struct house *h, struct client *c, struct request *q, struct tenant *t)
{
	const char *why = "";
	int rc = tenant_process(t, request_take(q, 1), &why);

	if (rc >= 0)
		rc = server_watch_process(s, t, (uint32_t)rc);
	if (rc < 0 && rc != -EEXIST)
		return refuse(c, q, rc, why);
	t->clients++;
	c->tenant = t;
	return welcome(h, c, q);
}

static int serve_hello(struct server *s, struct house *h, struct client *c, struct request *q)
{
	const char *why = "";
	struct tenant *t;
	int rc, memory;

	if (c->greeted)
		return -EPROTO;
	if (!q->fds)
		return welcome(h, c, q);
	if (!policy_user(&h->policy, c->uid))
		return refuse(c, q, -EPERM, "viaductd does not serve this user (its option --user)");
	t = tenant_of_memory(h, c->uid, q->fd[0]);
	if (t)
		return join(s, h, c, q, t);
	if (tenants_of(h, c->uid) >= h->policy.stacks)
		return refuse(c, q, -EUSERS, "this user has as many stacks as viaductd allows (its option --stacks)");
	memory = request_take(q, 0);
	t = tenant_new(h, c->uid, c->pid);
	if (!t || !is_stack_memory(memory)) {
		closer_close(c->uid, memory);
		if (t)
			tenant_free(t);
		return refuse(c, q, t ? -EINVAL : -EUSERS,
			      t ? "not a stack's memory" : "viaductd has no room for another stack");
	}
	t->memory = memory;
	rc = tenant_process(t, request_take(q, 1), &why);
	if (rc >= 0)
		rc = server_watch_process(s, t, (uint32_t)rc);
	if (rc < 0) {
		tenant_free(t);
		return refuse(c, q, rc, why);
	}
	t->clients = 1;
	c->tenant = t;
	return welcome(h, c, q);
}

static int serve_process(struct server *s, struct client *c, struct request *q)
{
	const char *why;
	int at = tenant_process(c->tenant, request_take(q, 0), &why);
	int rc = at < 0 ? at : server_watch_process(s, c->tenant, (uint32_t)at);

	return rc && rc != -EEXIST ? refuse(c, q, rc, why) : reply_send(c->fd, &q->head, NULL, 0, NULL, 0);
}

static bool shows_licence(const struct house *h, const struct request *q)
{
	return q->fds && socket_sends_anything(q->fd[0], h->netns);
}

static int serve_status(struct house *h, struct client *c, const struct request *q)
{
	struct daemon_status st = {.version = VERSION,
				   .filters = filters_count(h->filters),
				   .pid = (uint32_t)getpid(),
				   .uid = geteuid(),
				   .allowed = policy_user(&h->policy, c->uid),
				   .kernel =
				       h->kernel.keeps_device || h->kernel.maps_bound ? 0 : DAEMON_KERNEL_NO_RINGS,
				   .direct = policy_direct(&h->policy, c->uid, shows_licence(h, q))};

	for (uint32_t i = 0; i < STEER_STACKS; i++)
		if (h->tenant[i] && h->tenant[i]->clients)
			st.stacks++;
		else if (h->tenant[i])
			st.orphans += h->tenant[i]->orphan != 0;
	return reply_send(c->fd, &q->head, &st, sizeof(st), NULL, 0);
}

static struct tenant *find_tenant(const struct house *h, uint64_t inode, uint32_t uid)
{
	struct stat st;

	for (uint32_t i = 0; i < STEER_STACKS; i++) {
		struct tenant *t = h->tenant[i];

		if (t && (!uid || t->uid == uid) && !fstat(t->memory, &st) && st.st_ino == inode)
			return t;
	}
	return NULL;
}

static int serve_stack(struct house *h, struct client *c, const struct request *q)
{
	const struct tenant *t = find_tenant(h, q->body.stack.inode, c->uid);
	struct daemon_stack reply = {0};

	if (!t)
		return refuse(c, q, -ENOENT, "no stack of this user's has that memory");
	reply.filters = t->filters;
	for (uint32_t i = 0; i < TENANT_VNICS && reply.vnics < DAEMON_STACK_VNICS; i++) {
		const struct tenant_vnic *v = &t->vnic[i];
		struct steer_outer o = {0};

		if (!v->ifindex)
			continue;
		if (v->outer)
			(void)steer_veth_get(h->steer, v->outer, &o);
		reply.vnic[reply.vnics].ifindex = v->ifindex;
		reply.vnic[reply.vnics].mode = v->about.mode;
		reply.vnic[reply.vnics].first = v->port.first;
		reply.vnic[reply.vnics].queues = v->port.queues;
		reply.vnic[reply.vnics].sent = o.sent;
		reply.vnic[reply.vnics++].refused = o.refused;
	}
	return reply_send(c->fd, &q->head, &reply, sizeof(reply), NULL, 0);
}

/* --- vNICs --- */

static int send_vnic(struct house *h, struct client *c, const struct request *q, const struct tenant_vnic *v,
		     bool rings)
{
	int fds[DAEMON_FDS_MAX], n = 0;

	if (rings) {
		fds[n++] = v->port.umem;
		for (uint32_t i = 0; i < v->port.queues; i++)
			fds[n++] = v->port.xsk[i];
	}
	fds[n++] = steer_keep(h->steer);
	return reply_send(c->fd, &q->head, &v->about, sizeof(v->about), fds, n);
}

static int serve_open(struct house *h, struct client *c, const struct request *q)
{
	struct tenant_vnic *v = NULL;
	const char *why = "";
	int rc = tenant_open(c->tenant, &q->body.open, shows_licence(h, q), &v, &why);

	return rc ? refuse(c, q, rc, why) : send_vnic(h, c, q, v, true);
}

static int serve_bind(struct client *c, const struct request *q)
{
	struct tenant_vnic *v = NULL;
	const char *why = "";
	int rc = tenant_bind(c->tenant, q->body.bind.ifindex, &v, &why);

	return rc ? refuse(c, q, rc, why) : reply_send(c->fd, &q->head, &v->about, sizeof(v->about), NULL, 0);
}

static int serve_resume(struct house *h, struct client *c, struct request *q)
{
	struct tenant_vnic *v = NULL;
	const char *why = "";
	int xsk[DAEMON_QUEUES_MAX], umem = request_take(q, 0), rc;

	for (int i = 0; i < (int)DAEMON_QUEUES_MAX; i++)
		xsk[i] = request_take(q, 1 + i);
	v = tenant_has_rings(c->tenant, &q->body.resume, xsk[0]);
	if (v) { /* another process of the tree was first */
		for (int i = 0; i < (int)DAEMON_QUEUES_MAX; i++)
			if (xsk[i] >= 0)
				closer_close(c->uid, xsk[i]);
		closer_close(c->uid, umem);
		return send_vnic(h, c, q, v, false);
	}
	rc = tenant_resume(c->tenant, &q->body.resume, umem, xsk, &v, &why);
	return rc ? refuse(c, q, rc, why) : send_vnic(h, c, q, v, false);
}

/* --- filters --- */

static int serve_filter_add(struct client *c, struct request *q)
{
	const char *why = "";
	int fd = request_take(q, 0), id = tenant_filter_add(c->tenant, &q->body.filter, fd, &why);
	struct daemon_filter_id reply = {.id = (uint32_t)id};

	if (id == -EPERM && fd < 0) /* its port was a socket's that is closed since: an earlier viaductd has seen it */
		reply.id = (uint32_t)(id = tenant_filter_inherit(c->tenant, &q->body.filter));
	if (id > 0)
		tenant_filter_name(c->tenant, (uint32_t)id, c->number);
	return id < 0 ? refuse(c, q, id, why) : reply_send(c->fd, &q->head, &reply, sizeof(reply), NULL, 0);
}

static int serve_filter_del(struct client *c, const struct request *q)
{
	const struct daemon_filter_ids *d = &q->body.filter_ids;
	uint32_t more = d->more < DAEMON_FILTERS_MORE ? d->more : DAEMON_FILTERS_MORE;
	int rc;

	closer_gather();
	rc = tenant_filter_del(c->tenant, d->id);
	for (uint32_t i = 0; i < more; i++)
		(void)tenant_filter_del(c->tenant, d->others[i]);
	closer_settle(c->uid);
	return rc ? refuse(c, q, rc, "there is no such filter") : reply_send(c->fd, &q->head, NULL, 0, NULL, 0);
}

static int serve_inherit(struct client *c, const struct request *q)
{
	struct daemon_inherited d;

	tenant_inherit(c->tenant, c->number, &d);
	return reply_send(c->fd, &q->head, &d, sizeof(d), NULL, 0);
}

/* The table is for who may send and receive what he likes: he got an interface's own queues, all of them. */
static int serve_flows(struct house *h, struct client *c, const struct request *q)
{
	struct tenant *t = c->tenant;
	struct daemon_flows d = {
	    .stack = t->number, .sets = DAEMON_FLOW_SETS, .set_size = sizeof(struct daemon_flow_set)};
	bool direct = false, own_queue = false;
	int fd = steer_table(h->steer), rc;

	for (uint32_t i = 0; i < TENANT_VNICS; i++) {
		direct |= t->vnic[i].ifindex && t->vnic[i].about.mode == DAEMON_MODE_DIRECT;
		own_queue |= t->vnic[i].ifindex && own_queue_is(&t->vnic[i]);
	}
	if (!direct || t->number == TENANT_NO_NUMBER)
		return refuse(c, q, -EPERM, "only who has an interface's own queues steers flows himself");
	if (own_queue)
		return refuse(c, q, -EOPNOTSUPP, "the NIC must be told of each flow");
	rc = filters_use_table(h->filters);
	return rc ? refuse(c, q, rc, "the kernel's map can't be written")
		  : reply_send(c->fd, &q->head, &d, sizeof(d), &fd, 1);
}

static int serve_named(struct house *h, struct client *c, const struct request *q)
{
	tenant_forget_unnamed(c->tenant);
	if (c->tenant->number != TENANT_NO_NUMBER)
		filters_sweep(h->filters, c->tenant->number);
	return reply_send(c->fd, &q->head, NULL, 0, NULL, 0);
}

static int serve_resolve(struct house *h, struct client *c, const struct request *q)
{
	int rc = mirror_resolve(h->mirror, q->body.resolve.ifindex, q->body.resolve.addr);

	return rc ? refuse(c, q, rc, "the kernel does not resolve that")
		  : reply_send(c->fd, &q->head, NULL, 0, NULL, 0);
}

/* --- */

static int serve(struct server *s, struct house *h, struct client *c, struct request *q)
{
	if (q->head.type == DAEMON_HELLO)
		return serve_hello(s, h, c, q);
	if (q->head.type == DAEMON_STATUS)
		return serve_status(h, c, q);
	if (q->head.type == DAEMON_STACK)
		return serve_stack(h, c, q);
	if (!c->tenant)
		return refuse(c, q, -ENOTCONN, "no stack was shown with DAEMON_HELLO");
	switch (q->head.type) {
	case DAEMON_OPEN:
		return serve_open(h, c, q);
	case DAEMON_BIND:
		return serve_bind(c, q);
	case DAEMON_RESUME:
		return serve_resume(h, c, q);
	case DAEMON_FILTER_ADD:
		return serve_filter_add(c, q);
	case DAEMON_FILTER_DEL:
		return serve_filter_del(c, q);
	case DAEMON_RESOLVE:
		return serve_resolve(h, c, q);
	case DAEMON_PROCESS:
		return serve_process(s, c, q);
	case DAEMON_INHERIT:
		return serve_inherit(c, q);
	case DAEMON_FLOWS:
		return serve_flows(h, c, q);
	case DAEMON_NAMED:
		return serve_named(h, c, q);
	default:
		return refuse(c, q, -EOPNOTSUPP, "viaductd knows no such request");
	}
}

int request_serve(struct server *s, struct house *h, struct client *c, struct request *q)
{
	int rc = serve(s, h, c, q);

	request_done(q);
	return rc;
}
