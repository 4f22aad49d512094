// SPDX-License-Identifier: GPL-2.0-only
/* Words, numbers, ranges, lists of nodes and CPUs, policies. The host's script.py reads the same grammar. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common.h"

const char *const policy_words[] = { "default", "preferred", "bind", "interleaved", "noop" };

size_t page_size;

bool split_words(struct command *c, struct outcome *o)
{
	char *rest = c->storage, *word;

	c->count = 0;
	c->next = 1;
	while ((word = strtok_r(rest, " \t", &rest))) {
		if (c->count == MAX_WORDS)
			return wrong(o, "more than %d words", MAX_WORDS);
		c->word[c->count++] = word;
	}
	return true;
}

char *peek(struct command *c)
{
	return c->next < c->count ? c->word[c->next] : NULL;
}

char *take(struct command *c)
{
	return c->next < c->count ? c->word[c->next++] : NULL;
}

bool nothing_left(struct command *c, struct outcome *o)
{
	if (c->next < c->count)
		return wrong(o, "'%s' is not expected here (see: help %s)", c->word[c->next], c->word[0]);
	return true;
}

static int find_among(const char *const *words, int count, const char *word)
{
	size_t length = strlen(word);
	int found = -1;

	for (int i = 0; i < count; i++) {
		if (strncmp(words[i], word, length))
			continue;
		if (!words[i][length])
			return i;
		found = found == -1 ? i : -2;
	}
	return found;
}

int find_word(const char *const *words, int original, int all, const char *word)
{
	int found;

	if (!*word)
		return -1;
	found = find_among(words, original, word);
	return found == -1 ? find_among(words, all, word) : found;
}

bool parse_number(const char *word, bool suffix, uint64_t *value)
{
	unsigned long long n;
	uint64_t unit = 1;
	char *end;
	bool hex = word[0] == '0' && (word[1] == 'x' || word[1] == 'X') && isxdigit((unsigned char)word[2]);

	if (!isdigit((unsigned char)word[0]))
		return false;
	errno = 0;
	n = strtoull(word, &end, hex ? 16 : 10);
	if (errno)
		return false;
	if (suffix && *end) {
		switch (tolower((unsigned char)*end++)) {
		case 'k': unit = 1ULL << 10; break;
		case 'm': unit = 1ULL << 20; break;
		case 'g': unit = 1ULL << 30; break;
		case 'p': unit = page_size; break;
		default: return false;
		}
	}
	return !*end && !__builtin_mul_overflow(n, unit, value);
}

bool parse_size(const char *word, const char *what, struct outcome *o, uint64_t *value)
{
	if (!parse_number(word, true, value))
		return wrong(o, "'%s' is no %s (a number, 0x for hex, with k, m, g or p for pages)", word, what);
	return true;
}

bool parse_seconds(const char *word, double *seconds)
{
	/* strtod takes more than this (inf, nan, 0x1p3, 1e9) and depends on nothing we want. */
	if (!*word || strspn(word, "0123456789.") != strlen(word) || !isdigit((unsigned char)word[0]) ||
	    strchr(word, '.') != strrchr(word, '.'))
		return false;
	*seconds = strtod(word, NULL);
	return *seconds <= 1e6;
}

bool take_range(struct command *c, struct outcome *o, struct range *r)
{
	const char *word = peek(c);

	*r = (struct range){ 0 };
	if (!word || !isdigit((unsigned char)*word))
		return true;
	take(c);
	if (!parse_size(word, "offset", o, &r->offset))
		return false;
	r->given = true;
	word = peek(c);
	if (!word || !(isdigit((unsigned char)*word) || !strcmp(word, "*")))
		return wrong(o, "an offset needs a length after it, or * for all that follows");
	take(c);
	if (!strcmp(word, "*")) {
		r->to_end = true;
		return true;
	}
	if (!parse_size(word, "length", o, &r->length))
		return false;
	return r->length || wrong(o, "a length must be more than 0");
}

bool take_share(struct command *c, struct outcome *o, bool *shared)
{
	static const char *const words[] = { "private", "shared" };
	const char *word = take(c);
	int found;

	if (!word)
		return true;
	found = find_word(words, 2, 2, word);
	if (found < 0)
		return wrong(o, "'%s' is neither private nor shared", word);
	*shared = found == 1;
	return true;
}

bool set_has(const struct set *s, int n)
{
	return s->bits[n / LONG_BITS] >> (n % LONG_BITS) & 1;
}

