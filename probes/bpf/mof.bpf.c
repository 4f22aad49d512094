/*
 * One program a probe. What each puts into its record is declared in probes/registry.py, for both sides.
 *
 * A record is made in two steps: begin() counts, and reserves room in the ring; the program fills in what is its
 * own; end() hands it over without waking anybody, since the agent reads in bulk at its own pace.
 */

struct record {
	u64 time, address, folio, arg, flags;
	u32 pid, tid;
	u8 probe, kind;
	u16 cpu;
	s32 result, refs;
	u32 aux;
};

struct counters {
	u64 fired, lost;
};

/* What a thread is faulting on, for the functions within that do not know. */
struct note {
	u64 address, vma;
};

enum { KIND_ENTER, KIND_EXIT, KIND_POINT };

INLINE struct record *begin(u32 probe, u8 kind)
{
	u64 who = bpf_get_current_pid_tgid();
	struct counters *all, *count;
	struct record *r = 0;
	u32 key = 0;

	if (who >> 32 == bpf_pseudo_fd(0, AGENT))
		return 0;
	all = bpf_map_lookup_elem(MAP(FD_COUNTERS), &key);
	if (!all)
		return 0;
	count = all + probe;
	/* An interrupt of this CPU may come between a load and a store. */
	__sync_fetch_and_add(&count->fired, 1);
#ifndef MOF_COUNTS
	r = bpf_ringbuf_reserve(MAP(FD_RING), sizeof(*r), 0);
	if (!r) {
		__sync_fetch_and_add(&count->lost, 1);
		return 0;
	}
	r->time = bpf_ktime_get_ns();
	r->address = 0;
	r->folio = 0;
	r->arg = 0;
	r->flags = 0;
	r->pid = who >> 32;
	r->tid = who;
	r->probe = probe;
	r->kind = kind;
	r->cpu = bpf_get_smp_processor_id();
	r->result = 0;
	r->refs = -1;
	r->aux = 0;
#endif
	return r;
}

INLINE int end(struct record *r)
{
	bpf_ringbuf_submit(r, RB_NO_WAKEUP);
	return 0;
}

INLINE u64 noted_address(void)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct note *note = bpf_map_lookup_elem(MAP(FD_NOTES), &tid);

	return note ? note->address : 0;
}

/*
 * The user address that a folio is at. Private anonymous folios have it in their index, unless the area was moved
 * by mremap(). A folio without a mapping has just been read from swap, or is about to be used: then it is what
 * this thread is faulting on, if anything. A file's folio may be anywhere: 0.
 */
INLINE void set_address(struct record *r, u64 folio)
{
	/* Through the record: reading it back, the verifier takes it for a number, which may be masked. */
	*(volatile u64 *)&r->address = READ(u64, folio, folio_mapping);
	u64 mapping = *(volatile u64 *)&r->address;

	if ((mapping & 3) == 1)
		r->address = READ(u64, folio, folio_index) << 12;
	else
		r->address = mapping ? 0 : noted_address();
}

INLINE void set_state(struct record *r, u64 folio)
{
	r->flags = READ(u64, folio, folio_flags);
	r->refs = READ(s32, folio, folio__refcount);
}

INLINE void set_folio(struct record *r, u64 folio)
{
	r->folio = folio;
	set_state(r, folio);
	set_address(r, folio);
}

INLINE u32 order_of(u64 folio, u64 flags)
{
	return flags & (1ULL << PG_HEAD) ? READ(u64, folio, folio__flags_1) & 0xff : 0;
}

/* How many page table entries map the folio. */
INLINE s32 mappings_of(u64 folio, u64 flags)
{
	return 1 + (flags & (1ULL << PG_HEAD) ? READ(s32, folio, folio__large_mapcount) :
						READ(s32, folio, folio__mapcount));
}

/*
 * ENTER(), EXIT() and EXIT_VOID() open the body of a program: a[] are the arguments of the function, ret what it
 * returned. A kretprobe knows the return value alone, so a kprobe at the entry keeps the arguments for it.
 */
#define ARG(function, param) (A_##function##_##param < 0 ? 0 : a[A_##function##_##param & MOST_ARGS])
#define BODY(name) INLINE int body_##name(u64 *a, u64 ret)

