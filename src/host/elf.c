/* SPDX-License-Identifier: BSD-2-Clause */
/* See elf.h. Reads with pread only and checks each offset, because any file may be named on a command line. */
#define _GNU_SOURCE
#include "host/elf.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#define PHDRS_MAX 256
#define NOTES_MAX 4096 /* bytes looked at */
#define GO_BUILD_ID 4  /* type of the note by which Go's linker names its build */

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

/* Did Go's linker make it? It says so in a note, also when C's linker had the last word (cgo). */
static bool has_go_note(int fd, const ElfW(Phdr) * ph)
{
	char notes[NOTES_MAX];
	size_t have = ph->p_filesz < sizeof(notes) ? ph->p_filesz : sizeof(notes), at = 0;
	ElfW(Nhdr) n;
	if (!read_at(fd, notes, have, ph->p_offset))
		return false;
	while (have - at >= sizeof(n)) {
		memcpy(&n, notes + at, sizeof(n));
		at += sizeof(n);
		size_t name = ((size_t)n.n_namesz + 3) & ~(size_t)3, desc = ((size_t)n.n_descsz + 3) & ~(size_t)3;
		if (name > have - at || desc > have - at - name)
			return false;
		if (n.n_type == GO_BUILD_ID && n.n_namesz >= 2 && !memcmp(notes + at, "Go", 2))
			return true;
		at += name + desc;
	}
	return false;
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
	int kind = EXE_STATIC;
	for (unsigned i = 0; i < eh.e_phnum; i++) {
		if (!read_at(fd, &ph, sizeof(ph), eh.e_phoff + i * sizeof(ph)))
			return EXE_BROKEN;
		if (ph.p_type == PT_NOTE && has_go_note(fd, &ph))
			return EXE_GO;
		if (ph.p_type != PT_INTERP)
			continue;
		if (ph.p_filesz < 2 || ph.p_filesz > len || !read_at(fd, interp, ph.p_filesz, ph.p_offset))
			return EXE_BROKEN;
		interp[ph.p_filesz - 1] = 0;
		kind = EXE_DYNAMIC;
	}
	return kind;
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
