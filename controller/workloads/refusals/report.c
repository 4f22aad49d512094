// SPDX-License-Identifier: GPL-2.0-only
/* What was seen, as the members of an object of JSON. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>

#include "common.h"

static FILE *stream;
static char *text;
static size_t length;
static bool first_step = true, first_key;

void report_begin(void)
{
	stream = open_memstream(&text, &length);
	need("report", stream);
}

const char *report_text(void)
{
	fflush(stream);
	return text;
}

long report_place(void)
{
	return ftell(stream);
}

void report_return(long place)
{
	need("report", !fseek(stream, place, SEEK_SET));
	first_step = !place;
}

void step_begin(const char *name)
{
	fprintf(stream, "%s\"%s\": {", first_step ? "" : ", ", name);
	first_step = false;
	first_key = true;
}

void step_end(void)
{
	fputc('}', stream);
}

void put_raw(const char *key, const char *json)
{
	fprintf(stream, "%s\"%s\": %s", first_key ? "" : ", ", key, json);
	first_key = false;
}

void put_number(const char *key, long value)
{
	char number[32];

	snprintf(number, sizeof(number), "%ld", value);
	put_raw(key, number);
}

void put_numbers(const char *key, const long *values, int count)
{
	put_raw(key, "[");
	for (int n = 0; n < count; n++)
		fprintf(stream, "%s%ld", n ? ", " : "", values[n]);
	fputc(']', stream);
}

void step_number(const char *name, const char *key, long value)
{
	step_begin(name);
	put_number(key, value);
	step_end();
}
