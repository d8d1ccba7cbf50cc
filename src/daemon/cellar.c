/* SPDX-License-Identifier: BSD-2-Clause */
/* See cellar.h. */
#include "daemon/cellar.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

struct cellar {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int home;
	int (*what)(void *); /* NULL: nothing to do */
	void *arg;
	int result;
	bool done, leave;
};

static int enter(void *arg)
{
	(void)arg;
	return unshare(CLONE_NEWNET) ? -errno : 0;
}

static void *live(void *arg)
{
	struct cellar *c = arg;

	pthread_mutex_lock(&c->lock);
	while (!c->leave) {
		if (c->what) {
			c->result = c->what(c->arg);
			c->what = NULL;
			c->done = true;
			pthread_cond_broadcast(&c->changed);
		} else {
			pthread_cond_wait(&c->changed, &c->lock);
		}
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

int cellar_call(struct cellar *c, int (*what)(void *), void *arg)
{
	int result;

	pthread_mutex_lock(&c->lock);
	c->what = what;
	c->arg = arg;
	c->done = false;
	pthread_cond_broadcast(&c->changed);
	while (!c->done)
		pthread_cond_wait(&c->changed, &c->lock);
	result = c->result;
	pthread_mutex_unlock(&c->lock);
	return result;
}

/* Signals are the main thread's. */
static int start_thread(struct cellar *c)
{
	sigset_t all, old;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = -pthread_create(&c->thread, NULL, live, c);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc;
}

int cellar_start(struct cellar **out)
{
	struct cellar *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return -ENOMEM;
	c->home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	rc = c->home < 0 ? -errno : start_thread(c);
	if (rc) {
		if (c->home >= 0)
			close(c->home);
		free(c);
		return rc;
	}
	rc = cellar_call(c, enter, NULL);
	if (rc) {
		cellar_stop(c);
		return rc;
	}
	*out = c;
	return 0;
}

int cellar_home(const struct cellar *c)
{
	return c->home;
}

void cellar_stop(struct cellar *c)
{
	pthread_mutex_lock(&c->lock);
	c->leave = true;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	pthread_join(c->thread, NULL);
	close(c->home);
	free(c);
}
