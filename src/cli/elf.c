/* SPDX-License-Identifier: BSD-2-Clause */
/* See elf.h. Reads with pread only and checks each offset, because any file may be named on a command line. */
#define _GNU_SOURCE
#include "cli/elf.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#define PHDRS_MAX 256

#if defined(__x86_64__)
#define OUR_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define OUR_MACHINE EM_AARCH64
#else
#error "name this architecture's ELF machine here"
#endif

static bool read_at(int fd, void *buf, size_t len, uint64_t off)
{
	return off <= INT64_MAX && pread(fd, buf, len, (off_t)off) == (ssize_t)len;
}

/* "#!/path/to/interpreter argument": the path. */
static int inspect_script(const char *head, size_t have, char *interp, size_t len)
{
	const char *p = head + 2, *end = head + have;
	while (p < end && (*p == ' ' || *p == '\t'))
		p++;
	size_t n = 0;
	while (p + n < end && !strchr(" \t\n", p[n]))
		n++;
	if (!n || n >= len)
		return EXE_TEXT;
	memcpy(interp, p, n);
	interp[n] = 0;
	return EXE_SCRIPT;
}

static int inspect_elf(int fd, char *interp, size_t len)
{
	ElfW(Ehdr) eh;
	ElfW(Phdr) ph;
	if (!read_at(fd, &eh, sizeof(eh), 0))
		return EXE_BROKEN;
	if (eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_ident[EI_DATA] != ELFDATA2LSB || eh.e_machine != OUR_MACHINE)
		return EXE_FOREIGN;
	if ((eh.e_type != ET_EXEC && eh.e_type != ET_DYN) || eh.e_phentsize != sizeof(ph) || eh.e_phnum > PHDRS_MAX)
		return EXE_BROKEN;
	for (unsigned i = 0; i < eh.e_phnum; i++) {
		if (!read_at(fd, &ph, sizeof(ph), eh.e_phoff + i * sizeof(ph)))
			return EXE_BROKEN;
		if (ph.p_type != PT_INTERP)
			continue;
		if (ph.p_filesz < 2 || ph.p_filesz > len || !read_at(fd, interp, ph.p_filesz, ph.p_offset))
			return EXE_BROKEN;
		interp[ph.p_filesz - 1] = 0;
		return EXE_DYNAMIC;
	}
	return EXE_STATIC;
}

int elf_inspect(const char *path, char *interp, int len)
{
	char head[256];
	interp[0] = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t n = pread(fd, head, sizeof(head), 0);
	int kind = n < 0 ? -errno : EXE_TEXT;
	if (n >= 2 && !memcmp(head, "#!", 2))
		kind = inspect_script(head, (size_t)n, interp, (size_t)len);
	else if (n >= SELFMAG && !memcmp(head, ELFMAG, SELFMAG))
		kind = inspect_elf(fd, interp, (size_t)len);
	close(fd);
	return kind;
}
