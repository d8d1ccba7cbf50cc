// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * A thread that looks at a vNIC's tx ring by itself, so that a busy program sends without a system
 * call (VIADUCT_ALLOC_POLL). It looks for as long as it finds something, and IDLE_NS longer; then
 * it says so in the mapped line (vnic_taken.polling) and sleeps until the next KICK, which only
 * wakes it.
 *
 * A module's threads are in no program's cgroup, so its time is nobody's: who wants one needs
 * CAP_SYS_NICE, as io_uring's SQPOLL did for the same reason. It runs at the caller's nice level.
 * What it may send is decided as ever (tx.c). It takes no part in the lifetime of the vNIC: who
 * ends that ends the thread first.
 */
#include <linux/kthread.h>
#include <linux/sched/clock.h>

#include "driver.h"

#define IDLE_NS (1000 * NSEC_PER_USEC)

/* Frames that can go now. One that waits for room goes by tx_work, which wakes us. */
static bool work(const struct vd_vnic *v)
{
	return !READ_ONCE(v->gone) && !READ_ONCE(v->tx_waiting) &&
	       vd_ring_full(&v->tx, READ_ONCE(v->tx.at));
}

static void sleep(struct vd_vnic *v)
{
	WRITE_ONCE(v->taken->polling, 0);
	/* polling before the last look: pairs with the program's, between its frames and polling */
	set_current_state(TASK_IDLE);
	if (!work(v) && !kthread_should_stop())
		schedule();
	__set_current_state(TASK_RUNNING);
	if (!READ_ONCE(v->gone))
		WRITE_ONCE(v->taken->polling, 1);
}

static int poll_ring(void *data)
{
	struct vd_vnic *v = data;
	u64 until = 0;

	while (!kthread_should_stop()) {
		if (work(v)) {
			vd_transmit(v, VD_polls);
			vd_wake(v); /* buffers came back while the program may sleep */
			until = local_clock() + IDLE_NS;
		} else if (local_clock() >= until) {
			sleep(v);
			until = local_clock() + IDLE_NS;
		} else {
			cpu_relax();
		}
		cond_resched();
	}
	return 0;
}

int vd_poller_make(struct vd_vnic *v)
{
	struct task_struct *task;

	if (!capable(CAP_SYS_NICE))
		return -EPERM;
	task = kthread_create(poll_ring, v, "viaduct/%d", current->tgid);
	if (IS_ERR(task))
		return PTR_ERR(task);
	set_user_nice(task, task_nice(current));
	v->poller = task;
	return 0;
}

void vd_poller_wake(struct vd_vnic *v)
{
	if (!v->poller)
		return;
	if (!READ_ONCE(v->gone))
		WRITE_ONCE(v->taken->polling, 1); /* it will, from now on */
	wake_up_process(v->poller);
}

void vd_poller_end(struct vd_vnic *v)
{
	if (v->poller)
		kthread_stop(v->poller);
	v->poller = NULL;
}
