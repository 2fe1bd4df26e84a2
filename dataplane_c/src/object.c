/* SPDX-License-Identifier: Apache-2.0 */
#include "object.h"

#include "complaint.h"
#include "failure.h"

/* An object of another layout would read what we write there as something else. */
static int check_layout(const struct object_file *file, const struct bpf_object *object, struct accord_failure *failure)
{
	const struct bpf_map *map = bpf_object__find_map_by_name(object, file->section);
	size_t bytes = 0;
	const uint32_t *layout = map ? bpf_map__initial_value((struct bpf_map *)map, &bytes) : NULL;

	if (!layout || bytes < sizeof(*layout))
		return accord_fail(failure, ACCORD_REASON_MAP_MISMATCH, 0,
		                   "the %s object does not say its map layout: build it and the library from one source",
		                   file->kind);
	if (*layout != file->layout)
		return accord_fail(failure, ACCORD_REASON_MAP_MISMATCH, 0,
		                   "the %s object has map layout %u, the library %u: build both from one source", file->kind,
		                   *layout, file->layout);
	return 0;
}

static int find_maps(const struct object_file *file, const struct bpf_object *object, struct accord_failure *failure)
{
	for (size_t i = 0; i < file->maps_count; i++) {
		const struct object_map *wanted = &file->maps[i];
		struct bpf_map *map = bpf_object__find_map_by_name(object, wanted->name);

		if (!map || bpf_map__type(map) != wanted->type || bpf_map__key_size(map) != wanted->key_bytes ||
		    bpf_map__value_size(map) != wanted->value_bytes || bpf_map__max_entries(map) != wanted->entries)
			return accord_fail(failure, ACCORD_REASON_MAP_MISMATCH, 0,
			                   "the %s object's map %s is %s: build it and the library from one source", file->kind,
			                   wanted->name, map ? "of another layout" : "missing");
		*wanted->found = map;
	}
	return 0;
}

int object_open(const struct object_file *file, struct bpf_object **object, struct bpf_program **program,
                struct accord_failure *failure)
{
	struct bpf_object *opened = bpf_object__open_file(file->path, NULL);
	long error = libbpf_get_error(opened);
	int result;

	*object = NULL;
	if (error)
		return accord_fail(failure, ACCORD_REASON_LOAD_FAILED, (int)-error, "opening %s: %s", file->path,
		                   accord_complaint());
	*object = opened;
	result = check_layout(file, opened, failure);
	if (result)
		return result;
	*program = bpf_object__find_program_by_name(opened, file->program);
	if (!*program)
		return accord_fail(failure, ACCORD_REASON_LOAD_FAILED, 0, "%s has no program %s", file->path, file->program);
	return find_maps(file, opened, failure);
}

int object_load(const struct object_file *file, struct bpf_object *object, struct accord_failure *failure)
{
	int result = bpf_object__load(object);

	if (!result)
		return 0;
	return accord_fail(failure, accord_reason_of_errno(-result, ACCORD_REASON_LOAD_FAILED), -result,
	                   "loading the %s program: %s", file->kind, accord_complaint());
}
