/* SPDX-License-Identifier: Apache-2.0 */
/* Whose packets come by a path. */
#ifndef ACCORD_PATH_H
#define ACCORD_PATH_H

#include <stdbool.h>
#include <string.h>

#include "core.h"

static inline bool path_same_remote(const struct accord_path *one, const struct accord_path *other)
{
	return one->family == other->family && one->context == other->context && one->remote_port == other->remote_port &&
	       memcmp(one->remote, other->remote, one->family == 4 ? 4 : sizeof(one->remote)) == 0;
}

#endif /* ACCORD_PATH_H */
