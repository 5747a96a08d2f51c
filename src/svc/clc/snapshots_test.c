/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/text.h"
#include "svc/clc/notice.h"
#include "svc/clc/testing.h"
#include "svc/clc/volumes.h"

static struct buf reply; /* of the last call; freed by main */

static int setup(void **state)
{
	*state = fixture_new();
	return 0;
}

static int teardown(void **state)
{
	fixture_free(*state);
	return 0;
}

static const char *call_as(struct fixture *f, const struct account *as, const char *query)
{
	return fixture_call(f, as, query, &reply);
}

/* A query with one id in it. */
static const char *call(struct fixture *f, const char *before, const char *id, const char *after)
{
	return call_as(f, &f->account, arena_printf(f->arena, "%s%s%s", before, id, after));
}

static const char *element(struct fixture *f, const char *name, size_t n)
{
	return fixture_element(f, reply.data, name, n);
}

static struct account other_account(struct fixture *f)
{
	struct account other;
	struct error e = {0};

	assert_int_equal(account_create(&f->clc, f->arena, "other", &other, &e), 0);
	return other;
}

static void snapshot_is_pending(void **state)
{
	struct fixture *f = *state;
	const char *v = fixture_volume(f, 4);

	assert_string_equal(call(f, "Action=CreateSnapshot&VolumeId=", v,
				 "&Description=first&TagSpecification.1.ResourceType=snapshot&"
				 "TagSpecification.1.Tag.1.Key=a&TagSpecification.1.Tag.1.Value=b"),
			    "");
	const char *s = element(f, "snapshotId", 0);
	assert_string_equal(element(f, "status", 0), "pending");
	assert_string_equal(element(f, "volumeId", 0), v);
	assert_string_equal(element(f, "volumeSize", 0), "4");
	assert_string_equal(element(f, "progress", 0), "");
	assert_string_equal(element(f, "description", 0), "first");
	assert_string_equal(element(f, "key", 0), "a");
	assert_string_equal(call(f, "Action=DescribeSnapshots&SnapshotId.1=", s, ""), "");
	assert_string_equal(element(f, "progress", 0), "0%");
	assert_string_equal(element(f, "value", 0), "b");
	assert_string_equal(element(f, "ownerId", 0), f->account.record->account_id);
	assert_string_equal(call(f,
				 "Action=CopySnapshot&SourceRegion=us-east-1&SourceSnapshotId=", s,
				 ""),
			    "IncorrectState");
}

static void becomes(struct fixture *f, const char *id, enum snapshot_state state)
{
	struct records_snapshot *s = fixture_get_snapshot(f, id);
	struct error e = {0};

	s->state = snapshot_state_name(state);
	assert_int_equal(snapshot_store(&f->clc, s, false, &e), 0);
}

static void few_are_pending_at_once(void **state)
{
	struct fixture *f = *state;
	const char *v = fixture_volume(f, 4), *s[LIMIT_PENDING_SNAPSHOTS_PER_VOLUME];

	for (size_t n = 0; n < ARRAY_SIZE(s); n++) {
		assert_string_equal(call(f, "Action=CreateSnapshot&VolumeId=", v, ""), "");
		s[n] = element(f, "snapshotId", 0);
	}
	assert_string_equal(call(f, "Action=CreateSnapshot&VolumeId=", v, ""), "ConcurrentSnapshotLimitExceeded");
	assert_string_equal(call(f, "Action=CreateSnapshot&Description=", v, arena_printf(f->arena, "&VolumeId=%s", fixture_volume(f, 4))), "");
	static const enum snapshot_state ends[] = {SNAPSHOT_COMPLETED, SNAPSHOT_ERROR};
	for (size_t n = 0; n < ARRAY_SIZE(ends); n++) {
		becomes(f, s[n], ends[n]);
		assert_string_equal(call(f, "Action=CreateSnapshot&VolumeId=", v, ""), "");
		assert_string_equal(call(f, "Action=CreateSnapshot&VolumeId=", v, ""), "ConcurrentSnapshotLimitExceeded");
	}
	assert_string_equal(call(f, "Action=DeleteSnapshot&SnapshotId=", s[2], ""), "");
	assert_string_equal(call(f, "Action=CreateSnapshot&VolumeId=", v, ""), "");
	/* A slow disk has one. */
	struct records_volume *slow = fixture_get_volume(f, fixture_volume(f, 125));
	struct error e = {0};
	slow->volume_type = "st1";
	assert_int_equal(volume_store(&f->clc, slow, false, &e), 0);
	assert_string_equal(call(f, "Action=CreateSnapshot&VolumeId=", slow->volume_id, ""), "");
	assert_string_equal(call(f, "Action=CreateSnapshot&VolumeId=", slow->volume_id, ""), "ConcurrentSnapshotLimitExceeded");
}

