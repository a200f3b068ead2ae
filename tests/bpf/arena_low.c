/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* As arena_heap.c, with pages that user space may make, and pointers without their upper half. */
#define FLAGS F_NO_USER_CONV
#include "arena_heap.c"
