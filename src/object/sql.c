/* SPDX-License-Identifier: Apache-2.0 */
#include "object/sql_priv.h"

/* One row of `total` is kept by triggers, so that counting does not read the whole table. Objects
 * are never updated in place: an overwrite deletes and inserts. */
const char sql_schema[] =
    "CREATE TABLE bucket(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,"
    " account TEXT NOT NULL, owner TEXT NOT NULL, created_ms INTEGER NOT NULL);"
    "CREATE INDEX bucket_account ON bucket(account, name);"
    "CREATE TABLE object(bucket INTEGER NOT NULL, key BLOB NOT NULL, blob INTEGER NOT NULL, kind INTEGER NOT NULL,"
    " size INTEGER NOT NULL, etag TEXT NOT NULL, modified_ms INTEGER NOT NULL, part_count INTEGER NOT NULL,"
    " upload TEXT, pairs BLOB, PRIMARY KEY(bucket, key)) WITHOUT ROWID;"
    "CREATE TABLE extent(blob INTEGER NOT NULL, seq INTEGER NOT NULL, file INTEGER NOT NULL, kind INTEGER NOT NULL,"
    " size INTEGER NOT NULL, PRIMARY KEY(blob, seq)) WITHOUT ROWID;"
    "CREATE TABLE inline(file INTEGER PRIMARY KEY, data BLOB NOT NULL);"
    "CREATE TABLE upload(bucket INTEGER NOT NULL, key BLOB NOT NULL, id TEXT NOT NULL, initiated_ms INTEGER NOT NULL,"
    " pairs BLOB, PRIMARY KEY(bucket, key, id)) WITHOUT ROWID;"
    "CREATE TABLE part(upload TEXT NOT NULL, number INTEGER NOT NULL, file INTEGER NOT NULL, kind INTEGER NOT NULL,"
    " size INTEGER NOT NULL, etag TEXT NOT NULL, modified_ms INTEGER NOT NULL, pairs BLOB,"
    " PRIMARY KEY(upload, number)) WITHOUT ROWID;"
    "CREATE TABLE total(objects INTEGER NOT NULL, bytes INTEGER NOT NULL);"
    "INSERT INTO total VALUES(0, 0);"
    "CREATE TRIGGER object_in AFTER INSERT ON object BEGIN"
    " UPDATE total SET objects = objects + 1, bytes = bytes + NEW.size; END;"
    "CREATE TRIGGER object_out AFTER DELETE ON object BEGIN"
    " UPDATE total SET objects = objects - 1, bytes = bytes - OLD.size; END;";

#define OBJECT_COLUMNS "key, size, etag, modified_ms, part_count, pairs, blob, kind, upload"
#define UPLOAD_COLUMNS "key, id, initiated_ms, pairs"
#define PART_COLUMNS "number, size, etag, modified_ms, pairs, file, kind"

const char *const sql_texts[SQL_COUNT] = {
    [SQL_BUCKET_BY_NAME] =
	"SELECT id, name, account, owner, created_ms FROM bucket WHERE name = ?1",
    [SQL_BUCKET_BY_ID] = "SELECT id FROM bucket WHERE id = ?1",
    [SQL_BUCKET_LIST] =
	"SELECT id, name, account, owner, created_ms FROM bucket WHERE account = ?1 ORDER BY name",
    [SQL_BUCKET_COUNT] = "SELECT count(*) FROM bucket WHERE account = ?1",
    [SQL_BUCKET_INSERT] =
	"INSERT INTO bucket(name, account, owner, created_ms) VALUES(?1, ?2, ?3, ?4)",
    [SQL_BUCKET_DELETE] = "DELETE FROM bucket WHERE id = ?1",
    [SQL_BUCKET_ANY_OBJECT] = "SELECT 1 FROM object WHERE bucket = ?1 LIMIT 1",
    [SQL_OBJECT_GET] = "SELECT " OBJECT_COLUMNS " FROM object WHERE bucket = ?1 AND key = ?2",
    [SQL_OBJECT_INSERT] =
	"INSERT INTO object(bucket, key, blob, kind, size, etag, modified_ms, part_count, upload, pairs)"
	" VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    [SQL_OBJECT_DELETE] = "DELETE FROM object WHERE bucket = ?1 AND key = ?2",
    [SQL_OBJECT_FROM] =
	"SELECT " OBJECT_COLUMNS " FROM object WHERE bucket = ?1 AND key >= ?2 ORDER BY key",
    [SQL_OBJECT_BEHIND] =
	"SELECT " OBJECT_COLUMNS " FROM object WHERE bucket = ?1 AND key > ?2 ORDER BY key",
    [SQL_EXTENT_LIST] = "SELECT file, kind, size FROM extent WHERE blob = ?1 ORDER BY seq",
    [SQL_EXTENT_INSERT] =
	"INSERT INTO extent(blob, seq, file, kind, size) VALUES(?1, ?2, ?3, ?4, ?5)",
    [SQL_EXTENT_DELETE] = "DELETE FROM extent WHERE blob = ?1",
    [SQL_INLINE_GET] = "SELECT data FROM inline WHERE file = ?1",
    [SQL_INLINE_INSERT] = "INSERT INTO inline(file, data) VALUES(?1, ?2)",
    [SQL_INLINE_DELETE] = "DELETE FROM inline WHERE file = ?1",
    [SQL_UPLOAD_GET] =
	"SELECT " UPLOAD_COLUMNS " FROM upload WHERE bucket = ?1 AND key = ?2 AND id = ?3",
    [SQL_UPLOAD_INSERT] =
	"INSERT INTO upload(bucket, key, id, initiated_ms, pairs) VALUES(?1, ?2, ?3, ?4, ?5)",
    [SQL_UPLOAD_DELETE] = "DELETE FROM upload WHERE bucket = ?1 AND key = ?2 AND id = ?3",
    [SQL_UPLOAD_COUNT] = "SELECT count(*) FROM upload WHERE bucket = ?1",
    [SQL_UPLOAD_FROM] = "SELECT " UPLOAD_COLUMNS
			" FROM upload WHERE bucket = ?1 AND (key, id) >= (?2, ?3) ORDER BY key, id",
    [SQL_UPLOAD_BEHIND] =
	"SELECT " UPLOAD_COLUMNS
	" FROM upload WHERE bucket = ?1 AND (key, id) > (?2, ?3) ORDER BY key, id",
    [SQL_PART_GET] = "SELECT " PART_COLUMNS " FROM part WHERE upload = ?1 AND number = ?2",
    [SQL_PART_LIST] =
	"SELECT " PART_COLUMNS " FROM part WHERE upload = ?1 AND number > ?2 ORDER BY number",
    [SQL_PART_INSERT] =
	"INSERT INTO part(upload, number, file, kind, size, etag, modified_ms, pairs)"
	" VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    [SQL_PART_DELETE] = "DELETE FROM part WHERE upload = ?1 AND number = ?2",
    [SQL_PART_DELETE_ALL] = "DELETE FROM part WHERE upload = ?1",
    [SQL_ALL_FILES] =
	"SELECT blob FROM object WHERE kind = 2 UNION ALL SELECT file FROM extent WHERE kind = 2"
	" UNION ALL SELECT file FROM part WHERE kind = 2",
    [SQL_STATUS] = "SELECT (SELECT count(*) FROM bucket), objects, bytes FROM total",
    [SQL_EVER_USED] = "SELECT count(*) FROM sqlite_sequence", /* of buckets */
    [SQL_FREE_PAGES] = "PRAGMA freelist_count",
};
