/*
 * All that the probes need to be compiled, and no kernel header: parsing those takes half a minute where there is no
 * hardware virtualization. Offsets of members and positions of arguments come as macros from the kernel's BTF:
 *
 *   ID_<function>_<kind>   number of the probe; a probe without is not compiled
 *   A_<function>_<param>   position of a parameter in the argument slots, -1 if this kernel has no such parameter
 *   N_<function>           number of argument slots: the return value stands behind them
 *   OFF_<struct>_<member>  offset in bytes
 *   FD_RING, FD_COUNTERS, FD_NOTES, FD_STASH   maps, and
 *   AGENT                  the thread group that is not recorded, the agent's own: tokens that are replaced by
 *                          descriptors and number when the program is loaded
 *   MOF_COUNTS             count only; MOF_KPROBE: for kprobes, not for fentry and fexit
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
static u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*bpf_probe_read_user)(void *to, u32 size, const void *from) = (void *)112;
static long (*bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static void *(*bpf_ringbuf_reserve)(u64 map, u64 size, u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *record, u64 flags) = (void *)132;

/* LLVM's way to put 64 bits into a program: type 1 is the descriptor of a map, type 0 a number. */
u64 bpf_pseudo_fd(u64 type, u64 fd) asm("llvm.bpf.pseudo");
#define MAP(fd) bpf_pseudo_fd(1, fd)
#define RB_NO_WAKEUP 1

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
