// SPDX-License-Identifier: GPL-2.0-only
/*
 * stream: copy, scale, add and triad over three arrays, as in McCalpin's STREAM. An access is one element: the pointers are
 * volatile, so that the compiler neither leaves one out nor takes two together.
 */
#include "common.h"

/* A round takes a to 5/4 of it: a thousand rounds stay far from what a double cannot hold. */
#define FACTOR 0.5

typedef volatile double *array;
typedef const volatile double *source;

static void copy(array to, source from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = from[i];
}

static void scale(array to, source from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = FACTOR * from[i];
}

static void add(array to, source one, source other, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = one[i] + other[i];
}

static void triad(array to, source one, source other, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = one[i] + FACTOR * other[i];
}

/* Of neighbours, and of pages, different: one that is where another belongs is noticed. */
static double first(size_t i)
{
	return 1.0 + (double)(i % 4093);
}

/* The same operations on one element give the same bits, so that equal is what they have to be. */
static bool check(source a, source b, source c, size_t n, unsigned int rounds)
{
	for (size_t i = 0; i < n; i++) {
		double x = first(i), y = 0, z = 0;

		for (unsigned int round = 0; round < rounds; round++) {
			z = x;
			y = FACTOR * z;
			z = x + y;
			x = y + FACTOR * z;
		}
		if (a[i] != x || b[i] != y || c[i] != z) {
			wrong("stream: element %zu is %a, %a, %a, not %a, %a, %a", i, a[i], b[i], c[i], x, y, z);
			return false;
		}
	}
	return true;
}

bool stream(const struct options *o, struct whereabouts *w)
{
	size_t n = o->bytes / sizeof(double);
	double *memory = area(3 * o->bytes, o->node);
	array a = memory, b = memory + n, c = memory + 2 * n;

	for (size_t i = 0; i < n; i++) {
		a[i] = first(i);
		b[i] = 0;
		c[i] = 0;
	}
	begin(o);
	for (unsigned int round = 0; round < o->rounds; round++) {
		copy(c, a, n);
		lap("copy", 2 * n);
		scale(b, c, n);
		lap("scale", 2 * n);
		add(c, a, b, n);
		lap("add", 3 * n);
		triad(a, b, c, n);
		lap("triad", 3 * n);
	}
	end();
	locate(memory, 3 * o->bytes, w);
	return check(a, b, c, n, o->rounds);
}
