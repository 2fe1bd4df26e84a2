// SPDX-License-Identifier: Apache-2.0
/* The engine's small nouns, each alone. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "descriptor.h"
#include "recovery.h"
#include "slab.h"
#include "timer.h"
#include "world.h"

/* ---- recovery ---- */

static void the_first_probe_timeout_is_about_a_second(void)
{
	struct recovery recovery;

	recovery_init(&recovery, ACCORD_CONGESTION_NEWRENO, ACCORD_INITIAL_WINDOW);
	CHECK(recovery_pto(&recovery) > 950000 && recovery_pto(&recovery) < 1050000);
}

static void the_estimator_follows_rfc_9002_section_5_3(void)
{
	struct recovery recovery;
	double srtt = 0, rttvar = 0;
	uint64_t random = 3;

	recovery_init(&recovery, ACCORD_CONGESTION_NEWRENO, ACCORD_INITIAL_WINDOW);
	for (int i = 0; i < 200; i++) {
		uint32_t sample = 1000 + test_below(&random, 200000);
		double distance = srtt > sample ? srtt - sample : sample - srtt;

		recovery_on_sample(&recovery, sample, 1);
		rttvar = i ? 0.75 * rttvar + 0.25 * distance : sample / 2.0;
		srtt = i ? 0.875 * srtt + 0.125 * sample : sample;
		CHECK(recovery.srtt_us > srtt - 10 && recovery.srtt_us < srtt + 10);
		CHECK(recovery.rttvar_us > rttvar - 10 && recovery.rttvar_us < rttvar + 10);
	}
}

static void the_probe_timeout_doubles_up_to_a_bound_until_an_acknowledgement(void)
{
	struct recovery recovery;
	uint64_t first, second;

	recovery_init(&recovery, ACCORD_CONGESTION_NEWRENO, ACCORD_INITIAL_WINDOW);
	recovery_on_sample(&recovery, 100000, 1);
	first = recovery_deadline(&recovery);
	recovery_on_timeout(&recovery, first);
	second = recovery_deadline(&recovery);
	CHECK_EQUAL(second - first, 2 * first);
	recovery_on_timeout(&recovery, second);
	CHECK_EQUAL(recovery_deadline(&recovery) - second, RECOVERY_MAX_INTERVAL_US);
	recovery.timeouts = 0;
	recovery.timer_base = 0;
	CHECK_EQUAL(recovery_deadline(&recovery), first);
}

/* ---- slab ---- */

static void a_slab_gives_each_buffer_once_and_takes_all_back(void)
{
	struct slab slab;
	struct slab_share share = {0};
	uint32_t taken[64];
	void *memory = aligned_alloc(SLAB_GRAIN, 64 * slab_stride(1200));

	slab_init(&slab, memory, 64, 1200, 0);
	for (uint32_t i = 0; i < 64; i++) {
		taken[i] = slab_take(&slab, &share);
		CHECK(taken[i] != SLAB_NONE);
		memset(slab_bytes(&slab, taken[i]), (int)i, 1200);
	}
	CHECK_EQUAL(slab_take(&slab, &share), SLAB_NONE);
	for (uint32_t i = 0; i < 64; i++)
		CHECK(slab_bytes(&slab, taken[i])[0] == i && slab_bytes(&slab, taken[i])[1199] == i);
	for (uint32_t i = 0; i < 64; i++)
		slab_give(&slab, &share, taken[i]);
	CHECK_EQUAL(slab.free_count, 64);
	CHECK_EQUAL(share.held, 0);
	CHECK_EQUAL(slab.common_used, 0);
	free(memory);
}

static void an_unproven_peer_gets_its_guarantee_whatever_the_others_hold(void)
{
	struct slab slab;
	struct slab_share greedy[8] = {{0}}, proven = {0}, honest = {.unproven = true};
	void *memory = aligned_alloc(SLAB_GRAIN, 256 * slab_stride(1200));

	slab_init(&slab, memory, 256, 1200, 9);
	CHECK_EQUAL(slab.guarantee, 10);
	for (int i = 0; i < 8; i++) {
		greedy[i].unproven = true;
		while (slab_take(&slab, &greedy[i]) != SLAB_NONE)
			;
	}
	while (slab_take(&slab, &proven) != SLAB_NONE)
		;
	CHECK_EQUAL(slab.free_count, slab.guarantee);
	for (uint32_t i = 0; i < slab.guarantee; i++)
		CHECK(slab_take(&slab, &honest) != SLAB_NONE);
	CHECK_EQUAL(slab_take(&slab, &honest), SLAB_NONE);
	free(memory);
}