static void bad_requests_are_refused(void **state)
{
	struct fixture *f = *state;
	const char *s = fixture_snapshot(f, &f->account, 1);
	static const struct {
		const char *query, *code; /* the query ends where the snapshot's id goes */
	} refusals[] = {
	    {"Action=CreateSnapshot&VolumeId=vol-00000000000000000&Description=",
	     "InvalidVolume.NotFound"},
	    {"Action=CreateSnapshot&VolumeId=", "InvalidVolumeID.Malformed"},
	    {"Action=CreateSnapshot&OutpostArn=", "UnsupportedOperation"},
	    {"Action=CopySnapshot&SourceRegion=eu-west-1&SourceSnapshotId=",
	     "InvalidParameterValue"},
	    {"Action=CopySnapshot&SourceRegion=us-east-1&DestinationRegion=x&SourceSnapshotId=",
	     "InvalidParameterValue"},
	    {"Action=CopySnapshot&SourceRegion=us-east-1&KmsKeyId=mine&Encrypted=true&SourceSnapshotId=",
	     "InvalidParameterValue"},
	    {"Action=CopySnapshot&SourceSnapshotId=", "MissingParameter"},
	    {"Action=DeleteSnapshot&SnapshotId=x", "InvalidSnapshotID.Malformed"},
	    {"Action=DescribeSnapshots&MaxResults=4&NextToken=", "InvalidParameterValue"},
	    {"Action=DescribeSnapshots&MaxResults=5&SnapshotId.1=", "InvalidParameterCombination"},
	    {"Action=DescribeSnapshots&SnapshotId.1=snap-00000000000000000&SnapshotId.2=",
	     "InvalidSnapshot.NotFound"},
	    {"Action=DescribeSnapshotAttribute&Attribute=colour&SnapshotId=",
	     "InvalidParameterValue"},
	    {"Action=ModifySnapshotAttribute&SnapshotId=", "MissingParameter"},
	    {"Action=ModifySnapshotAttribute&UserId.1=123456789012&SnapshotId=", "MissingParameter"},
	    {"Action=ModifySnapshotAttribute&OperationType=add&UserId.1=12&SnapshotId=",
	     "InvalidParameterValue"},
	    {"Action=ModifySnapshotAttribute&CreateVolumePermission.Add.1.Group=some&SnapshotId=",
	     "InvalidParameterValue"},
	    {"Action=ModifySnapshotAttribute&CreateVolumePermission.Add.1.Group=all&"
	     "CreateVolumePermission.Add.1.UserId=123456789012&SnapshotId=",
	     "InvalidParameterCombination"},
	    {"Action=ModifySnapshotAttribute&CreateVolumePermission.Add.1.Group=all&"
	     "CreateVolumePermission.Remove.1.UserId=123456789012&SnapshotId=",
	     "InvalidParameterCombination"},
	    {"Action=ModifySnapshotAttribute&OperationType=remove&"
	     "CreateVolumePermission.Add.1.Group=all&SnapshotId=",
	     "InvalidParameterCombination"},
	    {"Action=ModifySnapshotAttribute&OperationType=add&"
	     "CreateVolumePermission.Remove.1.Group=all&SnapshotId=",
	     "InvalidParameterCombination"},
	    {"Action=ModifySnapshotAttribute&CreateVolumePermission.Add.1.Group=all&"
	     "UserId.1=123456789012&SnapshotId=",
	     "InvalidParameterCombination"},
	    {"Action=ModifySnapshotAttribute&CreateVolumePermission.Add.1.Group=all&"
	     "CreateVolumePermission.Add.2.UserId=123456789012&UserGroup.1=all&SnapshotId=",
	     "InvalidParameterCombination"},
	    {"Action=ResetSnapshotAttribute&Attribute=productCodes&SnapshotId=",
	     "InvalidParameterValue"},
	};

	for (size_t n = 0; n < ARRAY_SIZE(refusals); n++) {
		const char *code = call(f, refusals[n].query, s, "");

		if (!str_eq(code, refusals[n].code))
			print_error("%s: '%s', not %s\n", refusals[n].query, code, refusals[n].code);
		assert_string_equal(code, refusals[n].code);
	}
}

