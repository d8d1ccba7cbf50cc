/* SPDX-License-Identifier: BSD-2-Clause */
/* See test_stack.h. Memory is mapped, not allocated: what a test doesn't touch of a large stack costs nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/test_stack.h"
#include "vnic/ring.h"

#define PAGE 4096u

static void need(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "test_stack: %s\n", what);
	abort();
}

static size_t pages(size_t len)
{
	return (len + PAGE - 1) / PAGE * PAGE;
}

void *test_memory(size_t len)
{
	uint8_t *p = mmap(NULL, pages(len) + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	need(p != MAP_FAILED, "no memory");
	need(mprotect(p + pages(len), PAGE, PROT_NONE) == 0, "no guard page");
	return p;
}

void *test_memory_again(void *mem, size_t len)
{
	if (!mem)
		return test_memory(len);
	need(mmap(mem, pages(len), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == mem,
	     "no memory again");
	return mem;
}

void test_memory_free(void *mem, size_t len)
{
	munmap(mem, pages(len) + PAGE);
}

struct stack_config test_config(void)
{
	struct stack_config c = {
	    .max_socks = 512,
	    .max_pkts = 8192,
	    .max_private = 2048,
	    .hash_buckets = 1024,
	    .max_fdinfo = 16,
	    .defaults = {.rcvbuf = 131072,
			 .rcvbuf_max = 6291456,
			 .sndbuf = 65536,
			 .sndbuf_max = 4194304,
			 .cc = TCP_CC_CUBIC,
			 .rto_min_ms = 200,
			 .rto_max_ms = 120000,
			 .delack_ms = 40,
			 .time_wait_ms = 60000,
			 .syn_retries = 6,
			 .synack_retries = 5,
			 .retries2 = 15,
			 .keep_idle_s = 7200,
			 .keep_intvl_s = 75,
			 .keep_cnt = 9,
			 .fin_timeout_s = 60,
			 .somaxconn = 4096},
	};

	memset(c.secret, 7, sizeof(c.secret));
	return c;
}

void test_stack_again(struct engine *e, const struct stack_config *cfg, uint64_t now_us)
{
	void *mem = test_memory_again(e->s, stack_size(cfg));

	need(stack_format(mem, stack_size(cfg), cfg) == 0, "a configuration out of range");
	memset(e, 0, sizeof(*e));
	engine_attach(e, mem);
	e->s->proc[0].pid = 1;
	e->s->procs = 1;
	e->s->now_us = now_us;
}

void test_stack_new(struct engine *e, const struct stack_config *cfg, uint64_t now_us)
{
	e->s = NULL;
	test_stack_again(e, cfg, now_us);
}

void test_stack_free(struct engine *e)
{
	test_memory_free(e->s, stack_size(&e->s->cfg));
}

struct endpoint test_addr4(uint8_t host, uint16_t port)
{
	return (struct endpoint){.addr = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = host}, .port = port};
}

struct endpoint test_addr6(uint8_t host, uint16_t port)
{
	return (struct endpoint){.addr = {0xfd, [15] = host}, .port = port};
}

static uint32_t new_vnic(struct engine *e)
{
	int i = engine_vnic_alloc(e);

	need(i >= 0, "no free vNIC");
	return (uint32_t)i;
}

void *test_wire_new(void *again)
{
	void *wire = test_memory_again(again, wire_size());

	wire_format(wire);
	return wire;
}

void test_wire_free(void *wire)
{
	test_memory_free(wire, wire_size());
}

uint32_t test_wire_join(void *wire, int end, struct engine *e)
{
	uint32_t i = new_vnic(e);

	wire_attach(&e->vnic[i], stack_vnic(e->s, i), wire, end);
	return i;
}

struct sim *test_link_new(const struct sim_config *cfg)
{
	size_t len = sim_size(cfg);
	void *mem;

	need(len, "a link out of range");
	mem = aligned_alloc(VNIC_LINE, (len + VNIC_LINE - 1) / VNIC_LINE * VNIC_LINE);
	need(mem, "no memory for a link");
	return sim_create(mem, len, cfg);
}

void test_link_free(struct sim *link)
{
	free(link);
}

uint32_t test_link_join(struct sim *link, int end, struct engine *e)
{
	uint32_t i = new_vnic(e);

	sim_attach(link, end, &e->vnic[i], stack_vnic(e->s, i));
	return i;
}

/* --- the recording device --- */

static void device_post(struct vnic *v, const struct vnic_desc *d, int n)
{
	struct test_device *dev = v->priv;

	dev->sent(dev->arg, v, d, n);
	for (int i = 0; i < n; i++) {
		need(!vnic_tx_busy(v, d[i].buf), "a buffer is posted that the device has already");
		v->st->tx_state[d[i].buf] |= VNIC_TX_NIC;
		if (!dev->hold)
			vnic_take_return(v->st, d[i].buf);
	}
}

static int device_poll(struct vnic *v, struct vnic_desc *ev, int max)
{
	(void)v;
	(void)ev;
	(void)max;
	return 0;
}

static void device_release(struct vnic *v, uint32_t buf)
{
	(void)v;
	(void)buf;
}

static const struct vnic_ops device_ops = {.poll = device_poll, .post = device_post, .release = device_release};

uint32_t test_device_join(struct test_device *d, struct engine *e)
{
	uint32_t i = new_vnic(e);
	struct vnic_state *st = stack_vnic(e->s, i);

	vnic_state_reset(st, VNIC_PROV_SIM, 0, d->bufs, d->bufs, d->buf_size);
	st->features = d->features;
	st->mtu = d->mtu;
	st->evq_entries = 2;
	d->mem = malloc((size_t)d->bufs * d->buf_size);
	need(d->mem, "no memory for a device");
	e->vnic[i] = (struct vnic){.ops = &device_ops,
				   .st = st,
				   .evq = d->none,
				   .tx_bufs = d->mem,
				   .doorbell_fd = {-1, -1},
				   .life_fd = -1,
				   .gen = st->gen,
				   .priv = d};
	return i;
}

void test_device_free(struct test_device *d)
{
	free(d->mem);
}
