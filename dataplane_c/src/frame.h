/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes of what is around a packet; the functions are in core.h. */
#ifndef ACCORD_FRAME_H
#define ACCORD_FRAME_H

#include "core.h"

enum accord_frame_constant {
	ACCORD_FRAME_IPV4_BYTES = 20,
	ACCORD_FRAME_IPV6_BYTES = 40,
	ACCORD_FRAME_UDP_BYTES = 8,
	/* The most that is put in front of a packet. */
	ACCORD_FRAME_OVERHEAD = ACCORD_MAX_LINK_HEADER + ACCORD_FRAME_IPV6_BYTES + ACCORD_FRAME_UDP_BYTES,
};

#endif
