/* SPDX-License-Identifier: BSD-2-Clause */
/* See source.h. */
#define _GNU_SOURCE
#include "dump/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static uint32_t clock_unit(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return capture_clock((uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
}

/* The memory, writable. NULL with errno. */
static void *map_stack(int view_fd, size_t len)
{
	char path[40];
	void *mem = MAP_FAILED;
	int fd, seals;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", view_fd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		errno = EPROTO;
	else
		mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	close(fd);
	return mem == MAP_FAILED ? NULL : mem;
}

/* Another tool that lives and has asked lately. */
static bool taken(const struct source *r, uint32_t *other)
{
	uint32_t until = __atomic_load_n(&r->s->capture, __ATOMIC_RELAXED);

	*other = __atomic_load_n(&r->c->pid, __ATOMIC_RELAXED);
	return until && (int32_t)(until - clock_unit()) >= 0 && *other != (uint32_t)getpid() &&
	       proc_exists((pid_t)*other);
}

int source_open(struct source *r, const struct view *w, uint32_t snap, uint32_t *other)
{
	memset(r, 0, sizeof(*r));
	if (!w->s->off_capture)
		return -ENOTSUP;
	r->len = w->s->total_size;
	r->s = map_stack(w->fd, r->len);
	if (!r->s)
		return -errno;
	r->c = (struct capture *)(void *)((char *)r->s + w->s->off_capture);
	r->vnics = (struct vnic_state *)(void *)((char *)r->s + w->s->off_vnics);
	if (taken(r, other)) {
		munmap(r->s, r->len);
		return -EBUSY;
	}
	r->inode = w->inode;
	r->pid = w->s->creator_pid;
	safe_text(w->s->program, sizeof(w->s->program), r->program, sizeof(r->program));
	for (uint32_t i = 0; i < VNIC_MAX; i++)
		r->interface[i].number = NO_INTERFACE;
	r->c->snap = snap;
	r->c->pid = (uint32_t)getpid();
	r->head = r->tail = __atomic_load_n(&r->c->head, __ATOMIC_ACQUIRE);
	r->dropped = __atomic_load_n(&r->c->dropped, __ATOMIC_RELAXED);
	__atomic_store_n(&r->c->tail, r->tail, __ATOMIC_RELEASE);
	__atomic_store_n(&r->c->epoch, r->c->epoch + 1, __ATOMIC_RELEASE);
	source_renew(r);
	return 0;
}

void source_renew(struct source *r)
{
	__atomic_store_n(&r->s->capture, clock_unit() + CAPTURE_LEASE, __ATOMIC_RELEASE);
}

static void copy_out(const struct capture *c, uint64_t at, void *to, uint32_t len)
{
	uint32_t off = (uint32_t)at & (CAPTURE_RING - 1), first = CAPTURE_RING - off;

	if (first > len)
		first = len;
	memcpy(to, c->ring + off, first);
	memcpy((char *)to + first, c->ring, len - first);
}

static bool record_valid(const struct capture_record *r, uint64_t waiting)
{
	return r->size >= sizeof(*r) && r->size <= waiting && !(r->size & 7) && r->caplen <= r->size - sizeof(*r) &&
	       r->caplen <= CAPTURE_SNAP_MAX && r->caplen <= r->len && r->vnic < VNIC_MAX;
}

bool source_next(struct source *r, struct capture_record *record, uint8_t frame[CAPTURE_SNAP_MAX])
{
	uint64_t waiting;

	if (r->head == r->tail)
		r->head = __atomic_load_n(&r->c->head, __ATOMIC_ACQUIRE);
	waiting = r->head - r->tail;
	if (!waiting)
		return false;
	if (waiting <= CAPTURE_RING)
		copy_out(r->c, r->tail, record, sizeof(*record));
	if (waiting > CAPTURE_RING || !record_valid(record, waiting)) {
		r->lost++;
		r->tail = r->head;
		__atomic_store_n(&r->c->tail, r->tail, __ATOMIC_RELEASE);
		return false;
	}
	copy_out(r->c, r->tail + sizeof(*record), frame, record->caplen);
	r->tail += record->size;
	__atomic_store_n(&r->c->tail, r->tail, __ATOMIC_RELEASE);
	return true;
}

uint64_t source_dropped(const struct source *r)
{
	return r->lost + __atomic_load_n(&r->c->dropped, __ATOMIC_RELAXED) - r->dropped;
}

void source_stop(struct source *r)
{
	__atomic_store_n(&r->s->capture, 0, __ATOMIC_RELEASE);
}

/* The ring's memory goes back: it is used again from the next capture on. */
void source_close(struct source *r)
{
	madvise(r->c->ring, CAPTURE_RING, MADV_REMOVE);
	munmap(r->s, r->len);
	r->s = NULL;
}
