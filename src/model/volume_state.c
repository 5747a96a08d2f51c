/* SPDX-License-Identifier: Apache-2.0 */
#include "model/volume_state.h"

#include <assert.h>
#include <stddef.h>

#include "base/macros.h"
#include "base/text.h"

struct move {
	enum ebs_verdict verdict;
	int next;
};

static enum ebs_verdict look_up(const struct move *m, int *ret_next)
{
	if (m->verdict == EBS_MOVES)
		*ret_next = m->next;
	return m->verdict;
}

static int parse_name(const char *const *names, int count, const char *name)
{
	for (int i = 0; name && i < count; i++) {
		if (str_eq(names[i], name))
			return i;
	}
	return count;
}

#define STAY { EBS_STAYS, 0 }
#define REFUSE { EBS_REFUSES, 0 }

/* ---- volumes ---- */

static const char *const volume_names[] = {
	[VOLUME_CREATING] = "creating", [VOLUME_AVAILABLE] = "available", [VOLUME_IN_USE] = "in-use",
	[VOLUME_DELETING] = "deleting", [VOLUME_DELETED] = "deleted",	  [VOLUME_ERROR] = "error",
};
static_assert(ARRAY_SIZE(volume_names) == VOLUME_STATE_COUNT, "one name a state");

#define TO(s) { EBS_MOVES, VOLUME_##s }
/* A report never brings back a volume that is on its way out. */
/* clang-format off */
static const struct move volume_moves[VOLUME_STATE_COUNT][VOLUME_EVENT_COUNT] = {
/*                     attach      delete        modify  snapshot seen: created   failed       detached       deleted */
[VOLUME_CREATING]  = { REFUSE,     REFUSE,       REFUSE, REFUSE,  TO(AVAILABLE),  TO(ERROR),   STAY,          STAY },
[VOLUME_AVAILABLE] = { TO(IN_USE), TO(DELETING), STAY,   STAY,    STAY,           STAY,        STAY,          STAY },
[VOLUME_IN_USE]    = { REFUSE,     REFUSE,       STAY,   STAY,    STAY,           STAY,        TO(AVAILABLE), STAY },
[VOLUME_DELETING]  = { REFUSE,     STAY,         REFUSE, REFUSE,  STAY,           STAY,        STAY,          TO(DELETED) },
[VOLUME_DELETED]   = { REFUSE,     STAY,         REFUSE, REFUSE,  STAY,           STAY,        STAY,          STAY },
[VOLUME_ERROR]     = { REFUSE,     TO(DELETING), REFUSE, REFUSE,  STAY,           STAY,        STAY,          STAY },
};
/* clang-format on */
#undef TO

enum ebs_verdict volume_next(enum volume_state state, enum volume_event event, enum volume_state *ret_next)
{
	assert((unsigned)state < VOLUME_STATE_COUNT && (unsigned)event < VOLUME_EVENT_COUNT);
	int next = state;
	enum ebs_verdict verdict = look_up(&volume_moves[state][event], &next);

	if (verdict == EBS_MOVES)
		*ret_next = (enum volume_state)next;
	return verdict;
}

const char *volume_state_name(enum volume_state s)
{
	assert((unsigned)s < VOLUME_STATE_COUNT);
	return volume_names[s];
}

enum volume_state volume_state_parse(const char *name)
{
	return (enum volume_state)parse_name(volume_names, VOLUME_STATE_COUNT, name);
}

/* ---- attachments ---- */

static const char *const attachment_names[] = {
	[ATTACHMENT_ATTACHING] = "attaching", [ATTACHMENT_ATTACHED] = "attached", [ATTACHMENT_DETACHING] = "detaching",
	[ATTACHMENT_BUSY] = "busy",	      [ATTACHMENT_DETACHED] = "detached",
};
static_assert(ARRAY_SIZE(attachment_names) == ATTACHMENT_STATE_COUNT, "one name a state");

