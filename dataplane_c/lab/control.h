/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings and counters as text, and the UNIX socket (SOCK_SEQPACKET, one request and one reply per
 * connection) on which a running link is asked for the one and given the other.
 *
 *   show                                   -> name=value lines, settings and counters of both directions
 *   set up.delay_ns=25000000 down.loss=0.1 -> ok, or the reason why nothing was changed
 */
#ifndef ACCORD_LAB_CONTROL_H
#define ACCORD_LAB_CONTROL_H

#include "link.h"

enum control_constant {
	CONTROL_TEXT = 8192,
};

struct control {
	int listener;
	int client; /* one at a time; -1: none */
};

/* One "up.loss=0.1" into the settings of both directions. NULL, or what is wrong with it. */
const char *control_assign(struct model_settings settings[LINK_DIRECTIONS], const char *word);

/* NULL, or which call failed, with errno set. A socket left at the path by a dead process is replaced. */
const char *control_open(struct control *control, const char *path);
void control_close(struct control *control);
void control_accept(struct control *control);
/* Read the client's request, answer it, let it go. */
void control_serve(struct control *control, struct link *link);

#endif
