/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between worker and broker, and the worker's way to ask. */
#ifndef ACCORD_ASK_H
#define ACCORD_ASK_H

#include "core.h"

struct accord_message {
	uint8_t bytes[ACCORD_ASK_BYTES];
	uint32_t length;
	int fds[ACCORD_ASK_FDS]; /* -1: none */
};

/*
 * Ask, and wait for the answer: head, the kind's own data and one descriptor (-1: none) go there; exactly
 * answer_length bytes come back, and a descriptor when got is not NULL. Returns the result, or a negative reason.
 */
int accord_ask(struct accord_request request, const void *data, uint32_t length, int fd, void *answer,
               uint32_t answer_length, int *got, struct accord_failure *failure);

/*
 * Ask for what has no data in its answer, and go on. The answer is taken by accord_ask_answer, which waits for it, or
 * by the next request of any kind, before that is sent: until then ahead has to stay where it is. A request that could
 * not be sent is answered by its failure.
 */
void accord_ask_ahead(struct accord_request request, const void *data, uint32_t length, int fd,
                      struct accord_ahead *ahead);
int accord_ask_answer(struct accord_ahead *ahead, struct accord_failure *failure);

/* One message, descriptors close-on-exec. Returns its length, 0 at the end, -1 with errno; flags: as of recvmsg. */
int accord_message_receive(int socket, struct accord_message *message, int flags);
int accord_message_send(int socket, const void *head, uint32_t head_length, const void *data, uint32_t length,
                        const int *fds, uint32_t fd_count, int flags);
void accord_message_close(struct accord_message *message);

#endif
