/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The clock: microseconds of CLOCK_MONOTONIC for the price of reading the processor's counter.
 *
 * Where the counter runs at one rate in all states (invariant TSC) the time is
 *     base_us + (base_frac + ticks * mult + min(ticks, bend_ticks) * bend) / 2^64,  ticks = tsc - base_tsc
 * with the numbers in one cache line, protected by a sequence count: readers never write, and read again in the
 * rare case that the numbers changed under them. clock_init measures the rate over half a millisecond;
 * clock_recalibrate measures it again over ever longer spans (up to SPAN_MAX, then anew, because the kernel
 * steers CLOCK_MONOTONIC) and bends the line for one second, so that what it was off is gone then. The new line
 * starts where the old one is while readers are held off, so time does not go backwards. A line that is behind by more
 * than STEP_US jumps; one that is ahead runs slower until it is right, at half speed at worst.
 *
 * A child forked while another thread changed the line has a torn one. It notices by the pid in `writer`, uses
 * clock_gettime, and measures anew when it recalibrates.
 *
 * Elsewhere, and where the kernel found the counter unusable, it is clock_gettime.
 */
#define _GNU_SOURCE
#include "host/host.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FIRST_NS 500000ull         /* length of the first measurement */
#define RECALIBRATE_NS 10000000ull /* at most this often, until the rate is known well */
#define SETTLED_NS 1000000000ull   /* at most this often afterwards, and the time to correct an error in */
#define SPAN_MAX_NS 64000000000ull
#define STEP_US 1000
#define PATIENCE 65536 /* tries to read the line before asking whether its writer still exists */
#define HOLD_TICKS 1000
#define SAMPLE_TRIES 20
#define SAMPLE_GOOD_TICKS 500
#define RATE_JUMP 100 /* a rate that differs by more than 1/100 is no rate: the counter was reset or ran on alone */

struct sample {
	uint64_t tsc, ns;
};

static struct {
	_Alignas(64) _Atomic uint32_t seq; /* odd: being changed */
	_Atomic uint32_t use_tsc;
	_Atomic uint64_t base_tsc, base_us, base_frac, mult, bend_ticks;
	_Atomic int64_t bend;
} line;

/* Only for whoever recalibrates. */
static _Atomic int writer; /* pid of the process in which a thread changes the line, 0 nobody */
static struct sample span_start, last;
static bool usable;
static uint64_t ahead_us; /* what we are ahead of CLOCK_MONOTONIC for good: see begin_again */
static _Atomic uint64_t cycles_per_us = 1000;

static uint64_t monotonic_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <x86intrin.h>

static inline uint64_t counter(void)
{
	return __rdtsc();
}

/* CPUID 8000_0007h EDX bit 8: the TSC has a constant rate in all P-, C- and T-states. */
static bool counter_invariant(void)
{
	unsigned a, b, c, d;
	return __get_cpuid(0x80000007u, &a, &b, &c, &d) && (d & 0x100u);
}
#else
static inline uint64_t counter(void)
{
	return monotonic_ns();
}

static bool counter_invariant(void)
{
	return false;
}
#endif

/* The kernel falls back to these when it finds that the counters of the processors do not agree. */
static bool kernel_distrusts_counter(void)
{
	char name[32] = "";
	int fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t n = host_sys.read(fd, name, sizeof(name) - 1);
	host_sys.close(fd);
	return n > 0 && (!strncmp(name, "hpet", 4) || !strncmp(name, "acpi_pm", 7) || !strncmp(name, "jiffies", 7));
}

/* Counter and clock at one moment: of a few tries the one that took the shortest, more if all were disturbed. */
static struct sample take_sample(void)
{
	struct sample best = {0, 0};
	uint64_t best_cost = UINT64_MAX;
	for (int i = 0; i < SAMPLE_TRIES && (i < 5 || best_cost > SAMPLE_GOOD_TICKS); i++) {
		uint64_t before = counter();
		uint64_t ns = monotonic_ns();
		uint64_t cost = counter() - before;
		if (cost < best_cost) {
			best_cost = cost;
			best = (struct sample){before + cost / 2, ns};
		}
	}
	return best;
}

