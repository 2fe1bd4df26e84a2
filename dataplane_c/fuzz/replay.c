// SPDX-License-Identifier: Apache-2.0
/* Runs files, and all files of directories, through a fuzz target: for compilers without libFuzzer, and for the tests.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

enum {
	MAX_FILE = 1 << 20,
	MAX_PATH = 4096,
};

static uint8_t room[MAX_FILE];
static uint32_t inputs;

static int run_file(const char *name)
{
	FILE *file = fopen(name, "rb");
	uint8_t *exact;
	size_t size;

	if (!file) {
		perror(name);
		return 1;
	}
	size = fread(room, 1, sizeof(room), file);
	fclose(file);
	/* Of exactly its size, so that the sanitizer sees a read beyond it. */
	exact = malloc(size ? size : 1);
	if (!exact)
		return 1;
	memcpy(exact, room, size);
	LLVMFuzzerTestOneInput(exact, size);
	free(exact);
	inputs++;
	return 0;
}

static int run_directory(const char *name)
{
	DIR *directory = opendir(name);
	const struct dirent *entry;
	char path[MAX_PATH];
	int result = 0;

	if (!directory) {
		perror(name);
		return 1;
	}
	while (!result && (entry = readdir(directory))) {
		if (entry->d_name[0] == '.')
			continue;
		if (snprintf(path, sizeof(path), "%s/%s", name, entry->d_name) < (int)sizeof(path))
			result = run_file(path);
	}
	closedir(directory);
	return result;
}

int main(int count, char **names)
{
	int result = 0;

	for (int i = 1; !result && i < count; i++) {
		struct stat status;

		if (!stat(names[i], &status) && S_ISDIR(status.st_mode))
			result = run_directory(names[i]);
		else
			result = run_file(names[i]);
	}
	printf("replay: %u inputs\n", inputs);
	return result;
}
