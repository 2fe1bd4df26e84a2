/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Somebody else's XDP program. */
__attribute__((section("xdp"), used)) int somebody_else(void *context)
{
	(void)context;
	return 2; /* XDP_PASS */
}
