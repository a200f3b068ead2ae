/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* What older headers lack of arenas. clang 19 or later. */
#pragma once
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define __arena __attribute__((address_space(1)))
#define MAP_TYPE_ARENA 33
#define F_MMAPABLE 1024
#define F_SEGV_ON_FAULT (1 << 17)
#define F_NO_USER_CONV (1 << 18)

void __arena *bpf_arena_alloc_pages(void *map, void __arena *addr, __u32 pages, int node,
				    __u64 flags) __ksym __weak;
void bpf_arena_free_pages(void *map, void __arena *addr, __u32 pages) __ksym __weak;
