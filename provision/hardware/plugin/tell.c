// SPDX-License-Identifier: GPL-2.0-only
/* What was counted, in JSON. */
#include <inttypes.h>

#include "memctl.h"

static int shown(unsigned int node)
{
	return node < nodes ? (int)node : -1;
}

static void tell_counts(FILE *to)
{
	const char *comma = "";

	fprintf(to, "\"user\": [");
	for (unsigned int p = 0; p < processes; p++)
		for (unsigned int c = 0; c < cpus; c++)
			for (unsigned int n = 0; n <= MAX_NODES; n++) {
				const struct count *one = &process[p]->of[c][n];

				if (!one->reads && !one->writes)
					continue;
				fprintf(to, "%s[%" PRIu64 ", %u, %d, %" PRIu64 ", %" PRIu64 "]", comma, process[p]->table, c,
					shown(n), one->reads, one->writes);
				comma = ", ";
			}
	comma = "";
	fprintf(to, "], \"kernel\": [");
	for (unsigned int c = 0; c < cpus; c++)
		for (unsigned int n = 0; n <= MAX_NODES; n++) {
			const struct count *one = &cpu[c].kernel[n];

			if (!one->reads && !one->writes)
				continue;
			fprintf(to, "%s[%u, %d, %" PRIu64 ", %" PRIu64 "]", comma, c, shown(n), one->reads, one->writes);
			comma = ", ";
		}
	fprintf(to, "]");
}

void tell_pages(FILE *to)
{
	const char *comma = "";

	fprintf(to, "\"pages\": [");
	for (unsigned int i = 0; i < places; i++)
		for (unsigned int n = 0; pages[i].process && n <= nodes; n++) {
			const struct count *one = &pages[i].of[n];

			if (!one->reads && !one->writes)
				continue;
			fprintf(to, "%s[%" PRIu64 ", %" PRIu64 ", %d, %" PRIu64 ", %" PRIu64 ", %u]", comma,
				pages[i].process->table, pages[i].number << 12, shown(n), one->reads, one->writes,
				pages[i].period);
			comma = ", ";
		}
	fprintf(to, "]");
}

/* Each sample: of the accesses up to its time, since the last one, local and remote ones by range. */
static void tell_series(FILE *to)
{
	fprintf(to, "\"series\": [");
	for (unsigned int p = 0; p < processes; p++) {
		const struct process *one = process[p];

		fprintf(to, "%s{\"table\": %" PRIu64 ", \"range_bits\": %u, \"window\": %u, \"ranges\": [", p ? ", " : "",
			one->table, one->shift, one->window);
		for (unsigned int i = 0; i < one->ranges; i++)
			fprintf(to, "%s%" PRIu64, i ? ", " : "", one->range[i] << one->shift);
		fprintf(to, "], \"samples\": [");
		for (unsigned int r = 0; r < one->rows; r++) {
			const char *comma = "";

			fprintf(to, "%s[%" PRId64 ", [", r ? ", " : "", one->row[r]->ns);
			for (unsigned int i = 0; i < one->ranges; i++) {
				const struct share *of = &one->row[r]->of[i];

				if (!of->local && !of->remote)
					continue;
				fprintf(to, "%s[%u, %" PRIu64 ", %" PRIu64 "]", comma, i, of->local, of->remote);
				comma = ", ";
			}
			fprintf(to, "]]");
		}
		fprintf(to, "]}");
	}
	fprintf(to, "]");
}

static void tell_prices(FILE *to)
{
	const char *problem = clock_problem(), *comma = "";

	if (!priced) {
		fprintf(to, "\"prices\": null");
		return;
	}
	fprintf(to, "\"prices\": {\"problem\": \"%s\", \"stall\": [", problem ? problem : "");
	for (unsigned int c = 0; c < cpus; c++)
		fprintf(to, "%s[%u, %" PRIu64 ", %" PRIu64 "]", c ? ", " : "", c, cpu[c].instructions, cpu[c].stall_ns);
	fprintf(to, "], \"misses\": [");
	for (unsigned int c = 0; c < cpus; c++)
		for (unsigned int n = 0; n < nodes; n++) {
			if (!cpu[c].misses[n])
				continue;
			fprintf(to, "%s[%u, %u, %" PRIu64 "]", comma, c, n, cpu[c].misses[n]);
			comma = ", ";
		}
	fprintf(to, "], \"laps_taken\": %u, \"laps\": [", laps);
	for (unsigned int l = 0; l < laps && lap(l, 0); l++) {
		fprintf(to, "%s[", l ? ", " : "");
		for (unsigned int c = 0; c < cpus; c++)
			fprintf(to, "%s[%" PRIu64 ", %" PRIu64 "]", c ? ", " : "", lap(l, c)->instructions, lap(l, c)->stall_ns);
		fprintf(to, "]");
	}
	fprintf(to, "]}");
}

void tell_all(FILE *to)
{
	fprintf(to, "{\"version\": %d, \"periods\": %u, \"tables\": %s, \"overflow\": %" PRIu64 ", ", MEMCTL_API, period,
		cpu[0].table_register ? "true" : "false", overflow);
	tell_counts(to);
	fprintf(to, ", ");
	tell_series(to);
	fprintf(to, ", ");
	tell_prices(to);
	fprintf(to, "}\n");
}
