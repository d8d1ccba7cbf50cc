/* SPDX-License-Identifier: BSD-2-Clause */
/* A file of a test's own, where tests/lib/contain has it vanish. */
#ifndef VD_TEST_FILE_H
#define VD_TEST_FILE_H

#include <stdio.h>
#include <stdlib.h>

#define TEST_FILE_MAX 100

/* Its descriptor, -1 with errno; path: its name. The caller removes it. */
static inline int test_file(char path[TEST_FILE_MAX])
{
	const char *directory = getenv("TMPDIR");

	snprintf(path, TEST_FILE_MAX, "%s/viaduct-test-XXXXXX", directory ? directory : "/tmp");
	return mkstemp(path);
}

#endif
