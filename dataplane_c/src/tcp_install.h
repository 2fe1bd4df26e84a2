/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel TCP state by TCP_REPAIR, in the process that has CAP_NET_ADMIN. As the functions of privilege.h. */
#ifndef ACCORD_TCP_INSTALL_H
#define ACCORD_TCP_INSTALL_H

#include "core.h"

int accord_tcp_numbers_here(const struct accord_tcp_state *state, struct accord_tcp_numbers *numbers,
                            struct accord_failure *failure);
int accord_tcp_install_here(const struct accord_tcp_state *state, int fd, struct accord_failure *failure);
int accord_tcp_silence_here(int fd, struct accord_failure *failure);

#endif
