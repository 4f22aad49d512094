/*
 * One program a probe. What each puts into its record is declared in probes/registry.py, for both sides.
 *
 * A record is made in two steps: begin() counts, and takes a slot of this CPU's; the program says what is its own in an
 * event, which the compiler keeps in registers; end() stores that, and hands the slot over. See probes/ring.py.
 */

struct record {
	u64 time, address, folio, arg, flags;
	u32 pid, tid;
	u16 made_by, cpu; /* the probe, | its kind << 8 */
	s32 result, refs;
	u32 aux;
};

struct event {
	u64 address, folio, arg, flags;
	s32 result, refs;
	u32 aux, tid;
	u16 made_by;
	struct record *slot;
};

struct header {
	u64 head, limit, full;
};

struct counters {
	u64 fired, lost;
};

/* What a thread is faulting on, for the functions within that do not know. */
struct note {
	u64 address, vma;
};

enum { KIND_ENTER, KIND_EXIT, KIND_POINT };

INLINE struct record *begin(u32 probe, u8 kind, struct event *r)
{
#ifndef MOF_COUNTS
	char *task = bpf_get_current_task_btf();

	/* Where events are only counted, looking who it is would be a fifth of the cost; the agent does next to none. */
	if (*(u32 *)(task + OFF_task_struct_tgid) == NUMBER(AGENT))
		return 0;
#endif
	u64 cpu = bpf_get_smp_processor_id();
	struct header *ring = (void *)(VALUE(FD_RING) + cpu * NUMBER(STRIDE));
	struct counters *count = (struct counters *)((char *)ring + COUNTS_OFFSET) + probe;

	/* An interrupt of this CPU may come between a load and a store. */
	__sync_fetch_and_add(&count->fired, 1);
#ifndef MOF_COUNTS
	if (ring->head >= ring->limit) {
		if (ring->head >= ring->full) {
			__sync_fetch_and_add(&count->lost, 1);
			return 0;
		}
		/* Half of the slots are taken: once, tell the agent, which may be asleep. */
		ring->limit = ring->full;
		void *bell = bpf_ringbuf_reserve(MAP(FD_BELL), 8, 0);
		if (bell)
			bpf_ringbuf_discard(bell, RB_FORCE_WAKEUP);
	}
	u64 at = __sync_fetch_and_add(&ring->head, sizeof(struct record)) & NUMBER(SPAN_MASK);

	r->slot = (struct record *)((char *)ring + at + HEADER_SIZE);
	r->slot->pid = *(u32 *)(task + OFF_task_struct_tgid);
	r->slot->tid = r->tid = *(u32 *)(task + OFF_task_struct_pid);
	r->slot->cpu = cpu;
	r->slot->time = bpf_ktime_get_ns();
	r->made_by = probe | kind << 8;
#endif
	return r->slot;
}

INLINE int end(struct event *r)
{
	r->slot->address = r->address;
	r->slot->folio = r->folio;
	r->slot->arg = r->arg;
	r->slot->flags = r->flags;
	r->slot->result = r->result;
	r->slot->refs = r->refs;
	r->slot->aux = r->aux;
	asm volatile("" ::: "memory");
	r->slot->made_by = r->made_by;
	return 0;
}

INLINE u64 noted_address(u32 tid)
{
#ifdef MOF_STEPS
	struct note *note = bpf_map_lookup_elem(MAP(FD_NOTES), &tid);

	return note ? note->address : 0;
#else
	return 0;
#endif
}

INLINE void leave_fault(struct event *r, u64 vmf)
{
#ifdef MOF_STEPS
	u32 tid = r->tid;

	bpf_map_delete_elem(MAP(FD_NOTES), &tid);
	r->aux = READ(u32, vmf, vm_fault_flags);
#endif
}

/*
 * The user address that a folio is at. Private anonymous folios have it in their index, unless the area was moved
 * by mremap(). A folio without a mapping has just been read from swap, or is about to be used: then it is what
 * this thread is faulting on, if anything. A file's folio may be anywhere: 0.
 */
INLINE void set_address(struct event *r, u64 folio)
{
	/* Through the record: reading it back, the verifier takes it for a number, which may be masked. */
	*(volatile u64 *)&r->slot->address = READ(u64, folio, folio_mapping);
	u64 mapping = *(volatile u64 *)&r->slot->address;

	if ((mapping & 3) == 1)
		r->address = READ(u64, folio, folio_index) << 12;
	else
		r->address = mapping ? 0 : noted_address(r->tid);
}

INLINE void set_state(struct event *r, u64 folio)
{
	r->flags = READ(u64, folio, folio_flags);
#ifdef MOF_STEPS
	r->refs = READ(s32, folio, folio__refcount);
#endif
}

INLINE void set_folio(struct event *r, u64 folio)
{
	r->folio = folio;
	set_state(r, folio);
	set_address(r, folio);
}

