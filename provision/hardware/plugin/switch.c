// SPDX-License-Identifier: GPL-2.0-only
/* Counting goes on and off, and what was counted is told and forgotten while it is off. */
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "memctl.h"

#define SETTLE_SECONDS 20

unsigned int period;
bool counting;
plugin_id self;
unsigned long switched;
static unsigned long applied;  /* `switched` as of when translated code came to be so */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change_applied = PTHREAD_COND_INITIALIZER;

/* No CPU runs, and nothing that was translated is left. */
static void again(plugin_id id)
{
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
	pthread_mutex_lock(&lock);
	applied = switched;
	pthread_cond_broadcast(&change_applied);
	pthread_mutex_unlock(&lock);
}

/* Everything is translated anew, with our calls in it or without. */
void count(bool on)
{
	bool change, anew;

	pthread_mutex_lock(&lock);
	change = counting != on;
	anew = change && (MEMCTL_API >= 2 || !switched);
	counting = on;
	switched += change;
	if (change && on) {
		period++;
		cold();
		for (unsigned int c = 0; c < cpus; c++) {
			cpu[c].era++;
			cpu[c].busy = false;
		}
	} else if (change) {
		end_rows();
	}
	if (change && !anew)
		applied = switched;
	pthread_cond_broadcast(&change_applied);
	pthread_mutex_unlock(&lock);
	if (anew)
		qemu_plugin_reset(self, again);
}

/* Whether the last change has come into effect; after a while also when it has not. */
bool settled(bool on)
{
	struct timespec until;
	bool done;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += SETTLE_SECONDS;
	pthread_mutex_lock(&lock);
	while ((counting != on || applied != switched) && !pthread_cond_timedwait(&change_applied, &lock, &until))
		;
	done = counting == on && applied == switched;
	pthread_mutex_unlock(&lock);
	return done;
}

/* A mark has come, but what it asks for not yet into effect: that takes no time to speak of. */
void applied_now(void)
{
	bool on;

	pthread_mutex_lock(&lock);
	on = counting;
	pthread_mutex_unlock(&lock);
	settled(on);
}

/* Nothing is counted, nor comes to be until unlock(): a mark waits for it. */
bool lock_while_quiet(void)
{
	pthread_mutex_lock(&lock);
	return !counting && applied == switched;
}

void unlock(void)
{
	pthread_mutex_unlock(&lock);
}

/* What is told of one run has nothing of an earlier one. Only between lock_while_quiet() and unlock(). */
void forget(void)
{
	for (unsigned int c = 0; c < MAX_CPUS; c++) {
		cpu[c].era++;
		memset(cpu[c].kernel, 0, sizeof(cpu[c].kernel));
	}
	forget_tally();
	forget_prices();
	period = 0;
}