/* 2^64 times the microseconds per tick, measured between two samples; 0 if they cannot be used. */
static uint64_t rate_between(struct sample a, struct sample b)
{
	if (b.tsc <= a.tsc || b.ns <= a.ns)
		return 0;
	unsigned __int128 ns64 = (unsigned __int128)(b.ns - a.ns) << 64;
	unsigned __int128 rate = ns64 / (b.tsc - a.tsc) / 1000;
	return rate >> 64 ? 0 : (uint64_t)rate;
}

/* A line as numbers; see the top of this file. */
struct segment {
	uint64_t base_tsc, base_us, base_frac, mult, bend_ticks;
	int64_t bend;
};

/* In 2^-64 us. */
static inline unsigned __int128 segment_at(const struct segment *g, uint64_t tsc)
{
	unsigned __int128 base = (unsigned __int128)g->base_us << 64 | g->base_frac;
	/* Another processor's counter may be a few ticks behind. */
	if (tsc < g->base_tsc)
		return base;
	uint64_t ticks = tsc - g->base_tsc;
	uint64_t bent = ticks < g->bend_ticks ? ticks : g->bend_ticks;
	return base + (unsigned __int128)ticks * g->mult + (unsigned __int128)((__int128)bent * g->bend);
}

static inline uint64_t whole_us(unsigned __int128 t)
{
	return (uint64_t)(t >> 64);
}

static inline struct segment load_segment(void)
{
	return (struct segment){
	    .base_tsc = atomic_load_explicit(&line.base_tsc, memory_order_relaxed),
	    .base_us = atomic_load_explicit(&line.base_us, memory_order_relaxed),
	    .base_frac = atomic_load_explicit(&line.base_frac, memory_order_relaxed),
	    .mult = atomic_load_explicit(&line.mult, memory_order_relaxed),
	    .bend_ticks = atomic_load_explicit(&line.bend_ticks, memory_order_relaxed),
	    .bend = atomic_load_explicit(&line.bend, memory_order_relaxed),
	};
}

/* Make readers wait for store_segment. Those that saw the old count may, out of order, read the counter a little
 * later: let that be over, so that what they return is before what the new line says. */