#define TO(s) { EBS_MOVES, ATTACHMENT_##s }
/* Whoever has asked for a detach never sees "attached" again: a guest that holds on is "busy" until it lets go or is forced. */
/* clang-format off */
static const struct move attachment_moves[ATTACHMENT_STATE_COUNT][ATTACHMENT_EVENT_COUNT] = {
/*                         detach         force          seen: plugged held      gone          failed */
[ATTACHMENT_ATTACHING] = { TO(DETACHING), TO(DETACHING), TO(ATTACHED), STAY,     TO(DETACHED), TO(DETACHED) },
[ATTACHMENT_ATTACHED]  = { TO(DETACHING), TO(DETACHING), STAY,         STAY,     TO(DETACHED), STAY },
[ATTACHMENT_DETACHING] = { STAY,          STAY,          STAY,         TO(BUSY), TO(DETACHED), TO(DETACHED) },
[ATTACHMENT_BUSY]      = { STAY,          TO(DETACHING), STAY,         STAY,     TO(DETACHED), STAY },
[ATTACHMENT_DETACHED]  = { REFUSE,        REFUSE,        STAY,         STAY,     STAY,         STAY },
};
/* clang-format on */
#undef TO

enum ebs_verdict attachment_next(enum attachment_state state, enum attachment_event event, enum attachment_state *ret_next)
{
	assert((unsigned)state < ATTACHMENT_STATE_COUNT && (unsigned)event < ATTACHMENT_EVENT_COUNT);
	int next = state;
	enum ebs_verdict verdict = look_up(&attachment_moves[state][event], &next);

	if (verdict == EBS_MOVES)
		*ret_next = (enum attachment_state)next;
	return verdict;
}

const char *attachment_state_name(enum attachment_state s)
{
	assert((unsigned)s < ATTACHMENT_STATE_COUNT);
	return attachment_names[s];
}

enum attachment_state attachment_state_parse(const char *name)
{
	return (enum attachment_state)parse_name(attachment_names, ATTACHMENT_STATE_COUNT, name);
}

/* ---- snapshots ---- */

static const char *const snapshot_names[] = {
	[SNAPSHOT_PENDING] = "pending", [SNAPSHOT_COMPLETED] = "completed", [SNAPSHOT_ERROR] = "error", [SNAPSHOT_DELETED] = "deleted",
};
static_assert(ARRAY_SIZE(snapshot_names) == SNAPSHOT_STATE_COUNT, "one name a state");

#define TO(s) { EBS_MOVES, SNAPSHOT_##s }
/* clang-format off */
static const struct move snapshot_moves[SNAPSHOT_STATE_COUNT][SNAPSHOT_EVENT_COUNT] = {
/*                       use     delete       seen: completed failed */
[SNAPSHOT_PENDING]   = { REFUSE, TO(DELETED), TO(COMPLETED),  TO(ERROR) },
[SNAPSHOT_COMPLETED] = { STAY,   TO(DELETED), STAY,           STAY },
[SNAPSHOT_ERROR]     = { REFUSE, TO(DELETED), STAY,           STAY },
[SNAPSHOT_DELETED]   = { REFUSE, STAY,        STAY,           STAY },
};
/* clang-format on */
#undef TO

enum ebs_verdict snapshot_next(enum snapshot_state state, enum snapshot_event event, enum snapshot_state *ret_next)
{
	assert((unsigned)state < SNAPSHOT_STATE_COUNT && (unsigned)event < SNAPSHOT_EVENT_COUNT);
	int next = state;
	enum ebs_verdict verdict = look_up(&snapshot_moves[state][event], &next);

	if (verdict == EBS_MOVES)
		*ret_next = (enum snapshot_state)next;
	return verdict;
}

const char *snapshot_state_name(enum snapshot_state s)
{
	assert((unsigned)s < SNAPSHOT_STATE_COUNT);
	return snapshot_names[s];
}

enum snapshot_state snapshot_state_parse(const char *name)
{
	return (enum snapshot_state)parse_name(snapshot_names, SNAPSHOT_STATE_COUNT, name);
}
