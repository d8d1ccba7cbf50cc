/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The `viaduct` command. One file per subcommand; each takes its own argv (argv[0] is the subcommand's name) and
 * returns the exit status: EXIT_OK, EXIT_FAILED, EXIT_USAGE, and for run what shells use.
 */
#ifndef VD_CLI_H
#define VD_CLI_H

#define EXIT_OK 0
#define EXIT_FAILED 1      /* nothing to show, or it may not be looked at */
#define EXIT_USAGE 2       /* options or knobs are wrong */
#define EXIT_CANNOT 126    /* run: the program exists but can't be run accelerated, or not at all */
#define EXIT_NOT_FOUND 127 /* run: no such program */

int cmd_run(int argc, char **argv);
int cmd_stat(int argc, char **argv);
int cmd_explain(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_dump(int argc, char **argv);
int cmd_help(int argc, char **argv);
int cmd_knobs(int argc, char **argv);

/* "viaduct: ..." on standard error; returns status. */
int cli_error(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* " run, stat, ... and version" */
const char *cli_command_names(void);
/* Points to `viaduct help COMMAND`; returns EXIT_USAGE. */
int cli_usage(const char *command);
/* Check a file of rules (NULL: the default one, which may be missing), each error on standard error with its line.
 * EXIT_OK or EXIT_USAGE. */
int cli_rules_check(const char *path);
/* A process id, or -1. */
int cli_pid(const char *text);

#endif