static void hold_readers(void)
{
	uint32_t seq = atomic_load_explicit(&line.seq, memory_order_relaxed);
	atomic_store_explicit(&line.seq, seq + 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	uint64_t begin = counter();
	while (counter() - begin < HOLD_TICKS)
		;
}

static void store_segment(const struct segment *g)
{
	atomic_store_explicit(&line.base_tsc, g->base_tsc, memory_order_relaxed);
	atomic_store_explicit(&line.base_us, g->base_us, memory_order_relaxed);
	atomic_store_explicit(&line.base_frac, g->base_frac, memory_order_relaxed);
	atomic_store_explicit(&line.mult, g->mult, memory_order_relaxed);
	atomic_store_explicit(&line.bend_ticks, g->bend_ticks, memory_order_relaxed);
	atomic_store_explicit(&line.bend, g->bend, memory_order_relaxed);
	uint32_t seq = atomic_load_explicit(&line.seq, memory_order_relaxed);
	atomic_store_explicit(&line.seq, seq + 1, memory_order_release);
}

/* From now on this rate and bend, after a jump forward of jump_us. */
static void turn(uint64_t rate, int64_t bend, uint64_t bend_ticks, uint64_t jump_us)
{
	struct segment old = load_segment();
	hold_readers();
	uint64_t tsc = counter();
	if (tsc < old.base_tsc) /* it was reset: the line goes on from where it began */
		old.base_tsc = tsc;
	unsigned __int128 at = segment_at(&old, tsc);
	struct segment new = {tsc, whole_us(at) + jump_us, (uint64_t)at, rate, bend_ticks, bend};
	store_segment(&new);
}

/* One thread may change the line. What the parent was doing when it forked us is forgotten. */
static bool begin_writing(void)
{
	int pid = getpid(), holder = atomic_load(&writer);
	if (holder == pid || !atomic_compare_exchange_strong(&writer, &holder, pid))
		return false;
	uint32_t seq = atomic_load(&line.seq);
	if (seq & 1) {
		atomic_store(&line.use_tsc, 0);
		atomic_store(&line.seq, seq + 1);
	}
	return true;
}

static void end_writing(void)
{
	atomic_store(&writer, 0);
}

static void measure(void)
{
	struct sample a = take_sample();
	while (monotonic_ns() - a.ns < FIRST_NS)
		;
	struct sample b = take_sample();
	uint64_t rate = rate_between(a, b);
	if (rate) {
		span_start = a;
		last = b;
		struct segment first = {.base_tsc = b.tsc, .base_us = b.ns / 1000, .mult = rate};
		hold_readers();
		store_segment(&first);
		atomic_store(&cycles_per_us, (b.tsc - a.tsc) * 1000 / (b.ns - a.ns));
		atomic_store(&line.use_tsc, 1);
	}
}

void clock_init(void)
{
	usable = counter_invariant() && !kernel_distrusts_counter();
	if (!usable || atomic_load(&line.use_tsc) || !begin_writing())
		return;
	measure();
	end_writing();
}

uint64_t clock_us(void)
{
	for (unsigned tries = 1;; tries++) {
		if (__builtin_expect(!atomic_load_explicit(&line.use_tsc, memory_order_relaxed), 0))
			return monotonic_ns() / 1000;
		uint32_t seq = atomic_load_explicit(&line.seq, memory_order_acquire);
		struct segment g = load_segment();
		uint64_t tsc = counter();
		atomic_thread_fence(memory_order_acquire);
		if (__builtin_expect(!(seq & 1) && seq == atomic_load_explicit(&line.seq, memory_order_relaxed), 1))
			return whole_us(segment_at(&g, tsc));
		if (tries % PATIENCE == 0 && begin_writing())
			end_writing();
	}
}

/* Run at this rate, with error_us (positive: we are behind) taken out within SETTLED_NS. */
static void turn_and_correct(uint64_t rate, int64_t error_us)
{
	int64_t span_us = (int64_t)(SETTLED_NS / 1000);
	if (error_us > STEP_US) {
		turn(rate, 0, 0, (uint64_t)error_us);
		return;
	}
	if (error_us < -span_us / 2)
		error_us = -span_us / 2;
	turn(rate, (int64_t)((__int128)rate * error_us / span_us),
	     (uint64_t)(((unsigned __int128)span_us << 64) / rate), 0);
}

/*
 * The counter and the clock took different ways (a suspended machine resets the one or stops the other): measure
 * anew from here at the known rate. If that puts us ahead we stay ahead, because time must not go backwards.
 */
static void begin_again(struct sample now, uint64_t rate)
{
	uint64_t us = clock_us(), right = now.ns / 1000;
	turn(rate, 0, 0, us < right ? right - us : 0);
	ahead_us = us < right ? 0 : us - right;
	span_start = now;
}

static void recalibrate(void)
{
	bool settled = last.ns - span_start.ns >= SETTLED_NS;
	uint64_t due_us = ahead_us + (last.ns + (settled ? SETTLED_NS : RECALIBRATE_NS)) / 1000;
	if (clock_us() < due_us)
		return;
	struct segment old = load_segment();
	struct sample now = take_sample();
	uint64_t rate = rate_between(span_start, now);
	last = now;
	bool jumped = rate < old.mult - old.mult / RATE_JUMP || rate > old.mult + old.mult / RATE_JUMP;
	if (!rate || (settled && jumped)) {
		begin_again(now, old.mult);
		return;
	}
	uint64_t us = whole_us(segment_at(&old, now.tsc));
	turn_and_correct(rate, (int64_t)(now.ns / 1000 + ahead_us - us));
	if (now.ns - span_start.ns > SPAN_MAX_NS)
		span_start = now;
}

void clock_recalibrate(void)
{
	if (!usable || !begin_writing())
		return;
	if (atomic_load(&line.use_tsc))
		recalibrate();
	else
		measure();
	end_writing();
}

uint64_t clock_cycles(void)
{
	return counter();
}

uint64_t clock_cycles_per_us(void)
{
	return atomic_load_explicit(&cycles_per_us, memory_order_relaxed);
}
