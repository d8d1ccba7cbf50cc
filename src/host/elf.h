/* SPDX-License-Identifier: BSD-2-Clause */
/* What an executable file is, as far as preloading a library into it is concerned (elf(5)). */
#ifndef VD_HOST_ELF_H
#define VD_HOST_ELF_H

enum exe_kind {
	EXE_DYNAMIC, /* has an interpreter (ld.so): LD_PRELOAD works */
	EXE_GO,      /* made by Go, whose runtime makes its system calls itself */
	EXE_STATIC,  /* no interpreter: nothing can be preloaded */
	EXE_FOREIGN, /* another architecture */
	EXE_SCRIPT,  /* #!: what counts is the interpreter */
	EXE_TEXT,    /* neither: execvp gives it to /bin/sh */
	EXE_BROKEN,  /* ELF, but cut off or malformed */
};

/* Look at the file's start. interp (len bytes): path of ld.so, or of the script's interpreter. -errno if the file
 * can't be read. */
int elf_inspect(const char *path, char *interp, int len);

#endif
