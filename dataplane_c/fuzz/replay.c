// SPDX-License-Identifier: Apache-2.0
/* Runs files through a fuzz target: for compilers without libFuzzer, and for the tests. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

enum {
	MAX_FILE = 1 << 20
};

int main(int count, char **names)
{
	uint8_t *bytes = malloc(MAX_FILE);

	for (int i = 1; bytes && i < count; i++) {
		FILE *file = fopen(names[i], "rb");
		size_t size;

		if (!file) {
			perror(names[i]);
			return 1;
		}
		size = fread(bytes, 1, MAX_FILE, file);
		fclose(file);
		LLVMFuzzerTestOneInput(bytes, size);
	}
	free(bytes);
	printf("replay: %d inputs\n", count - 1);
	return 0;
}
