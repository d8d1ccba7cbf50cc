/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Signal handlers. The kernel is given one trampoline in place of each handler of the program. It counts the handlers
 * that ran (wait_signals), so that a wait that spins ends with EINTR as one in the kernel would, and it puts a handler
 * off while this thread holds a lock of ours: a handler may call send() on the very stack that it interrupted.
 *
 * A handler that is put off: its siginfo is kept, and all signals are blocked in the context to which the trampoline
 * returns, so hardly anything else comes before the lock's release runs it with the mask that it should have had.
 * Signals of the CPU itself (a fault in this thread) are never put off.
 *
 * The program sees its own handler in sigaction's old action: the trampoline is replaced by what it stands for.
 */
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "calls.h"
#include "signals.h"

#define DEFERRED_MAX 16

struct handler {
	void (*volatile function)(int, siginfo_t *, void *);
	volatile int flags; /* as the program gave them */
	sigset_t mask;
};

static struct handler handlers[NSIG];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static bool interrupts[NSIG]; /* siginterrupt(sig, 1) */

/* A signal whose handler was put off. */
struct late {
	int sig;
	siginfo_t info;
};

static _Thread_local struct {
	volatile uint32_t n;
	sigset_t mask; /* of the thread before the first one was put off */
	struct late item[DEFERRED_MAX];
} deferred;

static void run(int sig, siginfo_t *info, void *context)
{
	struct handler *h = &handlers[sig];
	void (*function)(int, siginfo_t *, void *) = h->function;
	bool near_sleep = wait_near_sleep;

	wait_signals[h->flags & SA_RESTART ? 1 : 0]++;
	if (h->flags & SA_SIGINFO)
		function(sig, info, context);
	else
		((void (*)(int))(void (*)(void))function)(sig);
	if (near_sleep) {
		wait_near_sleep = true;
		wait_nudge();
	}
}

static bool is_fault(int sig, const siginfo_t *info)
{
	return info->si_code > 0 && info->si_code != SI_KERNEL &&
	       (sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL || sig == SIGTRAP);
}

static void trampoline(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	int saved = errno;
	uint32_t n;

	if (!wait_lock_depth || is_fault(sig, info) || deferred.n >= DEFERRED_MAX) {
		run(sig, info, context);
		errno = saved;
		return;
	}
	n = deferred.n++;
	deferred.item[n].sig = sig;
	deferred.item[n].info = *info;
	if (n == 0)
		deferred.mask = uc->uc_sigmask;
	memset(&uc->uc_sigmask, 0xff, sizeof uc->uc_sigmask);
	wait_signal_pending = true;
}

/* Run one that was put off, with the mask that the kernel would have given it. */
static void run_late(int sig, siginfo_t *info, const sigset_t *mask)
{
	sigset_t during;
	ucontext_t uc;

	sigorset(&during, mask, &handlers[sig].mask);
	if (!(handlers[sig].flags & SA_NODEFER))
		sigaddset(&during, sig);
	memset(&uc, 0, sizeof uc);
	getcontext(&uc);
	uc.uc_sigmask = *mask;
	pthread_sigmask(SIG_SETMASK, &during, NULL);
	run(sig, info, &uc);
}

/* The lock is released: run what was put off. All signals are blocked now. */
static void run_deferred(void)
{
	sigset_t mask = deferred.mask, all;
	int saved = errno;
	uint32_t n = deferred.n;
	struct late list[DEFERRED_MAX];

	memcpy(list, deferred.item, n * sizeof list[0]);
	deferred.n = 0;
	wait_signal_pending = false;
	sigfillset(&all);
	for (uint32_t i = 0; i < n; i++) {
		pthread_sigmask(SIG_SETMASK, &all, NULL);
		run_late(list[i].sig, &list[i].info, &mask);
	}
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	errno = saved;
}

static bool is_function(const struct sigaction *act)
{
	return act->sa_handler != SIG_DFL && act->sa_handler != SIG_IGN;
}

static void show_own(int sig, const struct handler *was, struct sigaction *old)
{
	(void)sig;
	if (!(old->sa_flags & SA_SIGINFO) || old->sa_sigaction != trampoline)
		return;
	old->sa_sigaction = was->function;
	if (!(was->flags & SA_SIGINFO))
		old->sa_flags &= ~SA_SIGINFO;
}

int sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct sigaction ours;
	struct handler was;
	sigset_t all, mask;
	int r;

	if (sig <= 0 || sig >= NSIG)
		return real.sigaction(sig, act, old);
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &mask);
	pthread_mutex_lock(&mutex);
	was = handlers[sig];
	if (act && is_function(act) && act->sa_sigaction != trampoline) {
		ours = *act;
		ours.sa_flags |= SA_SIGINFO;
		ours.sa_sigaction = trampoline;
		handlers[sig].mask = act->sa_mask;
		handlers[sig].flags = act->sa_flags;
		handlers[sig].function = act->sa_sigaction;
		r = real.sigaction(sig, &ours, old);
		if (r < 0)
			handlers[sig] = was;
	} else {
		r = real.sigaction(sig, act, old);
	}
	if (r == 0 && old)
		show_own(sig, &was, old);
	pthread_mutex_unlock(&mutex);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	return r;
}
TWIN_OF(sigaction, __sigaction);

__sighandler_t signal(int sig, __sighandler_t function)
{
	struct sigaction act = {.sa_handler = function}, old;

	if (function == SIG_ERR || sig <= 0 || sig >= NSIG) {
		errno = EINVAL;
		return SIG_ERR;
	}
	act.sa_flags = interrupts[sig] ? 0 : SA_RESTART;
	sigaddset(&act.sa_mask, sig);
	return sigaction(sig, &act, &old) < 0 ? SIG_ERR : old.sa_handler;
}
TWIN_OF(signal, bsd_signal);

int siginterrupt(int sig, int on)
{
	struct sigaction act;

	if (sigaction(sig, NULL, &act) < 0)
		return -1;
	interrupts[sig] = on;
	act.sa_flags = on ? act.sa_flags & ~SA_RESTART : act.sa_flags | SA_RESTART;
	return sigaction(sig, &act, NULL);
}

void signals_lock(void)
{
	pthread_mutex_lock(&mutex);
}

void signals_unlock(void)
{
	pthread_mutex_unlock(&mutex);
}

void signals_sigpipe(void)
{
	pthread_kill(pthread_self(), SIGPIPE);
}

void signals_init(void)
{
	wait_signals_deferred = run_deferred;
}
