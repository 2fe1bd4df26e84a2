/* SPDX-License-Identifier: Apache-2.0 */
/* Births, expected by this process or by the broker at its request. */
#include <errno.h>
#include <stdlib.h>

#include "ask.h"
#include "birth_program.h"
#include "failure.h"

struct accord_births {
	struct accord_birth_program *program; /* NULL: the broker's */
};

int accord_births_open(const char *object_path, const char *interface, struct accord_births **opened,
                       struct accord_failure *failure)
{
	struct accord_births *births = calloc(1, sizeof(*births));
	int result;

	*opened = NULL;
	if (!births)
		return accord_fail(failure, ACCORD_REASON_NO_MEMORY, ENOMEM, "opening %s", object_path);
	if (accord_privilege_asks())
		result = accord_ask((struct accord_request){.kind = ACCORD_ASK_BIRTHS}, NULL, 0, -1, NULL, 0, NULL, failure);
	else
		result = accord_birth_program_open(object_path, interface, &births->program, failure);
	if (result < 0) {
		free(births);
		return result;
	}
	*opened = births;
	return 0;
}

void accord_births_close(struct accord_births *births)
{
	if (!births)
		return;
	accord_birth_program_close(births->program);
	free(births);
}

int accord_births_listens(const struct accord_births *births, uint16_t port, struct accord_failure *failure)
{
	const struct accord_request request = {.kind = ACCORD_ASK_LISTENING, .number = port};

	if (!births->program)
		return accord_ask(request, NULL, 0, -1, NULL, 0, NULL, failure);
	return accord_birth_listens(port, failure);
}

int accord_births_expect(struct accord_births *births, const struct accord_tcp_state *state,
                         struct accord_failure *failure)
{
	const struct accord_request request = {.kind = ACCORD_ASK_BIRTH};

	if (!births->program)
		return accord_ask(request, state, sizeof(*state), -1, NULL, 0, NULL, failure);
	return accord_birth_program_expect(births->program, state, failure);
}

int accord_births_end(struct accord_births *births, const struct accord_tcp_state *state, uint32_t look,
                      struct accord_birth *end, struct accord_failure *failure)
{
	const struct accord_request request = {.kind = ACCORD_ASK_BIRTH_END, .mode = look};

	if (!births->program)
		return accord_ask(request, state, sizeof(*state), -1, end, sizeof(*end), NULL, failure);
	return accord_birth_program_end(births->program, state, look, end, failure);
}
