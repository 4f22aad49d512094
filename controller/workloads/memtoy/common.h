/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * memtoy: what its files share.
 *
 * main.c      options, reading the script, running one command after another
 * verbs.c     the commands: names, help texts, the smallest of them
 * parse.c     words, numbers, ranges, lists of nodes and CPUs, policies
 * segments.c  defining and mapping segments
 * show.c      showing them
 * protect.c   locking and protecting them
 * touch.c     touching pages, with and without patterns
 * policy.c    mbind, mpol, migrate
 * where.c     locating pages
 * system.c    numa, cpus, mems
 * children.c  processes that take commands
 * family.c    the commands about them
 * signals.c   waiting for signals, and their names
 * output.c    what a command has to tell, as text or as JSON
 */
#ifndef MEMTOY_COMMON_H
#define MEMTOY_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define VERSION "1.0"

/* ---- output.c: text that grows ---- */

struct text {
	char *at;
	size_t used, room;
};

void text_reset(struct text *t);
void text_add(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Adds a quoted JSON string. */
void text_add_quoted(struct text *t, const char *string);

/* ---- commands ---- */

#define MAX_WORDS 128

struct command {
	int line;		/* of the script, from 1 */
	const char *text;	/* as written, without comment and outer blanks */
	char *storage;		/* the copy that `word` points into */
	int count;
	char *word[MAX_WORDS];	/* word[0] is the command's */
	int next;		/* the first word that no parser has taken yet */
};

enum status { DONE, FAILED, WRONG /* the script's fault: a batch stops */, QUIT };

/* What became of a command. Handlers fill it in; output.c shows it. */
struct outcome {
	enum status status;
	int err;		/* errno of the system call that failed, or 0 */
	uint64_t start_ns, end_ns;
	uint64_t cpu_ns;	/* of the thread, between both; 0 for a command that is not timed */
	struct text error;
	struct text human;
	struct text result;	/* the members of the JSON object, without braces */
};

struct verb {
	const char *name;
	const char *alias_of;	/* NULL, or the name it stands for */
	bool added;		/* not in the original: gives way to it in abbreviations */
	const char *args;
	const char *does;
	void (*run)(struct command *c, struct outcome *o);
};

/* ---- verbs.c ---- */

/* The command that `word` is or abbreviates; NULL (and told) when there is none or there are several. */
const struct verb *find_verb(const char *word, struct outcome *o);
void print_help(struct text *t);

/* ---- main.c ---- */

extern bool json_output, verbose, mark_accesses;
extern const char *script_name;

uint64_t now_ns(void);
/* Around the work itself, so that parsing and printing stay outside of it. */
void timed_begin(struct outcome *o);
void timed_end(struct outcome *o);
/* Run one command line and show what became of it. */
enum status run_line(int line, const char *text);

/* ---- output.c ---- */

void outcome_reset(struct outcome *o);
/* A system call, or what it stands for, failed: `err` may be 0. Always returns false. */
bool failed(struct outcome *o, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The command cannot be understood. Always returns false. */
bool wrong(struct outcome *o, const char *format, ...) __attribute__((format(printf, 2, 3)));
void say(struct outcome *o, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* JSON members of the result. */
void put(struct outcome *o, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
void put_string(struct outcome *o, const char *name, const char *value);
void put_bool(struct outcome *o, const char *name, bool value);
void emit(const struct command *c, const char *verb, struct outcome *o);
void write_out(const char *at, size_t length);
void complain(int line, const char *what);
void output_start(void);
/* From now on several processes write, so each takes a lock around a write. */
void output_shared(void);

/* ---- parse.c ---- */

#define SET_BITS 4096
#define MAX_NODES 1024
#define LONG_BITS (8 * sizeof(unsigned long))

struct set {
	unsigned long bits[SET_BITS / (8 * sizeof(unsigned long))];
};

bool set_has(const struct set *s, int n);
void set_add(struct set *s, int n);
bool set_empty(const struct set *s);
/* "0-3,5" */
void set_print(const struct set *s, struct text *t);
/* "[0,1,2,3,5]" as a JSON member */
void put_set(struct outcome *o, const char *name, const struct set *s);

struct range {
	bool given, to_end;
	uint64_t offset, length;
};

enum policy_mode { P_DEFAULT, P_PREFERRED, P_BIND, P_INTERLEAVED, P_NOOP };
enum { F_SHARED = 1, F_STRICT = 2, F_MOVE = 4, F_ALL = 8, F_LAZY = 16 };

struct policy {
	enum policy_mode mode;
	unsigned int flags;	/* F_... */
	struct set nodes;
	bool any_nodes;		/* `*`, or none given where that has a meaning */
};

extern const char *const policy_words[];
extern size_t page_size;

bool split_words(struct command *c, struct outcome *o);
char *peek(struct command *c);
char *take(struct command *c);
bool nothing_left(struct command *c, struct outcome *o);
/*
 * The index of the word that `word` abbreviates, -1 none, -2 several. The first `original` words are those of the
 * original language: a later addition never makes an abbreviation of theirs ambiguous.
 */
int find_word(const char *const *words, int original, int all, const char *word);
bool parse_number(const char *word, bool suffix, uint64_t *value);
bool parse_size(const char *word, const char *what, struct outcome *o, uint64_t *value);
bool parse_seconds(const char *word, double *seconds);
/* [OFF LEN|*] */
bool take_range(struct command *c, struct outcome *o, struct range *r);
/* [private|shared]; `shared` keeps its value when there is none */
bool take_share(struct command *c, struct outcome *o, bool *shared);
bool parse_set(const char *word, const char *what, int limit, struct outcome *o, struct set *s);
bool parse_policy(const char *word, struct outcome *o, struct policy *p);
/* The nodes after a policy, and whether the policy needs them. */
bool take_policy_nodes(struct command *c, struct outcome *o, struct policy *p);

/* ---- segments.c ---- */

enum kind { ANON, MAPPED_FILE, SHMEM };

struct segment {
	struct segment *next;
	char name[256];
	enum kind kind;
	uint64_t length;	/* of the whole segment */
	uint64_t file_offset;	/* MAPPED_FILE: where it starts in the file */
	size_t page;		/* bytes a page */
	bool shared;		/* unless `map` says otherwise */
	int fd;			/* MAPPED_FILE */
	bool writable;
	int shmid;		/* SHMEM */
	pid_t owner;		/* SHMEM: who removes it at the end */
	char *at;		/* NULL while it is not mapped */
	uint64_t mapped;	/* bytes mapped; offsets count from `at` */
	bool mapped_shared;
};

/* Part of a mapped segment, page-aligned at its start. */
struct span {
	struct segment *seg;
	char *at;
	uint64_t length, pages;
};

extern struct segment *segments;	/* in the order they were defined */
extern const char *const kind_words[];

struct segment *take_segment(struct command *c, struct outcome *o);
/* SEG [OFF LEN] of a segment that is mapped. */
bool take_span(struct command *c, struct outcome *o, struct span *span, struct range *r);
/* `r` within the span's segment. */
bool place_span(struct outcome *o, const struct range *r, struct span *span);
void segments_end(void);

void do_anon(struct command *c, struct outcome *o);
void do_file(struct command *c, struct outcome *o);
void do_shmem(struct command *c, struct outcome *o);
void do_remove(struct command *c, struct outcome *o);
void do_map(struct command *c, struct outcome *o);
void do_unmap(struct command *c, struct outcome *o);

/* ---- show.c ---- */

void do_show(struct command *c, struct outcome *o);

/* ---- protect.c ---- */

void do_lock(struct command *c, struct outcome *o);
void do_unlock(struct command *c, struct outcome *o);
void do_slock(struct command *c, struct outcome *o);
void do_sunlock(struct command *c, struct outcome *o);
void do_mprotect(struct command *c, struct outcome *o);

/* ---- touch.c, policy.c, where.c, system.c, family.c, signals.c, children.c ---- */

void do_touch(struct command *c, struct outcome *o);
void catch_faults(void);

void do_mbind(struct command *c, struct outcome *o);
void do_mpol(struct command *c, struct outcome *o);
void do_migrate(struct command *c, struct outcome *o);
bool allowed_nodes(struct set *s);

void do_where(struct command *c, struct outcome *o);

void do_numa(struct command *c, struct outcome *o);
void do_cpus(struct command *c, struct outcome *o);
void do_mems(struct command *c, struct outcome *o);
void mems_end(void);

void do_child(struct command *c, struct outcome *o);
void do_forward(struct command *c, struct outcome *o);
void do_kick(struct command *c, struct outcome *o);
void do_wait(struct command *c, struct outcome *o);
void do_pause(struct command *c, struct outcome *o);
/* Let the children finish what they were told; the worst of their statuses. */
enum status children_end(void);
void signals_start(void);
/* "" for memtoy itself, "/NAME..." for a child. */
extern char child_path[1024];

#endif
