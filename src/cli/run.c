/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * viaduct run: check the knobs and the program, then exec it with LD_PRELOAD.
 *
 * What ld.so would silently ignore (a static program, a setuid one) is refused with the reason instead: whoever types
 * `viaduct run` wants to know. The library is found from this executable's own place, so the installed tree can be
 * moved.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "host/elf.h"
#include "cli/start.h"
#include "host/knobs.h"

#define SCRIPT_DEPTH 4 /* interpreters of interpreters, as the kernel allows */

/* --- the program --- */

/* Where execvp would find it. 0, -ENOENT, -EACCES (there is one, but not executable). */
static int find_program(const char *name, char path[PATH_MAX])
{
	int result = -ENOENT;
	if (strchr(name, '/')) {
		if (snprintf(path, PATH_MAX, "%s", name) >= PATH_MAX)
			return -ENAMETOOLONG;
		return access(path, X_OK) < 0 ? -errno : 0;
	}
	const char *dirs = getenv("PATH");
	if (!dirs)
		dirs = "/bin:/usr/bin";
	for (const char *end; *name; dirs = end + 1) {
		struct stat st;
		end = strchrnul(dirs, ':');
		int n = snprintf(path, PATH_MAX, "%.*s%s%s", (int)(end - dirs), dirs, end > dirs ? "/" : "", name);
		if (n < PATH_MAX && stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
			if (access(path, X_OK) == 0)
				return 0;
			result = -EACCES;
		}
		if (!*end)
			break;
	}
	return result;
}

/* Would ld.so drop LD_PRELOAD because the program changes its privileges? The reason, or NULL. */
static const char *secure_reason(const char *path)
{
	struct stat st;
	if (stat(path, &st) < 0)
		return NULL;
	if ((st.st_mode & S_ISUID) && st.st_uid != getuid())
		return "is setuid: it would run with another user's rights, and the system lets nobody preload a "
		       "library then";
	if ((st.st_mode & S_ISGID) && (st.st_mode & S_IXGRP) && st.st_gid != getgid())
		return "is setgid: it would run with another group's rights, and the system lets nobody preload a "
		       "library then";
	if (getuid() != 0 && getxattr(path, "security.capability", NULL, 0) > 0)
		return "has file capabilities: it would gain rights, and the system lets nobody preload a library "
		       "then; run it "
		       "as root instead";
	return NULL;
}

/* Our own ld.so: a program with another one has another C library. */
static bool same_loader(const char *interp)
{
	char ours[PATH_MAX];
	if (elf_inspect("/proc/self/exe", ours, sizeof(ours)) != EXE_DYNAMIC)
		return true;
	return !strcmp(basename(ours), basename(interp));
}

static int refuse(const char *path, const char *why)
{
	return cli_error(EXIT_CANNOT, "%s %s. Without viaduct it runs as usual.", path, why);
}

/* EXIT_OK, or the message is out. */
static int check_program(const char *path, int depth)
{
	char interp[PATH_MAX];
	const char *why = secure_reason(path);
	if (why)
		return refuse(path, why);
	int kind = elf_inspect(path, interp, sizeof(interp));
	if (kind == -EACCES) /* executable but not readable: the kernel may run it, ld.so preloads; let it try */
		return EXIT_OK;
	if (kind < 0)
		return cli_error(EXIT_CANNOT, "can't read %s: %s", path, strerror(-kind));
	switch ((enum exe_kind)kind) {
	case EXE_DYNAMIC:
		return same_loader(interp)
			   ? EXIT_OK
			   : refuse(path, "uses another C library than viaduct, which can't be preloaded into it");
	case EXE_GO:
		return refuse(path,
			      "is a Go program: it makes its system calls itself, where no preloaded library sees "
			      "them");
	case EXE_STATIC:
		return refuse(path, "is statically linked: there is no dynamic linker to preload the library");
	case EXE_FOREIGN:
		return refuse(path, "is for another architecture than viaduct");
	case EXE_BROKEN:
		return refuse(path, "is not a whole ELF executable");
	case EXE_TEXT:
		return check_program("/bin/sh", depth + 1);
	case EXE_SCRIPT:
		if (depth >= SCRIPT_DEPTH)
			return refuse(path, "has too many interpreters of interpreters");
		if (access(interp, X_OK) < 0)
			return cli_error(EXIT_CANNOT, "%s wants the interpreter %s: %s", path, interp, strerror(errno));
		return check_program(interp, depth + 1);
	}
	return EXIT_OK;
}

/* --- the library --- */