INLINE u32 order_of(u64 folio, u64 flags)
{
	return flags & (1ULL << PG_HEAD) ? READ(u64, folio, folio__flags_1) & 0xff : 0;
}

/* How many page table entries map the folio is the result; its order goes beside what aux is. */
INLINE void set_mappings(struct event *r, u64 folio, u32 aux)
{
	r->result = 1 + READ(s32, folio, folio__mapcount);
	r->aux = aux;
	if (r->flags & (1ULL << PG_HEAD)) {
		r->result = 1 + READ(s32, folio, folio__large_mapcount);
		r->aux |= order_of(folio, r->flags) << 24;
	}
}

/*
 * ENTER(), EXIT() and POINT() open the body of a program: a[] are the arguments of the function, and behind them, in
 * ret, what it returned. A kretprobe knows the return value alone, so a kprobe at the entry keeps the arguments for it.
 */
#define ARG(function, param) (A_##function##_##param < 0 ? 0 : a[A_##function##_##param & MOST_ARGS])
#define OPEN(name) INLINE int body_##name(u64 *a); int name(u64 *ctx) { return body_##name(ctx); } INLINE int body_##name(u64 *a)
#define POINT(function) OPEN(function##_point)

#ifndef MOF_KPROBE
#define MOST_ARGS 15
#define ENTER(function) OPEN(function##_enter)
#define EXIT(function) OPEN(function##_exit)
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
	INLINE int body_##function##_enter(u64 *a);                                                                   \
	int function##_enter(struct pt_regs *ctx)                                                                     \
	{                                                                                                             \
		struct stash s;                                                                                       \
		stash_from(&s, ctx);                                                                                  \
		return body_##function##_enter(s.a);                                                                  \
	}                                                                                                             \
	INLINE int body_##function##_enter(u64 *a)
#define EXIT(function)                                                                                                \
	INLINE int body_##function##_exit(u64 *a);                                                                    \
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
		u64 *a = kept ? kept->a : none.a;                                                                     \
		a[N_##function & MOST_ARGS] = ctx->ax;                                                                \
		body_##function##_exit(a);                                                                            \
		bpf_map_delete_elem(MAP(FD_STASH), &key);                                                             \
		return 0;                                                                                             \
	}                                                                                                             \
	INLINE int body_##function##_exit(u64 *a)
#endif

