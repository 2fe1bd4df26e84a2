/* SPDX-License-Identifier: Apache-2.0 */
#include "control.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const char *const direction_names[LINK_DIRECTIONS] = {"up", "down"};

/* ---- Assignments ------------------------------------------------------------------------------ */

static const char *whole_number(const char *text, uint64_t most, uint64_t *value)
{
	char *end;

	if (*text < '0' || *text > '9') /* strtoull takes signs and blanks */
		return "is no whole number";
	errno = 0;
	*value = strtoull(text, &end, 10);
	if (*end)
		return "is no whole number";
	return errno || *value > most ? "is too large" : NULL;
}

static const char *probability(const char *text, double *value)
{
	char *end;

	if (*text < '0' || *text > '9')
		return "is no probability";
	*value = strtod(text, &end);
	return *end || !(*value >= 0 && *value <= 1) ? "is no probability between 0 and 1" : NULL;
}

static const char *assign(struct model_settings *settings, const char *name, const char *text)
{
	const uint64_t hour_ns = 3600ULL * 1000000000ULL;
	uint64_t number = 0;
	const char *wrong;

	if (strcmp(name, "delay_ns") == 0)
		return whole_number(text, hour_ns, &settings->delay_ns);
	if (strcmp(name, "jitter_ns") == 0)
		return whole_number(text, hour_ns, &settings->jitter_ns);
	if (strcmp(name, "rate_bps") == 0)
		return whole_number(text, 1000000000000ULL, &settings->rate_bps);
	if (strcmp(name, "loss") == 0)
		return probability(text, &settings->loss);
	if (strcmp(name, "duplicate") == 0)
		return probability(text, &settings->duplicate);
	if (strcmp(name, "reorder") == 0)
		return probability(text, &settings->reorder);
	if (strcmp(name, "limit") != 0 && strcmp(name, "mtu") != 0)
		return "is no setting";
	wrong = whole_number(text, *name == 'm' ? UINT16_MAX : UINT32_MAX, &number);
	if (!wrong)
		*(*name == 'm' ? &settings->mtu : &settings->limit) = (uint32_t)number;
	return wrong;
}

const char *control_assign(struct model_settings settings[LINK_DIRECTIONS], const char *word)
{
	const char *dot = strchr(word, '.');
	const char *equals = strchr(word, '=');
	char name[32];

	if (!dot || !equals || dot > equals || (size_t)(equals - dot) > sizeof(name))
		return "is not of the form up.NAME=VALUE or down.NAME=VALUE";
	memcpy(name, dot + 1, (size_t)(equals - dot - 1));
	name[equals - dot - 1] = '\0';
	for (int direction = 0; direction < LINK_DIRECTIONS; direction++)
		if (strlen(direction_names[direction]) == (size_t)(dot - word) &&
		    memcmp(direction_names[direction], word, (size_t)(dot - word)) == 0)
			return assign(&settings[direction], name, equals + 1);
	return "names no direction: up or down";
}

/* All of them or none. */
static int set(struct link *link, char *words, char *reply, size_t size)
{
	struct model_settings settings[LINK_DIRECTIONS];
	char *rest = NULL;

	for (int direction = 0; direction < LINK_DIRECTIONS; direction++)
		settings[direction] = link->models[direction].settings;
	for (char *word = strtok_r(words, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest)) {
		const char *wrong = control_assign(settings, word);

		if (wrong)
			return snprintf(reply, size, "%.80s %s\n", word, wrong);
	}
	for (int direction = 0; direction < LINK_DIRECTIONS; direction++) {
		if (settings[direction].jitter_ns > settings[direction].delay_ns)
			return snprintf(reply, size, "%s.jitter_ns is more than the delay\n", direction_names[direction]);
		link->models[direction].settings = settings[direction];
	}
	return snprintf(reply, size, "ok\n");
}

/* ---- Show ------------------------------------------------------------------------------------- */

static int show_direction(const struct link *link, int direction, char *text, size_t size)
{
	const struct model *model = &link->models[direction];
	const struct model_settings *settings = &model->settings;
	const struct model_counters *counters = &model->counters;
	const char *name = direction_names[direction];
	const struct {
		const char *name;
		uint64_t value;
	} numbers[] = {
		{"delay_ns", settings->delay_ns},
		{"jitter_ns", settings->jitter_ns},
		{"rate_bps", settings->rate_bps},
		{"mtu", settings->mtu},
		{"limit", settings->limit},
		{"queued", model->queued},
		{"received", counters->received},
		{"received_bytes", counters->received_bytes},
		{"delivered", counters->delivered},
		{"delivered_bytes", counters->delivered_bytes},
		{"lost", counters->lost},
		{"duplicated", counters->duplicated},
		{"reordered", counters->reordered},
		{"too_long", counters->too_long},
		{"overflowed", counters->overflowed},
		{"refused", counters->refused},
		{"oversize", counters->oversize},
		{"unfinished", counters->unfinished},
		{"kernel_dropped", link->ends[direction].kernel_dropped},
	};
	int length = snprintf(text, size, "%s.loss=%.17g\n%s.duplicate=%.17g\n%s.reorder=%.17g\n", name, settings->loss,
	                      name, settings->duplicate, name, settings->reorder);

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		length += snprintf(text + length, size - (size_t)length, "%s.%s=%" PRIu64 "\n", name, numbers[i].name,
		                   numbers[i].value);
	return length;
}

static int show(struct link *link, char *reply, size_t size)
{
	int length = 0;

	for (int direction = 0; direction < LINK_DIRECTIONS; direction++) {
		wire_end_statistics(&link->ends[direction]);
		length += show_direction(link, direction, reply + length, size - (size_t)length);
	}
	return length;
}

/* ---- The socket ------------------------------------------------------------------------------- */

const char *control_open(struct control *control, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	*control = (struct control){.listener = -1, .client = -1};
	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return "control socket path";
	}
	memcpy(address.sun_path, path, strlen(path));
	control->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (control->listener < 0)
		return "socket(AF_UNIX)";
	unlink(path);
	if (bind(control->listener, (struct sockaddr *)&address, sizeof(address)) < 0)
		return "bind of the control socket";
	if (listen(control->listener, 16) < 0)
		return "listen";
	return NULL;
}

void control_close(struct control *control)
{
	if (control->client >= 0)
		close(control->client);
	if (control->listener >= 0)
		close(control->listener);
}

void control_accept(struct control *control)
{
	control->client = accept4(control->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

void control_serve(struct control *control, struct link *link)
{
	char request[CONTROL_TEXT];
	char reply[CONTROL_TEXT];
	ssize_t received = recv(control->client, request, sizeof(request) - 1, MSG_DONTWAIT);
	int length;

	if (received > 0) {
		request[received] = '\0';
		if (strncmp(request, "set ", 4) == 0)
			length = set(link, request + 4, reply, sizeof(reply));
		else if (strcmp(request, "show") == 0)
			length = show(link, reply, sizeof(reply));
		else
			length = snprintf(reply, sizeof(reply), "no such request: show, or set NAME=VALUE ...\n");
		/* A client that is gone does not want it. */
		(void)!send(control->client, reply, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	close(control->client);
	control->client = -1;
}
