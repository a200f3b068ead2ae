/* Relocations of every kind and form, to be fitted to the types of core_target.c. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define relocatable __attribute__((preserve_access_index))
#define keep(value) asm volatile("" ::"r"((unsigned long long)(value)))

enum small { S_A, S_B, S_C = -5, S_GONE = 9 };
enum small___x { S_A___x = 3, S_B___x };
enum big { B_A = 0x100000000ULL, B_B = 7 };
enum widened { N_A = 1 };

typedef int number;
typedef const volatile number constant;

struct inner {
	int a;
	unsigned b;
	char c[3];
} relocatable;

union both {
	int i;
	long l;
} relocatable;

struct declared;

struct all {
	int x;
	unsigned y;
	long z;
	struct inner in;
	struct inner arr[4];
	int two[2][3];
	char *p;
	struct declared *fp;
	unsigned bf1 : 3;
	int bf2 : 7;
	unsigned long bf3 : 33;
	enum small e;
	constant cn;
	union both u;
	unsigned char uc;
	short sh;
	int nosuch;
	_Bool bo;
	void (*fn)(int, struct inner *);
	float fl;
	struct {
		int an1;
		union {
			int an2;
			short an3;
		};
	};
	int flex[];
} relocatable;

struct all___f2 {
	unsigned long long y;
	unsigned short z;
} relocatable;

struct resized {
	unsigned a;
	unsigned long b;
	unsigned char c;
	int d;
	char *p;
	unsigned e[2];
	unsigned bf : 4;
} relocatable;

struct moved {
	int a;
	int b;
} relocatable;

struct partly {
	int a;
	int b;
} relocatable;

struct gone {
	int a;
} relocatable;

struct tail {
	int n;
	struct inner t[2];
} relocatable;

struct tail2 {
	int n;
	struct inner t[0];
} relocatable;

struct far {
	char c[40000];
	int last;
} relocatable;

struct same {
	int a;
	struct inner *p;
	struct declared *f;
	enum small e;
	int arr[3];
	void (*fn)(int);
} relocatable;

typedef struct {
	int q;
} nameless;
typedef int (*function)(int, char *);
typedef struct all *pointer;
typedef int array[4];

struct wrapped___w {
	struct {
		struct {
			int deep;
		};
	};
	int after;
} relocatable;

#define place(x)                                                                                   \
	keep(__builtin_preserve_field_info(x, BPF_FIELD_BYTE_OFFSET));                             \
	keep(__builtin_preserve_field_info(x, BPF_FIELD_BYTE_SIZE));                               \
	keep(__builtin_preserve_field_info(x, BPF_FIELD_EXISTS))
#define field(x)                                                                                   \
	place(x);                                                                                  \
	keep(__builtin_preserve_field_info(x, BPF_FIELD_SIGNED));                                  \
	keep(__builtin_preserve_field_info(x, BPF_FIELD_LSHIFT_U64));                              \
	keep(__builtin_preserve_field_info(x, BPF_FIELD_RSHIFT_U64))
#define type(t)                                                                                    \
	keep(bpf_core_type_exists(t));                                                             \
	keep(bpf_core_type_size(t));                                                               \
	keep(bpf_core_type_id_kernel(t));                                                          \
	keep(bpf_core_type_id_local(t))
#define value(t, v)                                                                                \
	keep(bpf_core_enum_value_exists(t, v));                                                    \
	keep(bpf_core_enum_value(t, v))

SEC("tc")
int all(struct __sk_buff *ctx)
{
	struct all *s = (void *)ctx;
	struct all___f2 *flavour = (void *)ctx;
	struct resized *r = (void *)ctx;
	struct moved *moved = (void *)ctx;
	struct partly *partly = (void *)ctx;
	struct gone *gone = (void *)ctx;
	struct tail *tail = (void *)ctx;
	struct tail2 *tail2 = (void *)ctx;
	struct far *far = (void *)ctx;
	struct same *same = (void *)ctx;
	struct wrapped___w *wrapped = (void *)ctx;

	field(s->x); field(s->y); field(s->z); place(s->in); field(s->in.b); place(s->in.c);
	place(s->in.c[1]); place(s->arr[2]); field(s->arr[3].b); place(s->two[1][2]);
	place(s->two[1]); place(s->p); place(s->fp); field(s->bf1); field(s->bf2); field(s->bf3);
	field(s->e); field(s->cn); place(s->u); field(s->u.l); field(s->uc); field(s->sh);
	field(s->nosuch); field(s->bo); place(s->fn); field(s->fl); field(s->an1); field(s->an2);
	field(s->an3); place(s->flex[7]); place(s->flex); field(s[2].y);
	field(flavour->y); field(flavour->z); field(moved->a); field(moved->b);
	field(partly->a); field(partly->b); field(gone->a); place(tail->t[1]);
	field(tail->t[1].b); place(tail2->t[5]); field(tail2->t[5].b); field(far->last);
	field(wrapped->deep); field(wrapped->after); place(same->arr); place(same->arr[2]);
	field(r->a); field(r->b); field(r->c); field(r->d); place(r->p); place(r->e[1]);
	field(r->bf);

	/* Loads and stores. */
	keep(s->x); keep(s->y); keep(s->z); keep(s->in.b); keep(s->arr[2].a); keep(s->p);
	keep(s->uc); keep(s->sh); keep(s->e); keep(s->bf1); keep(s->two[1][2]); keep(s->flex[3]);
	keep(s->nosuch); keep(flavour->y); keep(flavour->z); keep(r->a); keep(r->b); keep(r->c);
	keep(r->d); keep(r->p); keep(r->e[1]); keep(moved->b); keep(gone->a); keep(wrapped->deep);
	r->a = 5;
	r->b = 7;
	r->c = ctx->len;
	r->d = 1;
	s->y = 3;
	s->in.b = ctx->len;

	type(struct all); type(struct all___f2); type(struct inner); type(union both);
	type(enum small); type(enum small___x); type(enum big); type(enum widened); type(number);
	type(constant); type(nameless); type(function); type(pointer); type(array);
	type(struct gone); type(struct moved); type(struct same); type(struct tail);
	type(struct wrapped___w); type(struct resized);

	value(enum small, S_A); value(enum small, S_B); value(enum small, S_C);
	value(enum small, S_GONE); value(enum small___x, S_A___x); value(enum small___x, S_B___x);
	value(enum big, B_A); value(enum big, B_B); value(enum widened, N_A);
	return 0;
}

char _license[] SEC("license") = "GPL";
