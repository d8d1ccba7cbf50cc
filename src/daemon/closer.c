/* SPDX-License-Identifier: BSD-2-Clause */
/* See closer.h. */
#include "daemon/closer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#define WORKERS 8u

struct item {
	struct item *next;
	uint32_t uid;
	int fd;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct item *first, **last = &first;
static struct {
	bool busy;
	uint32_t uid;
} worker[WORKERS];

static bool in_work(uint32_t uid)
{
	for (uint32_t i = 0; i < WORKERS; i++)
		if (worker[i].busy && worker[i].uid == uid)
			return true;
	return false;
}

/* The oldest of a user for whom nobody works yet. */
static struct item *take(void)
{
	for (struct item **at = &first; *at; at = &(*at)->next) {
		struct item *i = *at;

		if (in_work(i->uid))
			continue;
		*at = i->next;
		if (!*at)
			last = at;
		return i;
	}
	return NULL;
}

static void *work(void *arg)
{
	uint32_t me = (uint32_t)(uintptr_t)arg;

	pthread_mutex_lock(&lock);
	for (;;) {
		struct item *i = take();

		if (!i) {
			pthread_cond_wait(&changed, &lock);
			continue;
		}
		worker[me].busy = true;
		worker[me].uid = i->uid;
		pthread_mutex_unlock(&lock);
		close(i->fd);
		free(i);
		pthread_mutex_lock(&lock);
		worker[me].busy = false;
		/* what others left because of us */
		pthread_cond_broadcast(&changed);
	}
	return NULL;
}

int closer_start(void)
{
	sigset_t all, old;
	pthread_t thread;
	int rc = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (uintptr_t i = 0; i < WORKERS && !rc; i++) {
		rc = -pthread_create(&thread, NULL, work, (void *)i);
		if (!rc)
			pthread_detach(thread);
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc;
}

void closer_close(uint32_t uid, int fd)
{
	struct item *i;

	if (fd < 0)
		return;
	i = fcntl(fd, F_GET_SEALS) >= 0 ? NULL : malloc(sizeof(*i));
	if (!i) {
		close(fd);
		return;
	}
	*i = (struct item){.uid = uid, .fd = fd};
	pthread_mutex_lock(&lock);
	*last = i;
	last = &i->next;
	pthread_cond_signal(&changed);
	pthread_mutex_unlock(&lock);
}

uint32_t closer_waiting(uint32_t uid)
{
	uint32_t n = 0;

	pthread_mutex_lock(&lock);
	for (const struct item *i = first; i; i = i->next)
		n += i->uid == uid;
	pthread_mutex_unlock(&lock);
	return n;
}
