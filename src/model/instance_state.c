/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stddef.h>

#include "base/macros.h"
#include "base/text.h"
#include "model/instance_state.h"

static const struct {
	const char *name;
	int code;
	enum instance_event seen;
} states[] = {
    [INSTANCE_PENDING] = {"pending", 0, INSTANCE_SEEN_PENDING},
    [INSTANCE_RUNNING] = {"running", 16, INSTANCE_SEEN_RUNNING},
    /* A node that is still stopping a guest has nothing new to tell about one that was running. */
    [INSTANCE_STOPPING] = {"stopping", 64, INSTANCE_SEEN_RUNNING},
    [INSTANCE_STOPPED] = {"stopped", 80, INSTANCE_SEEN_STOPPED},
    [INSTANCE_SHUTTING_DOWN] = {"shutting-down", 32, INSTANCE_SEEN_SHUTTING_DOWN},
    [INSTANCE_TERMINATED] = {"terminated", 48, INSTANCE_SEEN_TERMINATED},
};
static_assert(ARRAY_SIZE(states) == INSTANCE_STATE_COUNT, "one row a state");

struct move {
	enum instance_verdict verdict;
	enum instance_state next;
};

#define TO(s)                                                                                      \
	{                                                                                          \
		INSTANCE_MOVES, INSTANCE_##s                                                       \
	}
#define STAY                                                                                       \
	{                                                                                          \
		INSTANCE_STAYS, 0                                                                  \
	}
#define REFUSE                                                                                     \
	{                                                                                          \
		INSTANCE_REFUSES, 0                                                                \
	}

/*
 * A node's report never brings an instance back that is on its way out, and a report that is older
 * than the wish (a guest still seen running while it is being stopped) changes nothing. A stopped
 * one that is seen running again was down with its host.
 */
/* clang-format off */
static const struct move moves[INSTANCE_STATE_COUNT][INSTANCE_EVENT_COUNT] = {
/*                         start     stop         reboot       terminate            seen: pending  running      stopped      shutting-down      terminated */
[INSTANCE_PENDING]       = {REFUSE,  REFUSE,      REFUSE,      TO(SHUTTING_DOWN),   STAY,          TO(RUNNING), STAY,        TO(SHUTTING_DOWN), TO(TERMINATED)},
[INSTANCE_RUNNING]       = {STAY,    TO(STOPPING), TO(RUNNING), TO(SHUTTING_DOWN),  STAY,          STAY,        TO(STOPPED), TO(SHUTTING_DOWN), TO(TERMINATED)},
[INSTANCE_STOPPING]      = {REFUSE,  STAY,        REFUSE,      TO(SHUTTING_DOWN),   STAY,          STAY,        TO(STOPPED), TO(SHUTTING_DOWN), TO(TERMINATED)},
[INSTANCE_STOPPED]       = {TO(PENDING), STAY,    REFUSE,      TO(SHUTTING_DOWN),   TO(PENDING),   TO(RUNNING), STAY,        TO(SHUTTING_DOWN), TO(TERMINATED)},
[INSTANCE_SHUTTING_DOWN] = {REFUSE,  REFUSE,      REFUSE,      STAY,                STAY,          STAY,        STAY,        STAY,              TO(TERMINATED)},
[INSTANCE_TERMINATED]    = {REFUSE,  REFUSE,      REFUSE,      STAY,                STAY,          STAY,        STAY,        STAY,              STAY},
};
/* clang-format on */

enum instance_verdict instance_next(enum instance_state state, enum instance_event event,
				    enum instance_state *ret_next)
{
	assert((unsigned)state < INSTANCE_STATE_COUNT && (unsigned)event < INSTANCE_EVENT_COUNT);
	const struct move *m = &moves[state][event];

	if (m->verdict == INSTANCE_MOVES)
		*ret_next = m->next;
	return m->verdict;
}

const char *instance_state_name(enum instance_state s)
{
	assert((unsigned)s < INSTANCE_STATE_COUNT);
	return states[s].name;
}

int instance_state_code(enum instance_state s)
{
	assert((unsigned)s < INSTANCE_STATE_COUNT);
	return states[s].code;
}

enum instance_state instance_state_parse(const char *name)
{
	for (size_t i = 0; name && i < ARRAY_SIZE(states); i++)
		if (str_eq(states[i].name, name))
			return (enum instance_state)i;
	return INSTANCE_STATE_COUNT;
}

enum instance_event instance_state_seen(enum instance_state s)
{
	assert((unsigned)s < INSTANCE_STATE_COUNT);
	return states[s].seen;
}

bool instance_state_live(enum instance_state s)
{
	return s != INSTANCE_TERMINATED;
}
