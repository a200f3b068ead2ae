/* What the kernel lacks, in reach: each program is refused for it. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define relocatable __attribute__((preserve_access_index))

struct task_struct {
	int tgid;
	struct {
		int no_such_member;
	} inner;
} relocatable;

struct task_struct___signed {
	long long tgid;
} relocatable;

enum bpf_map_type___core {
	BPF_MAP_TYPE_NO_SUCH___core = 78,
};

__u64 value;

static __noinline int helper(struct task_struct *task)
{
	return BPF_CORE_READ(task, inner.no_such_member);
}

SEC("?tc")
int member(struct __sk_buff *ctx)
{
	value = helper((void *)bpf_get_current_task());
	return 0;
}

SEC("?tc")
int resized(struct __sk_buff *ctx)
{
	struct task_struct___signed *task = (void *)bpf_get_current_task_btf();

	value = task->tgid;
	return 0;
}

SEC("?tc")
int enumerator(struct __sk_buff *ctx)
{
	value = bpf_core_enum_value(enum bpf_map_type___core, BPF_MAP_TYPE_NO_SUCH___core);
	return 0;
}

char _license[] SEC("license") = "GPL";
