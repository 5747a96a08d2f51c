/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OBJECT_SQL_PRIV_H
#define MALLEE_OBJECT_SQL_PRIV_H

#define SQL_SCHEMA_VERSION 1

/* Where the bytes of an object, an extent or a part are. Stored: never renumber. */
enum blob_kind {
	BLOB_EMPTY = 0,	  /* no bytes */
	BLOB_INLINE = 1,  /* table inline, under the same number */
	BLOB_FILE = 2,	  /* a data file of the same number */
	BLOB_EXTENTS = 3, /* objects only: table extent, under the same number */
};

enum sql {
	SQL_BUCKET_BY_NAME,
	SQL_BUCKET_BY_ID,
	SQL_BUCKET_LIST,
	SQL_BUCKET_COUNT,
	SQL_BUCKET_INSERT,
	SQL_BUCKET_DELETE,
	SQL_BUCKET_ANY_OBJECT,
	SQL_OBJECT_GET,
	SQL_OBJECT_INSERT,
	SQL_OBJECT_DELETE,
	SQL_OBJECT_FROM,   /* key >= ? */
	SQL_OBJECT_BEHIND, /* key > ? */
	SQL_EXTENT_LIST,
	SQL_EXTENT_INSERT,
	SQL_EXTENT_DELETE,
	SQL_INLINE_GET,
	SQL_INLINE_INSERT,
	SQL_INLINE_DELETE,
	SQL_UPLOAD_GET,
	SQL_UPLOAD_INSERT,
	SQL_UPLOAD_DELETE,
	SQL_UPLOAD_COUNT,
	SQL_UPLOAD_FROM,   /* (key, id) >= ? */
	SQL_UPLOAD_BEHIND, /* (key, id) > ? */
	SQL_PART_GET,
	SQL_PART_LIST,
	SQL_PART_INSERT,
	SQL_PART_DELETE,
	SQL_PART_DELETE_ALL,
	SQL_ALL_FILES, /* every data file that metadata names */
	SQL_STATUS,
	SQL_EVER_USED,
	SQL_FREE_PAGES,
	SQL_COUNT,
};

/* Creates the tables of SQL_SCHEMA_VERSION in an empty database. */
extern const char sql_schema[];
extern const char *const sql_texts[SQL_COUNT];

#endif
