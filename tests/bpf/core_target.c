/* Types of a kernel that never was, for core_local.c to be fitted to. */
enum small { S_B = 2, S_A = 5, S_C = -7, S_D };
enum big { B_B = 0xf00000000ULL, B_A = 9 };
enum widened { N_A = 1, N_Z = 0x100000000ULL };

typedef long number;
typedef number constant;

struct inner {
	char pad;
	unsigned long b;
	char c[9];
	int a;
};

union both {
	long pad[3];
	long l;
	int i;
};

struct declared {
	int q;
};

struct all {
	struct {
		char q;
		union {
			int an2;
			struct {
				short an3;
				int an1;
			};
		};
	};
	long x;
	unsigned y;
	unsigned z;
	char *p;
	struct declared *fp;
	struct inner in;
	struct inner arr[3];
	unsigned two[3][3];
	int pad : 5;
	unsigned bf1 : 4;
	unsigned bf2 : 20;
	unsigned bf3 : 31;
	enum small e;
	int cn;
	union both u;
	unsigned short uc;
	int sh;
	_Bool bo;
	void (*fn)(int, struct inner *);
	float fl;
	int flex[];
};

struct all___f3 {
	long y;
};

struct resized {
	unsigned long a;
	unsigned b;
	unsigned c;
	long d;
	int pp;
	char *p;
	unsigned short e[8];
	unsigned bf;
};

struct moved {
	int a;
	int b;
};
struct moved___2 {
	int b;
	int a;
	int c;
};

struct partly {
	int a;
	int b;
};
struct partly___2 {
	int a;
	char c;
	int b;
};
struct partly___3 {
	int zz;
};

struct tail {
	int n;
	struct inner t[];
};

struct tail2 {
	int n;
	struct inner t[2];
	int z;
};

struct far {
	char c[50000];
	int last;
};

struct same {
	char q;
	int a;
	struct inner *p;
	struct declared *f;
	enum small e;
	int arr[3];
	void (*fn)(int);
};

typedef struct {
	int q, r;
} nameless;
typedef int (*function)(long, char *);
typedef struct all *pointer;
typedef int array[6];

struct wrapped {
	union {
		long z;
		struct {
			int w;
			int deep;
		};
	};
	int after;
};
struct wrapped___y {
	union {
		long z;
		struct {
			int w;
			int deep;
		};
	};
	int after;
	int more;
};

/* Only what is used gets into the BTF. */
enum small v1;
enum big v2;
enum widened v3;
constant v4;
struct all *v5;
struct all___f3 v6;
struct resized v7;
struct moved v8;
struct moved___2 v9;
struct partly v10;
struct partly___2 v11;
struct partly___3 v12;
struct tail *v13;
struct tail2 v14;
struct far v15;
struct same v16;
nameless v17;
function v18;
pointer v19;
array v20;
struct wrapped v21;
struct wrapped___y v22;
struct declared v23;
