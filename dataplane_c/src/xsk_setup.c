/* SPDX-License-Identifier: Apache-2.0 */
#include "xsk_setup.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <linux/if_xdp.h>

/* One of the two shapes of ring; what libxdp caches of a producer is ahead by the ring's size. */
#define PLACE(made, memory, offset, entries, ahead) \
	do { \
		(made)->mask = (entries)-1; \
		(made)->size = (entries); \
		(made)->producer = (uint32_t *)(void *)((uint8_t *)(memory) + (offset)->producer); \
		(made)->consumer = (uint32_t *)(void *)((uint8_t *)(memory) + (offset)->consumer); \
		(made)->flags = (uint32_t *)(void *)((uint8_t *)(memory) + (offset)->flags); \
		(made)->ring = (uint8_t *)(memory) + (offset)->desc; \
		(made)->cached_prod = *(made)->producer; \
		(made)->cached_cons = *(made)->consumer + (ahead); \
	} while (0)

/* Asks for a ring of so many entries and maps it. NULL with errno. */
static void *make_ring(int fd, struct xsk_rings *rings, int which, int option, off_t page,
                       const struct xdp_ring_offset *offset, uint32_t entries, size_t entry_bytes)
{
	size_t bytes = offset->desc + entries * entry_bytes;
	void *memory;

	if (setsockopt(fd, SOL_XDP, option, &entries, sizeof(entries)))
		return NULL;
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, page);
	if (memory == MAP_FAILED)
		return NULL;
	madvise(memory, bytes, MADV_DONTFORK);
	rings->maps[which].memory = memory;
	rings->maps[which].bytes = bytes;
	return memory;
}

static int make_rings(int fd, uint32_t size, struct xsk_rings *rings)
{
	struct xdp_mmap_offsets at;
	socklen_t bytes = sizeof(at);
	void *fill, *completion, *rx, *tx;

	if (getsockopt(fd, SOL_XDP, XDP_MMAP_OFFSETS, &at, &bytes))
		return -1;
	if (bytes != sizeof(at)) { /* Linux before 5.4 has no flags there, and no need_wakeup */
		errno = EOPNOTSUPP;
		return -1;
	}
	fill = make_ring(fd, rings, 0, XDP_UMEM_FILL_RING, (off_t)XDP_UMEM_PGOFF_FILL_RING, &at.fr, size, sizeof(uint64_t));
	if (!fill)
		return -1;
	completion = make_ring(fd, rings, 1, XDP_UMEM_COMPLETION_RING, (off_t)XDP_UMEM_PGOFF_COMPLETION_RING, &at.cr, size,
	                       sizeof(uint64_t));
	if (!completion)
		return -1;
	rx = make_ring(fd, rings, 2, XDP_RX_RING, XDP_PGOFF_RX_RING, &at.rx, size, sizeof(struct xdp_desc));
	if (!rx)
		return -1;
	tx = make_ring(fd, rings, 3, XDP_TX_RING, XDP_PGOFF_TX_RING, &at.tx, size, sizeof(struct xdp_desc));
	if (!tx)
		return -1;
	PLACE(&rings->fill, fill, &at.fr, size, size);
	PLACE(&rings->completion, completion, &at.cr, size, 0);
	PLACE(&rings->rx, rx, &at.rx, size, 0);
	PLACE(&rings->tx, tx, &at.tx, size, size);
	return 0;
}

int xsk_setup(int fd, void *area, size_t area_bytes, uint32_t frame_bytes, uint32_t size, struct xsk_rings *rings)
{
	const struct xdp_umem_reg umem = {
		.addr = (uintptr_t)area,
		.len = area_bytes,
		.chunk_size = frame_bytes,
	};

	if (setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &umem, sizeof(umem)) || make_rings(fd, size, rings)) {
		int error = errno;

		xsk_unmap(rings);
		return -error;
	}
	return 0;
}

void xsk_unmap(struct xsk_rings *rings)
{
	for (int i = 0; i < XSK_RINGS; i++) {
		if (rings->maps[i].memory)
			munmap(rings->maps[i].memory, rings->maps[i].bytes);
		rings->maps[i].memory = NULL;
	}
}

int xsk_bind(int fd, int interface, uint32_t queue)
{
	const struct sockaddr_xdp address = {
		.sxdp_family = AF_XDP,
		.sxdp_flags = XDP_USE_NEED_WAKEUP,
		.sxdp_ifindex = (uint32_t)interface,
		.sxdp_queue_id = queue,
	};

	return bind(fd, (const struct sockaddr *)&address, sizeof(address)) ? -errno : 0;
}