static void sharing(void **state)
{
	struct fixture *f = *state;
	const struct account other = other_account(f);
	const char *s = fixture_snapshot(f, &f->account, 1);
	const char *volume = arena_printf(
	    f->arena, "Action=CreateVolume&AvailabilityZone=%s&SnapshotId=%s", f->clc.zone, s);
	const char *show = arena_printf(f->arena, "Action=DescribeSnapshots&SnapshotId.1=%s", s);
	const char *share = arena_printf(
	    f->arena,
	    "&Attribute=createVolumePermission&CreateVolumePermission.Add.1.UserId=%s",
	    other.record->account_id);

	assert_string_equal(call_as(f, &other, show), "InvalidSnapshot.NotFound");
	assert_string_equal(call_as(f, &other, volume), "InvalidSnapshot.NotFound");
	assert_string_equal(call(f, "Action=ModifySnapshotAttribute&SnapshotId=", s, share), "");
	assert_string_equal(call(f, "Action=CreateTags&Tag.1.Key=a&ResourceId.1=", s, ""), "");
	assert_string_equal(call_as(f, &other, show), "");
	assert_null(element(f, "key", 0)); /* tags are the owner's own */
	assert_string_equal(call_as(f, &other, volume), "");
	assert_string_equal(call_as(f, &other, "Action=DescribeSnapshots&Owner.1=self"), "");
	assert_null(element(f, "snapshotId", 0));
	assert_string_equal(call_as(f, &other, "Action=DescribeSnapshots&RestorableBy.1=self"), "");
	assert_string_equal(element(f, "snapshotId", 0), s);
	assert_string_equal(call_as(f, &other, "Action=DescribeSnapshots&RestorableBy.1=all"), "");
	assert_null(element(f, "snapshotId", 0));
	assert_string_equal(
	    call_as(f, &other, arena_printf(f->arena, "Action=DeleteSnapshot&SnapshotId=%s", s)),
	    "UnauthorizedOperation");
	assert_string_equal(call(f,
				 "Action=DescribeSnapshotAttribute&Attribute="
				 "createVolumePermission&SnapshotId=",
				 s, ""),
			    "");
	assert_string_equal(element(f, "userId", 0), other.record->account_id);
	assert_string_equal(call(f,
				 "Action=ModifySnapshotAttribute&OperationType=add&UserGroup.1=all&"
				 "SnapshotId=",
				 s, ""),
			    "");
	assert_string_equal(call_as(f, &other, "Action=DescribeSnapshots&RestorableBy.1=all"), "");
	assert_string_equal(element(f, "snapshotId", 0), s);
	assert_string_equal(
	    call(f, "Action=ResetSnapshotAttribute&Attribute=createVolumePermission&SnapshotId=", s,
		 ""),
	    "");
	assert_string_equal(call_as(f, &other, show), "InvalidSnapshot.NotFound");
}