#define BEGIN(function, KIND, kind)                                                                                   \
	struct event event = { .refs = -1 }, *r = &event;                                                             \
	if (!begin(ID_##function##_##kind, KIND, r))                                                                  \
	return 0
#define BEGIN_ENTER(function) BEGIN(function, KIND_ENTER, enter)
#define BEGIN_EXIT(function) BEGIN(function, KIND_EXIT, exit); u64 ret = a[N_##function & MOST_ARGS]; r->result = ret
#define BEGIN_POINT(function) BEGIN(function, KIND_POINT, point)

/* System calls: the one argument is the user's registers, whatever its name. */

#define REG(name) READ(u64, regs, pt_regs_##name)

INLINE int put_mbind(struct event *r, u64 regs)
{
	r->address = REG(di);
	r->arg = REG(si);
	r->aux = (REG(dx) & 0xffff) | REG(r9) << 16;
	r->flags = USER(u64, REG(r10));
	return end(r);
}

INLINE int put_move_pages(struct event *r, u64 regs)
{
	u64 nodes = REG(r10);

	r->address = USER(u64, REG(dx));
	r->arg = REG(si);
	r->flags = REG(di);
	r->aux = (nodes ? USER(u32, nodes) & 0xffff : 0xffff) | REG(r9) << 16;
	return end(r);
}

INLINE int put_migrate_pages(struct event *r, u64 regs)
{
	r->aux = REG(di);
	r->flags = USER(u64, REG(dx));
	r->arg = USER(u64, REG(r10));
	return end(r);
}

#ifdef ID___x64_sys_mbind_enter
ENTER(__x64_sys_mbind) { BEGIN_ENTER(__x64_sys_mbind); return put_mbind(r, a[0]); }
#endif
#ifdef ID___x64_sys_mbind_exit
EXIT(__x64_sys_mbind) { BEGIN_EXIT(__x64_sys_mbind); return put_mbind(r, a[0]); }
#endif
#ifdef ID___x64_sys_move_pages_enter
ENTER(__x64_sys_move_pages) { BEGIN_ENTER(__x64_sys_move_pages); return put_move_pages(r, a[0]); }
#endif
#ifdef ID___x64_sys_move_pages_exit
EXIT(__x64_sys_move_pages) { BEGIN_EXIT(__x64_sys_move_pages); return put_move_pages(r, a[0]); }
#endif
#ifdef ID___x64_sys_migrate_pages_enter
ENTER(__x64_sys_migrate_pages) { BEGIN_ENTER(__x64_sys_migrate_pages); return put_migrate_pages(r, a[0]); }
#endif
#ifdef ID___x64_sys_migrate_pages_exit
EXIT(__x64_sys_migrate_pages) { BEGIN_EXIT(__x64_sys_migrate_pages); return put_migrate_pages(r, a[0]); }
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

INLINE int put_do_mbind(struct event *r, u64 *a)
{
	r->address = ARG(do_mbind, start);
	r->arg = ARG(do_mbind, len);
	r->aux = (ARG(do_mbind, mode) & 0xffff) | ARG(do_mbind, flags) << 16;
	r->flags = ASK(u64, ARG(do_mbind, nmask));
	return end(r);
}

#ifdef ID_do_mbind_enter
ENTER(do_mbind) { BEGIN_ENTER(do_mbind); return put_do_mbind(r, a); }
#endif
#ifdef ID_do_mbind_exit
EXIT(do_mbind) { BEGIN_EXIT(do_mbind); return put_do_mbind(r, a); }
#endif

/* Migration: unmap, copy, map again. */

INLINE int put_list(struct event *r, u64 *a)
{
	r->arg = ARG(migrate_pages, private);
	r->aux = (ARG(migrate_pages, reason) & 0xffff) | ARG(migrate_pages, mode) << 16;
	return end(r);
}

#ifdef ID_migrate_pages_enter
ENTER(migrate_pages) { BEGIN_ENTER(migrate_pages); return put_list(r, a); }
#endif
#ifdef ID_migrate_pages_exit
EXIT(migrate_pages) { BEGIN_EXIT(migrate_pages); return put_list(r, a); }
#endif
#ifdef ID_try_to_migrate_exit
EXIT(try_to_migrate)
{
	BEGIN_EXIT(try_to_migrate);
	u64 folio = ARG(try_to_migrate, folio);
	set_folio(r, folio);
	set_mappings(r, folio, ARG(try_to_migrate, flags));
	return end(r);
}
#endif
#ifdef ID_try_to_unmap_exit
EXIT(try_to_unmap)
{
	BEGIN_EXIT(try_to_unmap);
	u64 folio = ARG(try_to_unmap, folio);
	set_folio(r, folio);
	set_mappings(r, folio, ARG(try_to_unmap, flags));
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
	u64 src = ARG(migrate_folio_move, src), dst = ARG(migrate_folio_move, dst);
	r->folio = src;
	r->arg = dst;
	/* Of the copy: on success the source has been freed by now. */
	set_state(r, dst);
	set_address(r, ret ? src : dst);
	r->aux = (ARG(migrate_folio_move, reason) & 0xff) | order_of(dst, r->flags) << 8 |
		 ARG(migrate_folio_move, mode) << 16;
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
	leave_fault(r, vmf);
	r->address = READ(u64, vmf, vm_fault_address);
	/* The lock is gone, the page table is not: what has just been put there, unless another thread was quick. */
	r->arg = READ(u64, READ(u64, vmf, vm_fault_pte), pte_t_pte);
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
ENTER(unmap_folios_lazy) { BEGIN_ENTER(unmap_folios_lazy); return end(r); }
#endif
#ifdef ID_unmap_folios_lazy_exit
EXIT(unmap_folios_lazy) { BEGIN_EXIT(unmap_folios_lazy); return end(r); }
#endif
#if defined(ID_unmap_range_lazy_enter) || defined(ID_unmap_range_lazy_exit)
INLINE int put_range(struct event *r, u64 *a)
{
	r->address = ARG(unmap_range_lazy, start);
	r->arg = ARG(unmap_range_lazy, end);
	return end(r);
}
#endif
#ifdef ID_unmap_range_lazy_enter
ENTER(unmap_range_lazy) { BEGIN_ENTER(unmap_range_lazy); return put_range(r, a); }
#endif
#ifdef ID_unmap_range_lazy_exit
EXIT(unmap_range_lazy) { BEGIN_EXIT(unmap_range_lazy); return put_range(r, a); }
#endif

#ifdef ID_mm_migrate_on_fault_point
POINT(mm_migrate_on_fault)
{
	BEGIN_POINT(mm_migrate_on_fault);
	u64 frame = ARG(mm_migrate_on_fault, dst_pfn);
	r->address = ARG(mm_migrate_on_fault, addr);
	r->folio = VMEMMAP + ARG(mm_migrate_on_fault, src_pfn) * PAGE_STRUCT_SIZE;
	r->arg = frame ? VMEMMAP + frame * PAGE_STRUCT_SIZE : 0;
	r->flags = ARG(mm_migrate_on_fault, dst_nid) << 32;
	u64 how = ARG(mm_migrate_on_fault, how);
	r->aux = READ(u16, how, mpol_decision_mode) | READ(u32, how, mpol_decision_origin) << 16 |
		 ARG(mm_migrate_on_fault, order) << 24;
	r->result = ARG(mm_migrate_on_fault, result);
	return end(r);
}
#endif
