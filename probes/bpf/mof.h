/*
 * All that the probes need to be compiled, and no kernel header: parsing those takes half a minute where there is no
 * hardware virtualization. Offsets of members and positions of arguments come as macros from the kernel's BTF:
 *
 *   ID_<function>_<kind>   number of the probe; a probe without is not compiled
 *   A_<function>_<param>   position of a parameter in the argument slots, -1 if this kernel has no such parameter
 *   N_<function>           number of argument slots: the return value stands behind them
 *   OFF_<struct>_<member>  offset in bytes
 *   FD_*, AGENT, SPAN*     tokens that are replaced by what they stand for when the program is loaded: probes/programs.py
 *   MOF_STEPS, MOF_FULL, MOF_COUNTS   the set of probes; MOF_KPROBE: for kprobes, not for fentry and fexit
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))
#define BCC_SEC(name) SECTION(name)
#define INLINE static inline __attribute__((always_inline))
/* bcc's footer makes the licence's section of this; the helpers for tracing ask for the GPL. */
#define _LICENSE "GPL"
#ifndef LINUX_VERSION_CODE
#define LINUX_VERSION_CODE 0
#endif

/* Numbers of helpers, from the kernel's uapi/linux/bpf.h, where they never change. */
static void *(*bpf_map_lookup_elem)(u64 map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(u64 map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(u64 map, const void *key) = (void *)3;
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static u64 (*bpf_get_smp_processor_id)(void) = (void *)8;
static u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static void *(*bpf_get_current_task_btf)(void) = (void *)158;
static long (*bpf_probe_read_user)(void *to, u32 size, const void *from) = (void *)112;
static long (*bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static void *(*bpf_ringbuf_reserve)(u64 map, u64 size, u64 flags) = (void *)131;
static void (*bpf_ringbuf_discard)(void *record, u64 flags) = (void *)133;
#define RB_FORCE_WAKEUP 2

/*
 * LLVM's way to put 64 bits into a program: type 0 is a number, type 1 the descriptor of a map, and type 2 the address
 * of a value of a map of one element (descriptor, and offset in the upper half).
 */
u64 bpf_pseudo(u64 type, u64 value) asm("llvm.bpf.pseudo");
#define NUMBER(token) bpf_pseudo(0, token)
#define MAP(token) bpf_pseudo(1, token)
#define VALUE(token) bpf_pseudo(2, token)

/* What the kernel pushes on entry, in this order on x86-64 for as long as there is x86-64. */
struct pt_regs {
	u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};

/*
 * Kernel memory through a pointer whose type the verifier knows (an argument of fentry, or what was read through
 * one) is a load, which the kernel guards against faults itself. Everything else has to ask a helper.
 */
#define ASK(type, from)                                                                                               \
	({                                                                                                            \
		type value_ = 0;                                                                                      \
		bpf_probe_read_kernel(&value_, sizeof(value_), (void *)(from));                                       \
		value_;                                                                                               \
	})
#define USER(type, from)                                                                                              \
	({                                                                                                            \
		type value_ = 0;                                                                                      \
		bpf_probe_read_user(&value_, sizeof(value_), (void *)(from));                                         \
		value_;                                                                                               \
	})
#ifdef MOF_KPROBE
#define READ(type, base, member) ASK(type, (base) + OFF_##member)
#else
#define READ(type, base, member) (*(type *)((base) + OFF_##member))
#endif
