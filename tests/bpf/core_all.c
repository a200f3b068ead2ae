/* Every kind of CO-RE relocation, asked of types that every kernel has. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define relocatable __attribute__((preserve_access_index))

/* Other orders, sizes and names than the kernel's: only what is named counts. */
struct list_head {
	struct list_head *next, *prev;
} relocatable;

struct thread_group___fake {
	int none;
} relocatable;

struct task_struct {
	int tgid;
	char comm[16];
	unsigned int flags;
	struct task_struct *group_leader;
	struct list_head tasks;
	unsigned sched_reset_on_fork : 1;
	unsigned no_such_bit : 3;
	int no_such_member;
} relocatable;

/* Read with eight bytes what has four in the kernel. */
struct task_struct___wide {
	unsigned long long flags;
} relocatable;

/* Read with two bytes what has four. */
struct task_struct___narrow {
	unsigned short flags;
} relocatable;

struct sk_buff {
	/* Lies in anonymous unions and structs there, in none here. */
	struct sk_buff *next;
	unsigned int len;
	unsigned char cb[8];
	unsigned char pkt_type : 3;
	unsigned char ip_summed : 2;
	unsigned short queue_mapping;
} relocatable;

struct sk_buff___nested {
	struct {
		union {
			unsigned int priority;
			int other;
		};
	};
	unsigned int len;
} relocatable;

struct no_such_struct {
	int member;
} relocatable;

typedef struct {
	int counter;
} atomic_t;

typedef int no_such_typedef;

enum bpf_map_type___core {
	BPF_MAP_TYPE_HASH___core = 77,
	BPF_MAP_TYPE_NO_SUCH___core = 78,
};

struct flexible {
	int count;
	int values[];
} relocatable;

/* The kernel's struct has a flexible array at its end, here it has a length. */
struct bpf_prog_array {
	struct {
		int unused;
	} rcu;
	struct bpf_prog_array_item {
		void *prog;
	} items[4];
} relocatable;

__u64 values[40];
char comm[16];

#define put(index, value) values[index] = (value)

static __noinline int leader_of(struct task_struct *task)
{
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);

	return BPF_CORE_READ(leader, tgid);
}

SEC("tc")
int fields(struct __sk_buff *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct sk_buff *skb = (void *)ctx;

	put(0, BPF_CORE_READ(task, tgid));
	put(1, leader_of(task));
	bpf_core_read_str(comm, sizeof(comm), &task->comm);
	put(2, bpf_core_field_size(task->comm));
	put(3, bpf_core_field_size(task->comm[3]));
	put(4, bpf_core_field_exists(task->tasks.prev));
	put(5, bpf_core_field_exists(task->no_such_member));
	put(6, bpf_core_field_exists(task->no_such_bit));
	put(7, __builtin_preserve_field_info(task->tasks.prev, BPF_FIELD_BYTE_OFFSET));
	put(8, __builtin_preserve_field_info(task->tgid, BPF_FIELD_SIGNED));
	put(9, __builtin_preserve_field_info(task->flags, BPF_FIELD_SIGNED));
	put(10, BPF_CORE_READ_BITFIELD_PROBED(task, sched_reset_on_fork));
	put(11, __builtin_preserve_field_info(skb->pkt_type, BPF_FIELD_LSHIFT_U64));
	put(12, __builtin_preserve_field_info(skb->pkt_type, BPF_FIELD_RSHIFT_U64));
	put(13, __builtin_preserve_field_info(skb->pkt_type, BPF_FIELD_BYTE_OFFSET));
	put(14, __builtin_preserve_field_info(skb->pkt_type, BPF_FIELD_BYTE_SIZE));
	put(15, __builtin_preserve_field_info(skb->ip_summed, BPF_FIELD_LSHIFT_U64));
	put(16, __builtin_preserve_field_info(skb->len, BPF_FIELD_BYTE_OFFSET));
	put(17, __builtin_preserve_field_info(skb->cb[5], BPF_FIELD_BYTE_OFFSET));
	put(18, __builtin_preserve_field_info(((struct sk_buff___nested *)ctx)->priority,
					      BPF_FIELD_BYTE_OFFSET));
	put(19, __builtin_preserve_field_info(skb->queue_mapping, BPF_FIELD_BYTE_SIZE));
	/* Nothing of it is in the kernel, but it is never reached. */
	if (bpf_core_field_exists(((struct no_such_struct *)ctx)->member))
		put(20, BPF_CORE_READ((struct no_such_struct *)ctx, member));
	if (bpf_core_field_exists(task->no_such_member))
		put(20, BPF_CORE_READ(task, no_such_member));
	put(21, __builtin_preserve_field_info(((struct bpf_prog_array *)ctx)->items[2].prog,
					      BPF_FIELD_BYTE_OFFSET));
	return 0;
}

SEC("tc")
int loads(struct __sk_buff *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct___wide *wide = (void *)task;
	struct task_struct___narrow *narrow = (void *)task;

	put(0, task->tgid);
	put(1, task->group_leader->tgid);
	put(2, task->flags);
	put(3, wide->flags);
	put(4, narrow->flags);
	put(5, task->comm[2]);
	return 0;
}

SEC("tc")
int types(struct __sk_buff *ctx)
{
	put(0, bpf_core_type_exists(struct sk_buff));
	put(1, bpf_core_type_exists(struct no_such_struct));
	put(2, bpf_core_type_exists(atomic_t));
	put(3, bpf_core_type_exists(no_such_typedef));
	put(4, bpf_core_type_size(struct task_struct));
	put(5, bpf_core_type_size(struct task_struct___wide));
	put(6, bpf_core_type_size(struct no_such_struct));
	put(7, bpf_core_type_id_kernel(struct sk_buff));
	put(8, bpf_core_type_id_kernel(struct no_such_struct));
	put(9, bpf_core_type_id_local(struct sk_buff));
	put(10, bpf_core_type_exists(enum bpf_map_type___core));
	return 0;
}

SEC("tc")
int enums(struct __sk_buff *ctx)
{
	put(0, bpf_core_enum_value_exists(enum bpf_map_type___core, BPF_MAP_TYPE_HASH___core));
	put(1, bpf_core_enum_value_exists(enum bpf_map_type___core, BPF_MAP_TYPE_NO_SUCH___core));
	put(2, bpf_core_enum_value(enum bpf_map_type___core, BPF_MAP_TYPE_HASH___core));
	if (bpf_core_enum_value_exists(enum bpf_map_type___core, BPF_MAP_TYPE_NO_SUCH___core))
		put(3, bpf_core_enum_value(enum bpf_map_type___core, BPF_MAP_TYPE_NO_SUCH___core));
	return 0;
}

char _license[] SEC("license") = "GPL";
