/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_TOP_SCREEN_H
#define MALLEE_CMD_TOP_SCREEN_H

#include <stdbool.h>

#include "base/buf.h"
#include "gen/node.h"

/* What `mallee top` shows of a node's answer: text of lines that are width columns at most. */
enum top_sort { TOP_BUSIEST, TOP_CPU, TOP_IOPS, TOP_MB_S, TOP_ID };

struct top_view {
	enum top_sort sort;
	int width, height; /* height 0: as many lines as it takes */
	bool bold;	   /* heads and rules stand out, by ANSI's codes */
};

/* "busiest", "cpu", …; -1: none of them. */
int top_sort_parse(const char *name);
/* Sorts r's instances in place. */
void top_print(struct node_get_figures_response *r, const struct top_view *v, struct buf *out);

#endif
