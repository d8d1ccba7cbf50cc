/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See closer.h. Whether a close waits is not to be told by the time that it takes alone: on a busy machine the thread
 * that closes may not run for longer than any waiting worth the name. So time counts only while it sleeps in close.
 */
#include "daemon/closer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WORKERS 8u
#define PATIENCE_NS 3000000 /* a close that need not wait is over long before */
#define TRIES_MAX 1000      /* then that is enough, whatever the reason */

struct item {
	struct item *next;
	uint32_t uid;
	int fd;       /* -1: only to be waited for */
	bool awaited; /* closer_close looks at done, and frees it */
	bool done;
	bool late; /* nobody awaits it any longer */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wanted = PTHREAD_COND_INITIALIZER, finished = PTHREAD_COND_INITIALIZER;
static struct item *first, **last = &first;
static struct item *in_hand[WORKERS];
static pid_t worker[WORKERS];
static atomic_bool closing[WORKERS];
static bool gathering;
static uint32_t gathered;

static bool in_work(uint32_t uid)
{
	for (uint32_t i = 0; i < WORKERS; i++)
		if (in_hand[i] && in_hand[i]->uid == uid)
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
	worker[me] = (pid_t)syscall(SYS_gettid);
	for (;;) {
		struct item *i = take();

		if (!i) {
			pthread_cond_wait(&wanted, &lock);
			continue;
		}
		in_hand[me] = i;
		pthread_mutex_unlock(&lock);
		closing[me] = true;
		if (i->fd >= 0)
			close(i->fd);
		closing[me] = false;
		pthread_mutex_lock(&lock);
		in_hand[me] = NULL;
		i->done = true;
		if (!i->awaited)
			free(i);
		/* what others left because of us, we look for ourselves */
		pthread_cond_broadcast(&finished);
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

/* The state of a thread of ours as proc(5) has it; '?': not to be had. */
static char state_of(pid_t thread)
{
	char path[48], text[128] = {0};
	const char *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)thread);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return '?';
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	at = n > 0 ? strstr(text, ") ") : NULL;
	return at ? at[2] : '?';
}

/* No progress is to be expected for a user: the worker who closes for him sleeps in close (seen sleeping first, in
 * close afterwards: it may not get out of that and sleep for our lock in between), or all have others' work. With the
 * lock. */
static bool stuck(uint32_t uid)
{
	bool busy = true;

	for (uint32_t i = 0; i < WORKERS; i++) {
		if (in_hand[i] && in_hand[i]->uid == uid)
			return state_of(worker[i]) != 'R' && closing[i];
		busy &= in_hand[i] != NULL;
	}
	return busy;
}

/* For PATIENCE_NS, or until something is closed. False: the time is over. With the lock. */
static bool wait_a_little(void)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += PATIENCE_NS;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	return !pthread_cond_timedwait(&finished, &lock, &until);
}

/* Until the item is closed, or its user's work stands still. With the lock. */
static void await(struct item *i)
{
	for (uint32_t tries = 0; !i->done && tries < TRIES_MAX; tries++)
		if (!wait_a_little() && stuck(i->uid))
			break;
	i->awaited = false;
	i->late = true;
	if (i->done)
		free(i);
}

/* Was a close of this user awaited in vain, and is not over? */
static bool hangs(uint32_t uid)
{
	for (uint32_t i = 0; i < WORKERS; i++)
		if (in_hand[i] && in_hand[i]->uid == uid && in_hand[i]->late)
			return true;
	return false;
}

static void hand_over(struct item *i, uint32_t uid, int fd)
{
	pthread_mutex_lock(&lock);
	*i = (struct item){.uid = uid, .fd = fd, .awaited = !gathering && !hangs(uid)};
	*last = i;
	last = &i->next;
	gathered += gathering;
	if (!gathering)
		pthread_cond_signal(&wanted);
	if (i->awaited)
		await(i);
	pthread_mutex_unlock(&lock);
}

void closer_close(uint32_t uid, int fd)
{
	struct item *i;

	if (fd < 0)
		return;
	i = fcntl(fd, F_GET_SEALS) >= 0 ? NULL : malloc(sizeof(*i));
	if (i)
		hand_over(i, uid, fd);
	else
		close(fd);
}

void closer_gather(void)
{
	gathering = true;
	gathered = 0;
}

/* One user's are closed one after the other: who waits for the last waits for all. */
void closer_settle(uint32_t uid)
{
	struct item *i = gathered ? malloc(sizeof(*i)) : NULL;

	gathering = false;
	if (i)
		hand_over(i, uid, -1);
	else if (gathered)
		pthread_cond_signal(&wanted);
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
