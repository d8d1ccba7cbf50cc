/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Programs of socket calls. A program is a list of steps; each is one call, made by one actor (a process) on the
 * descriptor in one of its slots. The conductor (play.c) has the actors take their steps one after the other; they
 * answer with the call's outcome as text (act*.c).
 */
#ifndef PLAY_H
#define PLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define ACTORS 2
#define SLOTS 10
#define PORTS 8 /* of its own for each program: an address names one of them */
#define STEPS_MAX 200
#define ARGS 5
#define TEXT_MAX 4000

enum op {
#define OP(name, n, what) OP_##name,
#include "ops.def"
#undef OP
	OPS,
	/* The conductor's own. */
	OP_begin, /* a: the first of the program's ports */
	OP_look,  /* what is ready on each descriptor; a: on the kernel */
	OP_end,   /* close all */
};

struct step {
	int actor, op;
	int a[ARGS];
};

struct program {
	int n;
	struct step step[STEPS_MAX];
};

/* An address is kind * 10 + port; port 8 is port 0, and 9 is one that the kernel refuses to a user. */
enum address_kind {
	AT_V4,
	AT_V6,
	AT_MAPPED,
	AT_ANY4,
	AT_ANY6,
	AT_OTHER4,
	AT_SHORT,
	AT_UNSPEC,
	AT_BAD_FAMILY,
	AT_KINDS
};
#define AT(kind, port) ((kind)*10 + (port))

struct option {
	int level, name;
	const char *text;
};
extern const struct option options[];
extern const int n_options;

/* program.c: the written form, a line for each step: actor, name, arguments. */
bool program_read(FILE *in, struct program *p);
void program_write(FILE *out, const struct program *p);
void program_list_ops(FILE *out);

/* generate.c: the program of a seed. */
void generate(uint64_t seed, struct program *p);

/* act.c: an actor's whole life: steps from one descriptor, answers to the other. */
struct actor {
	int fd[SLOTS];
	int ports;
	unsigned sent;       /* bytes of data that went out, from which the next ones are made */
	char text[TEXT_MAX]; /* the answer */
	size_t length;
};
_Noreturn void act(int from, int to);
__attribute__((format(printf, 2, 3))) void answer(struct actor *me, const char *format, ...);
/* An outcome: a number, or the name of errno. */
void answer_result(struct actor *me, long r);
int descriptor(const struct actor *me, int slot);
/* What a call made goes into a slot; what was there is closed. */
void put_descriptor(struct actor *me, int slot, int fd);
/* True, and said so, where the call would wait: the descriptor blocks, and none of the events is there. */
bool would_wait(struct actor *me, int fd, int flags, short events);
/* Addresses; the length is what the call is told. */
struct sockaddr_storage;
unsigned make_address(const struct actor *me, int code, struct sockaddr_storage *sa);
void answer_address(struct actor *me, const struct sockaddr_storage *sa, unsigned length);

/* act_io.c, act_sets.c */
void act_data(struct actor *me, const struct step *s);
void act_sets(struct actor *me, const struct step *s);
const char *events_text(unsigned events, char *text);
void look(struct actor *me, bool on_kernel);
/* Said by look: the kernel holds data back (MSG_MORE, TCP_CORK: 200 ms). */
#define UNSENT " unsent"

#endif