void set_add(struct set *s, int n)
{
	s->bits[n / LONG_BITS] |= 1UL << (n % LONG_BITS);
}

bool set_empty(const struct set *s)
{
	for (size_t i = 0; i < SET_BITS / LONG_BITS; i++)
		if (s->bits[i])
			return false;
	return true;
}

void set_print(const struct set *s, struct text *t)
{
	const char *comma = "";

	for (int n = 0; n < SET_BITS; n++) {
		int last = n;

		if (!set_has(s, n))
			continue;
		while (last + 1 < SET_BITS && set_has(s, last + 1))
			last++;
		text_add(t, last > n ? "%s%d-%d" : "%s%d", comma, n, last);
		comma = ",";
		n = last;
	}
}

void put_set(struct outcome *o, const char *name, const struct set *s)
{
	const char *comma = "";

	put(o, name, "[");
	for (int n = 0; n < SET_BITS; n++) {
		if (!set_has(s, n))
			continue;
		text_add(&o->result, "%s%d", comma, n);
		comma = ", ";
	}
	text_add(&o->result, "]");
}

/* A number below `limit` at `*at`, which is left behind it. */
static bool list_number(const char **at, int limit, int *value)
{
	char *end;
	unsigned long n;

	if (!isdigit((unsigned char)**at))
		return false;
	errno = 0;
	n = strtoul(*at, &end, 10);
	*at = end;
	*value = (int)n;
	return !errno && n < (unsigned long)limit;
}

bool parse_set(const char *word, const char *what, int limit, struct outcome *o, struct set *s)
{
	const char *at = word;
	int first, last;

	memset(s, 0, sizeof(*s));
	for (;;) {
		if (!list_number(&at, limit, &first))
			break;
		last = first;
		if (*at == '-') {
			at++;
			if (!list_number(&at, limit, &last) || last < first)
				break;
		}
		for (int n = first; n <= last; n++)
			set_add(s, n);
		if (!*at)
			return true;
		if (*at++ != ',')
			break;
	}
	return wrong(o, "'%s' is no list of %s (such as 1 or 0-3 or 0,2; below %d)", word, what, limit);
}

static bool policy_flag(const char *word, struct outcome *o, struct policy *p)
{
	static const char *const words[] = { "shared", "move", "all", "lazy", "strict" };
	static const unsigned int bits[] = { F_SHARED, F_MOVE, F_ALL, F_LAZY, F_STRICT };
	int found = find_word(words, 4, 5, word);

	if (found < 0)
		return wrong(o, "'+%s' is none of +shared +strict +move +all +lazy", word);
	if (bits[found] == F_SHARED && p->flags & F_MOVE)
		return wrong(o, "+shared comes before +move");
	if (bits[found] & (F_ALL | F_LAZY) && !(p->flags & F_MOVE))
		return wrong(o, "+%s comes after +move only", words[found]);
	if (bits[found] == F_ALL && p->flags & F_LAZY)
		return wrong(o, "+all comes before +lazy");
	if (p->flags & bits[found])
		return wrong(o, "+%s is there twice", words[found]);
	p->flags |= bits[found];
	return true;
}

bool parse_policy(const char *word, struct outcome *o, struct policy *p)
{
	char copy[64], *rest = copy, *part;
	int found;

	memset(p, 0, sizeof(*p));
	if ((size_t)snprintf(copy, sizeof(copy), "%s", word) >= sizeof(copy))
		return wrong(o, "'%s' is no policy", word);
	part = strsep(&rest, "+");
	found = find_word(policy_words, 5, 5, part);
	if (found < 0)
		return wrong(o, "'%s' is %s: default, preferred, bind, interleaved, noop", part,
			     found == -1 ? "no policy" : "short for several policies");
	p->mode = (enum policy_mode)found;
	while ((part = strsep(&rest, "+")))
		if (!policy_flag(part, o, p))
			return false;
	return true;
}

bool take_policy_nodes(struct command *c, struct outcome *o, struct policy *p)
{
	const char *word = take(c), *name = policy_words[p->mode];

	if (p->mode == P_DEFAULT || p->mode == P_NOOP)
		return !word || wrong(o, "%s takes no nodes", name);
	if (!word && p->mode != P_PREFERRED)
		return wrong(o, "%s needs nodes, or * for all allowed", name);
	if (!word || !strcmp(word, "*")) {
		p->any_nodes = true;
		return true;
	}
	return parse_set(word, "nodes", MAX_NODES, o, &p->nodes);
}