static void shares_add_up_over_any_sequence_of_takes_gives_and_proofs(void)
{
	enum {
		HOLDERS = 6,
		BUFFERS = 48
	};
	struct slab slab;
	void *memory = aligned_alloc(SLAB_GRAIN, BUFFERS * slab_stride(1200));
	uint64_t random = 77;

	for (int round = 0; round < 200; round++) {
		struct slab_share shares[HOLDERS] = {{0}};
		uint32_t held[HOLDERS][BUFFERS];

		slab_init(&slab, memory, BUFFERS, 1200, HOLDERS);
		for (int i = 0; i < HOLDERS; i++)
			shares[i].unproven = i % 2;
		for (int action = 0; action < 300; action++) {
			uint32_t who = test_below(&random, HOLDERS), sum = 0;
			struct slab_share *share = &shares[who];
			uint32_t can = slab_available(&slab, share);

			if (test_below(&random, 40) == 0) {
				slab_prove(&slab, share);
			} else if (test_below(&random, 2)) {
				uint32_t buffer = slab_take(&slab, share);

				CHECK_EQUAL(buffer != SLAB_NONE, can > 0);
				if (buffer != SLAB_NONE)
					held[who][share->held - 1] = buffer;
			} else if (share->held) {
				uint32_t buffer = held[who][share->held - 1];

				slab_give(&slab, share, buffer);
			}
			for (int i = 0; i < HOLDERS; i++)
				sum += shares[i].held;
			CHECK_EQUAL(sum + slab.free_count, BUFFERS);
		}
		for (int i = 0; i < HOLDERS; i++)
			while (shares[i].held)
				slab_give(&slab, &shares[i], held[i][shares[i].held - 1]);
		CHECK_EQUAL(slab.free_count, BUFFERS);
		CHECK_EQUAL(slab.common_used, 0);
		CHECK_EQUAL(slab.unproven_used, 0);
	}
	free(memory);
}

/* ---- timer ---- */

static void the_earliest_slot_is_always_on_top_of_the_heap(void)
{
	enum {
		SLOTS = 50
	};
	struct timer timer;
	struct timer_entry entries[SLOTS];
	uint32_t places[SLOTS];
	uint64_t due[SLOTS], random = 9;

	timer_init(&timer, entries, places, SLOTS);
	for (int i = 0; i < SLOTS; i++)
		due[i] = UINT64_MAX;
	for (int action = 0; action < 20000; action++) {
		uint32_t slot = test_below(&random, SLOTS), present = 0;
		uint64_t least = UINT64_MAX;

		due[slot] = test_below(&random, 4) ? test_below(&random, 1000) : UINT64_MAX;
		timer_set(&timer, slot, due[slot]);
		for (int i = 0; i < SLOTS; i++) {
			present += due[i] != UINT64_MAX;
			least = due[i] < least ? due[i] : least;
		}
		CHECK_EQUAL(timer.count, present);
		if (present)
			CHECK_EQUAL(timer.entries[0].due, least);
	}
}

/* ---- descriptor ---- */

struct descriptor_case {
	const char *name;
	uint32_t reason;
	uint32_t length;
	uint8_t bytes[24];
};

static const struct descriptor_case descriptors[] = {
	{"the smallest", 0, 4, {0, 0, 0, 0}},
	{"payload only", 0, 7, {0, 0, 0, 0, 1, 2, 3}},
	{"a placeholder", 0, 4, {0, 1, 0, 0}},
	{"two children", 0, 6, {2, 0, 0, 0, 1, 63}},
	{"two TLVs", 0, 13, {0, 0, 0, 9, 0, 1, 0, 1, 7, 0x80, 1, 0, 0}},
	{"an empty payload after children and a TLV", 0, 9, {1, 0, 0, 4, 2, 0, 3, 0, 0}},
	{"nothing at all", ACCORD_REASON_BAD_DESCRIPTOR, 0, {0}},
	{"a byte too short", ACCORD_REASON_BAD_DESCRIPTOR, 3, {0, 0, 0, 0}},
	{"more children than bytes", ACCORD_REASON_BAD_DESCRIPTOR, 5, {2, 0, 0, 0, 1}},
	{"64 children", ACCORD_REASON_BAD_DESCRIPTOR, 24, {64, 0, 0, 0, 1}},
	{"255 children", ACCORD_REASON_BAD_DESCRIPTOR, 24, {255, 0, 0, 0, 1}},
	{"child 64", ACCORD_REASON_BAD_DESCRIPTOR, 5, {1, 0, 0, 0, 64}},
	{"itself as a child", ACCORD_REASON_BAD_DESCRIPTOR, 5, {1, 0, 0, 0, 5}},
	{"children out of order", ACCORD_REASON_NOT_CANONICAL, 6, {2, 0, 0, 0, 3, 2}},
	{"a child twice", ACCORD_REASON_NOT_CANONICAL, 6, {2, 0, 0, 0, 3, 3}},
	{"an unknown flag", ACCORD_REASON_NOT_CANONICAL, 4, {0, 2, 0, 0}},
	{"TLVs beyond the end", ACCORD_REASON_BAD_DESCRIPTOR, 8, {0, 0, 0, 5, 0, 1, 0, 0}},
	{"over 1024 bytes of TLVs", ACCORD_REASON_BAD_DESCRIPTOR, 24, {0, 0, 4, 1, 0, 1, 0, 0}},
	{"half a TLV header", ACCORD_REASON_BAD_DESCRIPTOR, 7, {0, 0, 0, 3, 0, 1, 0}},
	{"a TLV value that runs into the payload", ACCORD_REASON_BAD_DESCRIPTOR, 10, {0, 0, 0, 5, 0, 1, 0, 2, 9, 9}},
	{"a TLV type twice", ACCORD_REASON_NOT_CANONICAL, 12, {0, 0, 0, 8, 0, 1, 0, 0, 0, 1, 0, 0}},
	{"TLV types descending", ACCORD_REASON_NOT_CANONICAL, 12, {0, 0, 0, 8, 0, 2, 0, 0, 0, 1, 0, 0}},
};

