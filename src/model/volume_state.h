/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_MODEL_VOLUME_STATE_H
#define MALLEE_MODEL_VOLUME_STATE_H

#include <stdbool.h>

/*
 * The life cycles of EBS: volume, attachment and snapshot, each one table, state x event. Users ask, the storage controller
 * and the nodes report what they see.
 */
enum ebs_verdict {
	EBS_MOVES,  /* to *ret_next */
	EBS_STAYS,  /* nothing to do, no error */
	EBS_REFUSES /* a user's request that this state does not allow: IncorrectState, VolumeInUse … (the handler knows which) */
};

enum volume_state {
	VOLUME_CREATING,
	VOLUME_AVAILABLE,
	VOLUME_IN_USE,
	VOLUME_DELETING,
	VOLUME_DELETED, /* its record is about to go */
	VOLUME_ERROR,
	VOLUME_STATE_COUNT
};
enum volume_event {
	VOLUME_ASK_ATTACH,
	VOLUME_ASK_DELETE,
	VOLUME_ASK_MODIFY,
	VOLUME_ASK_SNAPSHOT,
	VOLUME_SEEN_CREATED,
	VOLUME_SEEN_FAILED,   /* it could not be made */
	VOLUME_SEEN_DETACHED, /* its last attachment has ended */
	VOLUME_SEEN_DELETED,
	VOLUME_EVENT_COUNT
};
enum ebs_verdict volume_next(enum volume_state state, enum volume_event event, enum volume_state *ret_next);
const char *volume_state_name(enum volume_state s); /* "in-use" */
enum volume_state volume_state_parse(const char *name); /* VOLUME_STATE_COUNT when NULL or none of ours */

enum attachment_state { ATTACHMENT_ATTACHING, ATTACHMENT_ATTACHED, ATTACHMENT_DETACHING, ATTACHMENT_BUSY, ATTACHMENT_DETACHED, ATTACHMENT_STATE_COUNT };
enum attachment_event {
	ATTACHMENT_ASK_DETACH,
	ATTACHMENT_ASK_FORCE,    /* DetachVolume with Force */
	ATTACHMENT_SEEN_PLUGGED, /* the guest has it (an instance that is stopped: it will have) */
	ATTACHMENT_SEEN_HELD,    /* the guest was asked and does not let go */
	ATTACHMENT_SEEN_GONE,    /* unplugged, or its instance is gone */
	ATTACHMENT_SEEN_FAILED,  /* it could not be plugged */
	ATTACHMENT_EVENT_COUNT
};
enum ebs_verdict attachment_next(enum attachment_state state, enum attachment_event event, enum attachment_state *ret_next);
const char *attachment_state_name(enum attachment_state s);
enum attachment_state attachment_state_parse(const char *name);

enum snapshot_state { SNAPSHOT_PENDING, SNAPSHOT_COMPLETED, SNAPSHOT_ERROR, SNAPSHOT_DELETED, SNAPSHOT_STATE_COUNT };
enum snapshot_event {
	SNAPSHOT_ASK_USE,    /* a volume, image or copy from it */
	SNAPSHOT_ASK_DELETE, /* a pending one, too: its copying ends */
	SNAPSHOT_SEEN_COMPLETED,
	SNAPSHOT_SEEN_FAILED,
	SNAPSHOT_EVENT_COUNT
};
enum ebs_verdict snapshot_next(enum snapshot_state state, enum snapshot_event event, enum snapshot_state *ret_next);
const char *snapshot_state_name(enum snapshot_state s);
enum snapshot_state snapshot_state_parse(const char *name);

#endif
