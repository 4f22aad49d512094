// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a command has to tell. A command's output is gathered first and written by one write(2) at its end: nothing
 * is lost when the next command takes the machine down, and lines of several processes do not mix.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common.h"

static int lock_fd = -1;
static struct text line_buffer;

static void text_room(struct text *t, size_t more)
{
	size_t need = t->used + more + 1;

	if (need <= t->room)
		return;
	while (t->room < need)
		t->room = t->room ? 2 * t->room : 4096;
	t->at = realloc(t->at, t->room);
	if (!t->at) {
		complain(0, "out of memory");
		_exit(1);
	}
}

void text_reset(struct text *t)
{
	text_room(t, 0);
	t->used = 0;
	t->at[0] = '\0';
}

static void text_vadd(struct text *t, const char *format, va_list args)
{
	va_list again;
	int length;

	va_copy(again, args);
	length = vsnprintf(NULL, 0, format, args);
	if (length > 0) {
		text_room(t, (size_t)length);
		vsnprintf(t->at + t->used, (size_t)length + 1, format, again);
		t->used += (size_t)length;
	}
	va_end(again);
}

void text_add(struct text *t, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	text_vadd(t, format, args);
	va_end(args);
}

/* Bytes of `s` that are one UTF-8 character, 0 when they are none: JSON has to be UTF-8, a script need not be. */
static int utf8_length(const unsigned char *s)
{
	int length = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
		   : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;

	for (int i = 1; i < length; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0) ||
	    (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90))
		return 0;
	return length;
}

void text_add_quoted(struct text *t, const char *string)
{
	const unsigned char *s = (const unsigned char *)string;

	text_add(t, "\"");
	while (*s) {
		int length = utf8_length(s);

		if (*s == '"' || *s == '\\')
			text_add(t, "\\%c", *s);
		else if (*s < 0x20 || *s == 0x7f)
			text_add(t, "\\u%04x", *s);
		else if (length == 0)
			text_add(t, "\\ufffd");
		else
			text_add(t, "%.*s", length, (const char *)s);
		s += length ? length : 1;
	}
	text_add(t, "\"");
}

void outcome_reset(struct outcome *o)
{
	o->status = DONE;
	o->err = 0;
	o->start_ns = o->end_ns = o->cpu_ns = 0;
	text_reset(&o->error);
	text_reset(&o->human);
	text_reset(&o->result);
}

bool failed(struct outcome *o, int err, const char *format, ...)
{
	va_list args;

	o->status = FAILED;
	o->err = err;
	text_reset(&o->error);
	va_start(args, format);
	text_vadd(&o->error, format, args);
	va_end(args);
	if (err)
		text_add(&o->error, ": %s", strerror(err));
	return false;
}

bool wrong(struct outcome *o, const char *format, ...)
{
	va_list args;

	o->status = WRONG;
	o->err = EINVAL;
	text_reset(&o->error);
	va_start(args, format);
	text_vadd(&o->error, format, args);
	va_end(args);
	return false;
}

void say(struct outcome *o, const char *format, ...)
{
	va_list args;

	if (json_output)
		return;
	va_start(args, format);
	text_vadd(&o->human, format, args);
	va_end(args);
}

static void put_name(struct outcome *o, const char *name)
{
	if (o->result.used)
		text_add(&o->result, ", ");
	text_add(&o->result, "\"%s\": ", name);
}

void put(struct outcome *o, const char *name, const char *format, ...)
{
	va_list args;

	put_name(o, name);
	va_start(args, format);
	text_vadd(&o->result, format, args);
	va_end(args);
}

void put_string(struct outcome *o, const char *name, const char *value)
{
	put_name(o, name);
	text_add_quoted(&o->result, value);
}

void put_bool(struct outcome *o, const char *name, bool value)
{
	put(o, name, "%s", value ? "true" : "false");
}

static void output_lock(short type)
{
	struct flock whole = { .l_type = type, .l_whence = SEEK_SET };

	/* A record lock belongs to a process and goes with it: a killed child never leaves it behind. */
	if (lock_fd >= 0)
		while (fcntl(lock_fd, F_SETLKW, &whole) < 0 && errno == EINTR)
			;
}

void write_out(const char *at, size_t length)
{
	output_lock(F_WRLCK);
	while (length) {
		ssize_t n = write(STDOUT_FILENO, at, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			/* Nobody reads: going on would leave no evidence. */
			complain(0, "cannot write to standard output");
			_exit(1);
		}
		at += n;
		length -= (size_t)n;
	}
	output_lock(F_UNLCK);
}

void output_start(void)
{
	struct text *t = &line_buffer;

	text_room(t, 1 << 16);
}

void output_shared(void)
{
	if (lock_fd < 0)
		lock_fd = memfd_create("memtoy output lock", MFD_CLOEXEC);
}

void complain(int line, const char *what)
{
	char text[4096];
	int length;

	if (line)
		length = snprintf(text, sizeof(text), "memtoy%s%s: %s:%d: %s\n", *child_path ? " " : "", child_path,
				  script_name, line, what);
	else
		length = snprintf(text, sizeof(text), "memtoy: %s\n", what);
	if (length >= (int)sizeof(text))
		length = sizeof(text) - 1;
	if (write(STDERR_FILENO, text, (size_t)length) < 0)
		return;		/* there is no other place to say it */
}

static void emit_json(const struct command *c, const char *verb, const struct outcome *o)
{
	struct text *t = &line_buffer;

	text_add(t, "{\"line\": %d, \"cmd\": ", c->line);
	text_add_quoted(t, verb);
	text_add(t, ", \"text\": ");
	text_add_quoted(t, c->text);
	text_add(t, ", \"ok\": %s, \"errno\": %d, \"error\": ", o->status == DONE || o->status == QUIT ? "true" : "false",
		 o->err);
	text_add_quoted(t, o->error.at);
	text_add(t, ", \"pid\": %d, \"child\": ", (int)getpid());
	text_add_quoted(t, child_path);
	text_add(t, ", \"start_ns\": %llu, \"end_ns\": %llu, \"cpu_ns\": %llu, \"result\": {%s}}\n",
		 (unsigned long long)o->start_ns, (unsigned long long)o->end_ns, (unsigned long long)o->cpu_ns,
		 o->result.at);
}

/* Text of a child is marked line by line, as it comes between that of others. */
static void emit_human(const struct outcome *o)
{
	const char *at = o->human.at;

	if (!*child_path) {
		text_add(&line_buffer, "%s", at);
		return;
	}
	while (*at) {
		int length = (int)strcspn(at, "\n");

		text_add(&line_buffer, "%s: %.*s\n", child_path, length, at);
		at += length + (at[length] == '\n');
	}
}

void emit(const struct command *c, const char *verb, struct outcome *o)
{
	text_reset(&line_buffer);
	if (json_output)
		emit_json(c, verb, o);
	else
		emit_human(o);
	if (line_buffer.used)
		write_out(line_buffer.at, line_buffer.used);
	if (o->error.used)
		complain(c->line, o->error.at);
}