/* Some clients say the same in both forms. */
static void sharing_in_both_forms(void **state)
{
	struct fixture *f = *state;
	const char *s = fixture_snapshot(f, &f->account, 1);
	static const struct {
		const char *change;
		const char *group, *user_id; /* who it is shared with then */
	} steps[] = {
	    {"&UserId.1=123456789012&CreateVolumePermission.Add.1.UserId=123456789012", NULL,
	     "123456789012"},
	    {"&UserGroup.1=all&CreateVolumePermission.Add.1.Group=all&OperationType=add", "all",
	     "123456789012"},
	    {"&OperationType=remove&CreateVolumePermission.Remove.1.UserId=123456789012", "all",
	     NULL},
	    {"&UserGroup.1=all&CreateVolumePermission.Remove.1.Group=all", NULL, NULL},
	};

	for (size_t n = 0; n < ARRAY_SIZE(steps); n++) {
		assert_string_equal(
		    call(f, "Action=ModifySnapshotAttribute&SnapshotId=", s, steps[n].change), "");
		assert_string_equal(call(f,
					 "Action=DescribeSnapshotAttribute&Attribute="
					 "createVolumePermission&SnapshotId=",
					 s, ""),
				    "");
		assert_true(str_eq(element(f, "group", 0), steps[n].group));
		assert_true(str_eq(element(f, "userId", 0), steps[n].user_id));
	}
}

static void deleted_is_gone_at_once(void **state)
{
	struct fixture *f = *state;
	const char *s = fixture_snapshot(f, &f->account, 1);

	assert_string_equal(call(f, "Action=CreateTags&Tag.1.Key=a&ResourceId.1=", s, ""), "");
	assert_string_equal(call(f, "Action=DeleteSnapshot&SnapshotId=", s, ""), "");
	assert_string_equal(call(f, "Action=DescribeSnapshots&Owner.1=self", "", ""), "");
	assert_null(element(f, "snapshotId", 0));
	assert_string_equal(call(f, "Action=DescribeTags", "", ""), "");
	assert_null(element(f, "resourceId", 0));
	assert_string_equal(call(f, "Action=CreateTags&Tag.1.Key=a&ResourceId.1=", s, ""),
			    "InvalidSnapshot.NotFound");
	assert_string_equal(call(f, "Action=DeleteSnapshot&SnapshotId=", s, ""),
			    "InvalidSnapshot.NotFound");
	assert_string_equal(fixture_get_snapshot(f, s)->wanted, "deleted");
}

static void images_hold_their_snapshots(void **state)
{
	struct fixture *f = *state;
	const char *image = fixture_ebs_image(f, &f->account, 1);
	const char *s = fixture_get_image(f, image)->block_devices.items[0].snapshot_id;

	assert_string_equal(call(f, "Action=DeleteSnapshot&SnapshotId=", s, ""),
			    "InvalidSnapshot.InUse");
	assert_string_equal(call(f, "Action=DeregisterImage&ImageId=", image, ""), "");
	assert_string_equal(call(f, "Action=DeleteSnapshot&SnapshotId=", s, ""), "");
}