#ifndef MOF_KPROBE
#define MOST_ARGS 15
#define ENTER(function)                                                                                               \
	BODY(function##_enter);                                                                                       \
	int function##_enter(u64 *ctx) { return body_##function##_enter(ctx, 0); }                                    \
	BODY(function##_enter)
#define EXIT(function)                                                                                                \
	BODY(function##_exit);                                                                                        \
	int function##_exit(u64 *ctx) { return body_##function##_exit(ctx, ctx[N_##function]); }                      \
	BODY(function##_exit)
#define EXIT_VOID(function)                                                                                           \
	BODY(function##_exit);                                                                                        \
	int function##_exit(u64 *ctx) { return body_##function##_exit(ctx, 0); }                                      \
	BODY(function##_exit)
#else
#define MOST_ARGS 7
struct stash {
	u64 a[8];
};
/* Arguments that are passed on the stack read as 0. */
INLINE void stash_from(struct stash *s, struct pt_regs *ctx)
{
	s->a[0] = ctx->di;
	s->a[1] = ctx->si;
	s->a[2] = ctx->dx;
	s->a[3] = ctx->cx;
	s->a[4] = ctx->r8;
	s->a[5] = ctx->r9;
	s->a[6] = s->a[7] = 0;
}
#define ENTER(function)                                                                                               \
	BODY(function##_enter);                                                                                       \
	int function##_enter(struct pt_regs *ctx)                                                                     \
	{                                                                                                             \
		struct stash s;                                                                                       \
		stash_from(&s, ctx);                                                                                  \
		return body_##function##_enter(s.a, 0);                                                               \
	}                                                                                                             \
	BODY(function##_enter)
#define EXIT(function)                                                                                                \
	BODY(function##_exit);                                                                                        \
	int function##_args(struct pt_regs *ctx)                                                                      \
	{                                                                                                             \
		u64 key = (bpf_get_current_pid_tgid() << 32) | ID_##function##_exit;                                  \
		struct stash s;                                                                                       \
		stash_from(&s, ctx);                                                                                  \
		bpf_map_update_elem(MAP(FD_STASH), &key, &s, 0);                                                      \
		return 0;                                                                                             \
	}                                                                                                             \
	int function##_exit(struct pt_regs *ctx)                                                                      \
	{                                                                                                             \
		u64 key = (bpf_get_current_pid_tgid() << 32) | ID_##function##_exit;                                  \
		struct stash *kept = bpf_map_lookup_elem(MAP(FD_STASH), &key), none = {};                             \
		body_##function##_exit(kept ? kept->a : none.a, ctx->ax);                                             \
		bpf_map_delete_elem(MAP(FD_STASH), &key);                                                             \
		return 0;                                                                                             \
	}                                                                                                             \
	BODY(function##_exit)
#define EXIT_VOID(function) EXIT(function)
#endif

#define BEGIN(function, KIND, kind)                                                                                   \
	struct record *r = begin(ID_##function##_##kind, KIND);                                                       \
	if (!r)                                                                                                       \
	return 0
#define BEGIN_ENTER(function) BEGIN(function, KIND_ENTER, enter)
#define BEGIN_EXIT(function) BEGIN(function, KIND_EXIT, exit); r->result = ret

/* System calls: the one argument is the user's registers, whatever its name. */

#define REG(name) READ(u64, regs, pt_regs_##name)

INLINE int put_mbind(struct record *r, u64 regs)
{
	r->address = REG(di);
	r->arg = REG(si);
	r->aux = (REG(dx) & 0xffff) | REG(r9) << 16;
	r->flags = USER(u64, REG(r10));
	return end(r);
}

INLINE int put_move_pages(struct record *r, u64 regs)
{
	u64 nodes = REG(r10);

	r->address = USER(u64, REG(dx));
	r->arg = REG(si);
	r->flags = REG(di);
	r->aux = (nodes ? USER(u32, nodes) & 0xffff : 0xffff) | REG(r9) << 16;
	return end(r);
}

INLINE int put_migrate_pages(struct record *r, u64 regs)
{
	r->aux = REG(di);
	r->flags = USER(u64, REG(dx));
	r->arg = USER(u64, REG(r10));
	return end(r);
}

#ifdef ID___x64_sys_mbind_enter
ENTER(__x64_sys_mbind)
{
	BEGIN_ENTER(__x64_sys_mbind);
	return put_mbind(r, a[0]);
}
#endif
#ifdef ID___x64_sys_mbind_exit
EXIT(__x64_sys_mbind)
{
	BEGIN_EXIT(__x64_sys_mbind);
	return put_mbind(r, a[0]);
}
#endif
#ifdef ID___x64_sys_move_pages_enter
ENTER(__x64_sys_move_pages)
{
	BEGIN_ENTER(__x64_sys_move_pages);
	return put_move_pages(r, a[0]);
}
#endif
#ifdef ID___x64_sys_move_pages_exit
EXIT(__x64_sys_move_pages)
{
	BEGIN_EXIT(__x64_sys_move_pages);
	return put_move_pages(r, a[0]);
}
#endif
#ifdef ID___x64_sys_migrate_pages_enter
ENTER(__x64_sys_migrate_pages)
{
	BEGIN_ENTER(__x64_sys_migrate_pages);
	return put_migrate_pages(r, a[0]);
}
#endif
#ifdef ID___x64_sys_migrate_pages_exit
EXIT(__x64_sys_migrate_pages)
{
	BEGIN_EXIT(__x64_sys_migrate_pages);
	return put_migrate_pages(r, a[0]);
}
#endif
#ifdef ID___x64_sys_get_mempolicy_enter
ENTER(__x64_sys_get_mempolicy)
{
	BEGIN_ENTER(__x64_sys_get_mempolicy);
	u64 regs = a[0];
	r->address = REG(r10);
	r->aux = REG(r8);
	return end(r);
}
#endif
#ifdef ID___x64_sys_get_mempolicy_exit
EXIT(__x64_sys_get_mempolicy)
{
	BEGIN_EXIT(__x64_sys_get_mempolicy);
	u64 regs = a[0];
	r->address = REG(r10);
	r->aux = REG(r8);
	r->arg = USER(u32, REG(di));
	return end(r);
}
#endif

INLINE int put_do_mbind(struct record *r, u64 start, u64 len, u32 mode, u32 flags, u64 nodes)
{
	r->address = start;
	r->arg = len;
	r->aux = (mode & 0xffff) | flags << 16;
	r->flags = ASK(u64, nodes);
	return end(r);
}

#ifdef ID_do_mbind_enter
ENTER(do_mbind)
{
	BEGIN_ENTER(do_mbind);
	return put_do_mbind(r, ARG(do_mbind, start), ARG(do_mbind, len), ARG(do_mbind, mode), ARG(do_mbind, flags),
			    ARG(do_mbind, nmask));
}
#endif
#ifdef ID_do_mbind_exit
EXIT(do_mbind)
{
	BEGIN_EXIT(do_mbind);
	return put_do_mbind(r, ARG(do_mbind, start), ARG(do_mbind, len), ARG(do_mbind, mode), ARG(do_mbind, flags),
			    ARG(do_mbind, nmask));
}
#endif

/* Migration: unmap, copy, map again. */

#ifdef ID_migrate_pages_enter
ENTER(migrate_pages)
{
	BEGIN_ENTER(migrate_pages);
	r->arg = ARG(migrate_pages, private);
	r->aux = (ARG(migrate_pages, reason) & 0xffff) | ARG(migrate_pages, mode) << 16;
	return end(r);
}
#endif
#ifdef ID_migrate_pages_exit
EXIT(migrate_pages)
{
	BEGIN_EXIT(migrate_pages);
	r->arg = ARG(migrate_pages, private);
	r->aux = (ARG(migrate_pages, reason) & 0xffff) | ARG(migrate_pages, mode) << 16;
	return end(r);
}
#endif
#ifdef ID_try_to_migrate_exit
EXIT_VOID(try_to_migrate)
{
	BEGIN_EXIT(try_to_migrate);
	u64 folio = ARG(try_to_migrate, folio);
	set_folio(r, folio);
	r->result = mappings_of(folio, r->flags);
	r->aux = ARG(try_to_migrate, flags);
	return end(r);
}
#endif
#ifdef ID_try_to_unmap_exit
EXIT_VOID(try_to_unmap)
{
	BEGIN_EXIT(try_to_unmap);
	u64 folio = ARG(try_to_unmap, folio);
	set_folio(r, folio);
	r->result = mappings_of(folio, r->flags);
	r->aux = ARG(try_to_unmap, flags);
	return end(r);
}
#endif
#ifdef ID_migrate_folio_move_enter
ENTER(migrate_folio_move)
{
	BEGIN_ENTER(migrate_folio_move);
	set_folio(r, ARG(migrate_folio_move, src));
	r->arg = ARG(migrate_folio_move, dst);
	r->aux = (ARG(migrate_folio_move, reason) & 0xffff) | ARG(migrate_folio_move, mode) << 16;
	return end(r);
}
#endif
#ifdef ID_migrate_folio_move_exit
EXIT(migrate_folio_move)
{
	BEGIN_EXIT(migrate_folio_move);
	u64 dst = ARG(migrate_folio_move, dst);
	r->folio = ARG(migrate_folio_move, src);
	r->arg = dst;
	/* Of the copy: on success the source has been freed by now. */
	set_state(r, dst);
	set_address(r, dst);
	r->aux = (ARG(migrate_folio_move, reason) & 0xffff) | ARG(migrate_folio_move, mode) << 16;
	return end(r);
}
#endif
#ifdef ID_move_to_new_folio_exit
EXIT(move_to_new_folio)
{
	BEGIN_EXIT(move_to_new_folio);
	u64 src = ARG(move_to_new_folio, src);
	set_folio(r, src);
	r->arg = ARG(move_to_new_folio, dst);
	r->aux = order_of(src, r->flags) | ARG(move_to_new_folio, mode) << 16;
	return end(r);
}
#endif
#ifdef ID___folio_migrate_mapping_exit
EXIT(__folio_migrate_mapping)
{
	BEGIN_EXIT(__folio_migrate_mapping);
	set_folio(r, ARG(__folio_migrate_mapping, folio));
	r->arg = ARG(__folio_migrate_mapping, newfolio);
	r->aux = ARG(__folio_migrate_mapping, expected_count);
	return end(r);
}
#endif
#ifdef ID_remove_migration_pte_exit
EXIT(remove_migration_pte)
{
	BEGIN_EXIT(remove_migration_pte);
	u64 folio = ARG(remove_migration_pte, folio);
	r->arg = folio;
	set_state(r, folio);
	r->address = ARG(remove_migration_pte, addr);
	/* struct rmap_walk_arg starts with the folio that the entry was made for. */
	r->folio = ASK(u64, ARG(remove_migration_pte, arg));
	r->result = (u8)ret;
	return end(r);
}
#endif

/* The LRU and swap. */

#ifdef ID_folio_isolate_lru_exit
EXIT(folio_isolate_lru)
{
	BEGIN_EXIT(folio_isolate_lru);
	set_folio(r, ARG(folio_isolate_lru, folio));
	r->result = (u8)ret;
	return end(r);
}
#endif
#ifdef ID_add_to_swap_exit
EXIT(add_to_swap)
{
	BEGIN_EXIT(add_to_swap);
	u64 folio = ARG(add_to_swap, folio);
	set_folio(r, folio);
	r->result = (u8)ret;
	r->arg = READ(u64, folio, folio_swap);
	r->aux = order_of(folio, r->flags);
	return end(r);
}
#endif
#ifdef ID_swap_cache_get_folio_exit
EXIT(swap_cache_get_folio)
{
	BEGIN_EXIT(swap_cache_get_folio);
	r->result = 0;
	r->address = ARG(swap_cache_get_folio, addr);
	r->arg = ARG(swap_cache_get_folio, entry);
	if (ret) {
		r->result = 2;
		r->folio = ret;
		set_state(r, ret);
	}
	return end(r);
}
#endif
#ifdef ID_do_swap_page_enter
ENTER(do_swap_page)
{
	BEGIN_ENTER(do_swap_page);
	u64 vmf = ARG(do_swap_page, vmf), vma = READ(u64, vmf, vm_fault_vma);
	struct note note = { READ(u64, vmf, vm_fault_address), vma };
	u32 tid = r->tid;

	bpf_map_update_elem(MAP(FD_NOTES), &tid, &note, 0);
	r->address = note.address;
	r->arg = READ(u64, vmf, vm_fault_orig_pte);
	r->flags = READ(u64, vma, vm_area_struct_vm_flags);
	r->aux = READ(u32, vmf, vm_fault_flags);
	return end(r);
}
#endif
#ifdef ID_do_swap_page_exit
EXIT(do_swap_page)
{
	BEGIN_EXIT(do_swap_page);
	u64 vmf = ARG(do_swap_page, vmf);
	u32 tid = r->tid;

	bpf_map_delete_elem(MAP(FD_NOTES), &tid);
	r->address = READ(u64, vmf, vm_fault_address);
	r->aux = READ(u32, vmf, vm_fault_flags);
	/* The lock is gone, the page table is not: what has just been put there, unless another thread was quick. */
	r->arg = ASK(u64, READ(u64, vmf, vm_fault_pte));
	return end(r);
}
#endif

/* The series. */

#ifdef ID_migrate_folio_replace_exit
EXIT(migrate_folio_replace)
{
	BEGIN_EXIT(migrate_folio_replace);
	set_folio(r, ARG(migrate_folio_replace, src));
	r->arg = ARG(migrate_folio_replace, dst);
	r->aux = ARG(migrate_folio_replace, mode) << 16;
	return end(r);
}
#endif
#ifdef ID_mpol_vma_misplaced_exit
EXIT(mpol_vma_misplaced)
{
	BEGIN_EXIT(mpol_vma_misplaced);
	u64 folio = ARG(mpol_vma_misplaced, folio);
	r->folio = folio;
	set_state(r, folio);
	r->address = ARG(mpol_vma_misplaced, addr);
	r->arg = ARG(mpol_vma_misplaced, vma);
	return end(r);
}
#endif
#ifdef ID_check_migrate_misplaced_folio_exit
EXIT(check_migrate_misplaced_folio)
{
	BEGIN_EXIT(check_migrate_misplaced_folio);
	u64 folio = ARG(check_migrate_misplaced_folio, folio);
	u64 vmf = ARG(check_migrate_misplaced_folio, vmf);
	r->folio = folio;
	r->arg = ret;
	r->result = !ret ? 0 : ret == folio ? 1 : 2;
	set_state(r, ret);
	r->address = READ(u64, vmf, vm_fault_address);
	r->aux = READ(u32, vmf, vm_fault_flags);
	return end(r);
}
#endif
#ifdef ID_migrate_folio_on_fault_enter
ENTER(migrate_folio_on_fault)
{
	BEGIN_ENTER(migrate_folio_on_fault);
	set_folio(r, ARG(migrate_folio_on_fault, src));
	r->aux = ARG(migrate_folio_on_fault, nid);
	return end(r);
}
#endif
#ifdef ID_migrate_folio_on_fault_exit
EXIT(migrate_folio_on_fault)
{
	BEGIN_EXIT(migrate_folio_on_fault);
	u64 src = ARG(migrate_folio_on_fault, src);
	r->folio = src;
	r->arg = ret;
	r->result = !ret ? 0 : ret == src ? 1 : 2;
	set_state(r, ret);
	set_address(r, ret);
	r->aux = ARG(migrate_folio_on_fault, nid);
	return end(r);
}
#endif
#ifdef ID_unmap_folios_lazy_enter
ENTER(unmap_folios_lazy)
{
	BEGIN_ENTER(unmap_folios_lazy);
	return end(r);
}
#endif
#ifdef ID_unmap_folios_lazy_exit
EXIT(unmap_folios_lazy)
{
	BEGIN_EXIT(unmap_folios_lazy);
	return end(r);
}
#endif

#define FIELD(type, name) (*(type *)((char *)ctx + OFF_mm_migrate_on_fault_##name))
#ifdef ID_mm_migrate_on_fault_point
int mm_migrate_on_fault_point(void *ctx)
{
	struct record *r = begin(ID_mm_migrate_on_fault_point, KIND_POINT);
	u64 frame;

	if (!r)
		return 0;
	r->address = FIELD(u64, addr);
	r->folio = VMEMMAP + FIELD(u64, src_pfn) * PAGE_STRUCT_SIZE;
	frame = FIELD(u64, dst_pfn);
	r->arg = frame ? VMEMMAP + frame * PAGE_STRUCT_SIZE : 0;
	r->flags = FIELD(u32, src_nid) | (u64)FIELD(u32, dst_nid) << 32;
	r->aux = (FIELD(u32, mode) & 0xffff) | (FIELD(u32, origin) & 0xff) << 16 | FIELD(u32, order) << 24;
	r->result = FIELD(u32, result);
	return end(r);
}
#endif
