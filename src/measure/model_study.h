/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_MEASURE_MODEL_STUDY_H
#define MALLEE_MEASURE_MODEL_STUDY_H

#include "measure/model.h"

/*
 * The study's machines in the model's terms. Each number that goes in is in one table with where it comes from; each row of
 * the study's tables that is modelled names its path by these. Rows are named as in bench/study.json.
 */

/* Where a number comes from. */
enum model_provenance {
	MODEL_STATED, /* the study says so */
	MODEL_KNOWN,  /* hardware or software of that time is so, by its own documents or source */
	MODEL_READ,   /* read off columns of the tables other than MB/s, for a mechanism that several rows share */
	MODEL_FITTED, /* chosen so that the tables come out */
};

struct model_constant {
	const char *name;
	double value;
	const char *unit;
	enum model_provenance provenance;
	const char *why;
};

struct model_study_row {
	const char *configuration;
	bool write;
	const char *why; /* what the path is taken to be */
};

/* The entries of the two tables; NULL: there is no more. */
const struct model_constant *model_study_constant_at(unsigned i);
const struct model_study_row *model_study_row_at(unsigned i);
const char *model_provenance_name(enum model_provenance p);

/* The disk and the path of the configuration's "dd-write" or "dd-read". -ENOENT: it is not modelled. */
int model_study_path(const char *configuration, bool write, struct model_disk *ret_disk, struct model_path *ret_path);

#endif