static void pages_and_filters(void **state)
{
	struct fixture *f = *state;
	const char *last = NULL;

	for (int n = 1; n <= 7; n++)
		last = fixture_snapshot(f, &f->account, n);
	assert_string_equal(call(f, "Action=DescribeSnapshots&MaxResults=5", "", ""), "");
	assert_non_null(element(f, "snapshotId", 4));
	assert_null(element(f, "snapshotId", 5));
	const char *token = element(f, "nextToken", 0);
	token = uri_encode(f->arena, token, strlen(token), false);
	assert_string_equal(call(f, "Action=DescribeSnapshots&MaxResults=5&NextToken=", token, ""),
			    "");
	assert_string_equal(element(f, "snapshotId", 1), last);
	assert_null(element(f, "nextToken", 0));
	assert_string_equal(
	    call(f, "Action=DescribeSnapshots&Filter.1.Name=volume-size&Filter.1.Value.1=", "7", ""),
	    "");
	assert_string_equal(element(f, "snapshotId", 0), last);
	assert_null(element(f, "snapshotId", 1));
	/* twice named, once shown */
	assert_string_equal(call(f, "Action=DescribeSnapshots&SnapshotId.1=", last,
				 arena_printf(f->arena, "&SnapshotId.2=%s", last)),
			    "");
	assert_null(element(f, "snapshotId", 1));
}

/* ---- the wait for the point in time ---- */

struct storage_thread {
	struct fixture *f;
	struct arena *arena;
	bool found;
};

/* What the observer's thread does when the storage controller says from when on changes are left
 * out; the handler must hold neither lock nor transaction meanwhile. */
static void *begin_snapshots(void *ctx)
{
	struct storage_thread *t = ctx;
	struct error e = {0};

	for (int tries = 0; !t->found && tries < 500; tries++) {
		struct record_list l;

		usleep(10000);
		if (state_begin(t->f->clc.state, &e) < 0)
			return NULL;
		if (record_list(&t->f->clc, t->arena, KIND_SNAPSHOT, NULL, 0, &l, &e) >= 0 &&
		    l.count) {
			struct records_snapshot *s = l.items[0].value;

			s->begin_time = WIRE_TIME_OF(clock_unix_ms());
			t->found = snapshot_store(&t->f->clc, s, false, &e) >= 0;
		}
		(void)state_commit(t->f->clc.state, &e);
		notice_post(t->f->clc.storage_notice);
	}
	return NULL;
}

static void answer_waits_for_the_point_in_time(void **state)
{
	struct fixture *f = *state;
	struct storage_thread t = {.f = f, .arena = arena_new()};
	const char *v = fixture_volume(f, 1);
	pthread_t thread;

	f->clc.storage_notice = notice_new();
	assert_int_equal(pthread_create(&thread, NULL, begin_snapshots, &t), 0);
	assert_string_equal(call(f, "Action=CreateSnapshot&VolumeId=", v, ""), "");
	assert_true(fixture_get_snapshot(f, element(f, "snapshotId", 0))->begin_time.set);
	pthread_join(thread, NULL);
	assert_true(t.found);
	notice_free(f->clc.storage_notice);
	arena_free(t.arena);
}

static void snapshot_that_is_not_begun_is_given_up(void **state)
{
	struct fixture *f = *state;
	const char *v = fixture_volume(f, 1);
	struct record_list l;
	struct error e = {0};

	f->clc.storage_notice = notice_new();
	notice_close(f->clc.storage_notice); /* the service stops: no wait */
	assert_string_equal(call(f, "Action=CreateSnapshot&VolumeId=", v, ""), "Unavailable");
	assert_int_equal(record_list(&f->clc, f->arena, KIND_SNAPSHOT, NULL, 0, &l, &e), 0);
	assert_int_equal(l.count, 1);
	assert_string_equal(((struct records_snapshot *)l.items[0].value)->wanted, "deleted");
	notice_free(f->clc.storage_notice);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(snapshot_is_pending),
	    TEST(few_are_pending_at_once),
	    TEST(bad_requests_are_refused),
	    TEST(sharing),
	    TEST(sharing_in_both_forms),
	    TEST(deleted_is_gone_at_once),
	    TEST(images_hold_their_snapshots),
	    TEST(pages_and_filters),
	    TEST(answer_waits_for_the_point_in_time),
	    TEST(snapshot_that_is_not_begun_is_given_up),
	};
	int r = cmocka_run_group_tests(tests, NULL, NULL);

	buf_done(&reply);
	return r;
}