static void each_descriptor_of_the_table_gets_its_verdict(void)
{
	for (uint32_t i = 0; i < sizeof(descriptors) / sizeof(descriptors[0]); i++) {
		const struct descriptor_case *row = &descriptors[i];
		uint8_t *exact = malloc(row->length ? row->length : 1);
		uint32_t reason;

		/* Of exactly its size, so that the sanitizer sees a read beyond it. */
		memcpy(exact, row->bytes, row->length);
		reason = descriptor_check(exact, row->length, 5);
		if (reason != row->reason)
			fprintf(stderr, "descriptor with %s:\n", row->name);
		CHECK_EQUAL(reason, row->reason);
		free(exact);
	}
}

static void a_truncated_descriptor_is_never_read_beyond_its_end(void)
{
	static const uint8_t whole[] = {3, 0, 0, 14, 1, 2, 9, 0, 1, 0, 4, 'a', 'b', 'c', 'd', 0x80, 1, 0, 2, 'e', 'f', 'x'};

	for (uint32_t length = 0; length <= sizeof(whole); length++) {
		uint8_t *exact = malloc(length ? length : 1);

		memcpy(exact, whole, length);
		CHECK_EQUAL(descriptor_check(exact, length, 5),
		            length < sizeof(whole) - 1 ? ACCORD_REASON_BAD_DESCRIPTOR : ACCORD_REASON_OK);
		free(exact);
	}
}

static void a_tlv_is_found_by_its_type_or_not_at_all(void)
{
	static const uint8_t whole[] = {1, 0, 0, 13, 2, 0, 1, 0, 3, 'a', 'b', 'c', 0x80, 1, 0, 2, 'e', 'f', 'x'};
	uint16_t length = 0;
	const uint8_t *value = descriptor_find(whole, 0x8001, &length);

	CHECK_EQUAL(descriptor_check(whole, sizeof(whole), 5), 0);
	CHECK(value && length == 2 && memcmp(value, "ef", 2) == 0);
	value = descriptor_find(whole, 0x0001, &length);
	CHECK(value && length == 3 && memcmp(value, "abc", 3) == 0);
	CHECK(!descriptor_find(whole, 0x0002, &length));
}

/* ---- reason ---- */

static void every_reason_has_a_name_a_text_and_a_culprit(void)
{
	uint32_t named = 0;

	for (uint32_t reason = 0; reason < ACCORD_REASON_LIMIT; reason++) {
		CHECK_EQUAL(accord_reason_name(reason) != NULL, accord_reason_text(reason) != NULL);
		named += accord_reason_name(reason) != NULL;
		CHECK(accord_reason_party(reason) <= ACCORD_PARTY_USER);
	}
	CHECK(named > 60);
	CHECK(strcmp(accord_reason_name(ACCORD_REASON_BAD_CHECKSUM), "BAD_CHECKSUM") == 0);
	CHECK_EQUAL(accord_reason_party(ACCORD_REASON_BAD_CHECKSUM), ACCORD_PARTY_PATH);
	CHECK(!accord_reason_name(ACCORD_REASON_LIMIT) && !accord_reason_text(UINT32_MAX));
	CHECK_EQUAL(accord_reason_party(UINT32_MAX), ACCORD_PARTY_NONE);
}

int main(void)
{
	RUN(the_first_probe_timeout_is_about_a_second);
	RUN(the_estimator_follows_rfc_9002_section_5_3);
	RUN(the_probe_timeout_doubles_up_to_a_bound_until_an_acknowledgement);
	RUN(a_slab_gives_each_buffer_once_and_takes_all_back);
	RUN(an_unproven_peer_gets_its_guarantee_whatever_the_others_hold);
	RUN(shares_add_up_over_any_sequence_of_takes_gives_and_proofs);
	RUN(the_earliest_slot_is_always_on_top_of_the_heap);
	RUN(each_descriptor_of_the_table_gets_its_verdict);
	RUN(a_truncated_descriptor_is_never_read_beyond_its_end);
	RUN(a_tlv_is_found_by_its_type_or_not_at_all);
	RUN(every_reason_has_a_name_a_text_and_a_culprit);
	return check_report("test_parts");
}