static int find_library(char path[PATH_MAX])
{
	static const char *const places[] = {"", "../lib/" VIADUCT_TRIPLET "/", "../lib/", "../lib64/"};
	char self[PATH_MAX], candidate[PATH_MAX + 64];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n < 0)
		return cli_error(EXIT_FAILED, "can't find out where viaduct itself is (is /proc mounted?): %s",
				 strerror(errno));
	self[n] = 0;
	*strrchr(self, '/') = 0;
	for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(candidate, sizeof(candidate), "%s/%slibviaduct.so", self, places[i]);
		if (!realpath(candidate, path) || access(path, R_OK) < 0)
			continue;
		if (strpbrk(path, " :"))
			return cli_error(EXIT_FAILED,
					 "%s has a space or colon in its path, which LD_PRELOAD can't name; "
					 "install viaduct somewhere else",
					 path);
		return EXIT_OK;
	}
	return cli_error(EXIT_FAILED, "there is no libviaduct.so beside %s/viaduct or in ../lib; install them together",
			 self);
}

/* Behind what is there, once. */
static int preload(const char *library)
{
	const char *old = getenv("LD_PRELOAD");
	char *value = NULL;
	size_t len = strlen(library);
	for (const char *p = old; p && (p = strstr(p, library)); p += len) {
		bool starts = p == old || strchr(" :", p[-1]);
		if (starts && (!p[len] || strchr(" :", p[len])))
			return 0;
	}
	if (asprintf(&value, "%s%s%s", old ? old : "", old && *old ? ":" : "", library) < 0)
		return -1;
	int rc = setenv("LD_PRELOAD", value, 1);
	free(value);
	return rc;
}

/* --- options --- */

static int set_knob(const char *assignment)
{
	char err[512], name[64];
	if (knob_check(assignment, err, sizeof(err)) < 0)
		return cli_error(EXIT_USAGE, "--set %s: %s", assignment, err);
	const char *equals = strchr(assignment, '=');
	snprintf(name, sizeof(name), "VIADUCT_%.*s", (int)(equals - assignment), assignment);
	return setenv(name, equals + 1, 1) < 0 ? cli_error(EXIT_FAILED, "%s", strerror(errno)) : EXIT_OK;
}

static int set_profile(const char *name)
{
	char assignment[64], err[512];
	snprintf(assignment, sizeof(assignment), "PROFILE=%s", name);
	if (knob_check(assignment, err, sizeof(err)) < 0)
		return cli_error(EXIT_USAGE, "there is no profile %s; choose one of %s", name,
				 knob_info[K_PROFILE].unit);
	return set_knob(assignment);
}

/* Checked here, where the user sees it; by its path from the root, for programs that change their directory. */
static int set_rules(const char *file)
{
	char path[PATH_MAX], assignment[PATH_MAX + 8];
	if (!realpath(file, path))
		return cli_error(EXIT_USAGE, "can't read the rules in %s: %s", file, strerror(errno));
	int rc = cli_rules_check(path);
	snprintf(assignment, sizeof(assignment), "RULES=%s", path);
	return rc ? rc : set_knob(assignment);
}

static int parse_options(int argc, char **argv)
{
	int c, rc = EXIT_OK;
	/* The first word that is no option is the program; the rest is its own. */
	while (rc == EXIT_OK && (c = command_option(CMD_run, argc, argv, 1)) >= 0) {
		if (c == 'p')
			rc = set_profile(optarg);
		else if (c == 's')
			rc = set_knob(optarg);
		else if (c == 'r')
			rc = set_rules(optarg);
		else if (c == 'h')
			exit(cmd_help(2, (char *[]){"help", "run"}));
		else
			rc = cli_usage("run");
	}
	return rc;
}

int cmd_run(int argc, char **argv)
{
	char path[PATH_MAX], library[PATH_MAX], err[512];
	int rc = parse_options(argc, argv);
	if (rc)
		return rc;
	if (optind >= argc) {
		cli_error(EXIT_USAGE, "which program?");
		return cli_usage("run");
	}
	if (knobs_load(environ, err, sizeof(err)) < 0)
		return cli_error(EXIT_USAGE, "%s", err);
	rc = cli_rules_check(knob[K_RULES] ? (const char *)(uintptr_t)knob[K_RULES] : NULL);
	if (rc)
		return rc;
	char **program = argv + optind;
	rc = find_program(program[0], path);
	if (rc == -ENOENT)
		return cli_error(EXIT_NOT_FOUND, "there is no program %s%s", program[0],
				 strchr(program[0], '/') ? "" : " in PATH");
	if (rc < 0)
		return cli_error(EXIT_CANNOT, "can't run %s: %s", path, strerror(-rc));
	rc = check_program(path, 0);
	if (rc)
		return rc;
	rc = find_library(library);
	if (rc)
		return rc;
	start_viaductd();
	if (preload(library) < 0)
		return cli_error(EXIT_FAILED, "can't set LD_PRELOAD: %s", strerror(errno));
	execvp(program[0], program);
	return cli_error(EXIT_CANNOT, "can't run %s: %s", path, strerror(errno));
}
