/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "os/file.h"
#include "svc/cc/cc_priv.h"
#include "wire/codec.h"

/*
 * Where the nodes were last, one JSON object a line: so that a controller that was started anew
 * asks them at once, and does not refuse launches until the last of them has registered again.
 * Nothing depends on it: a line that cannot be read is skipped, and a node that is not there any
 * more is unreachable.
 */
enum { MAX_BYTES = 1 << 20 };

void node_file_save(struct cc *c)
{
	struct buf b = BUF_INIT;
	int r;

	if (!c->config.nodes_path)
		return;
	pthread_mutex_lock(&c->save_lock);
	pthread_mutex_lock(&c->lock);
	for (const struct node *n = c->nodes; n; n = n->next) {
		struct cluster_register_node_request line = {.node_id = n->id, .url = n->url};

		if (!n->url)
			continue;
		wire_json_encode(&cluster_shape_register_node_request, &line, &b);
		buf_putc(&b, '\n');
	}
	pthread_mutex_unlock(&c->lock);
	r = file_write_atomic(c->config.nodes_path, b.data ? b.data : "", b.len, 0600);
	if (r < 0)
		log_warn("cannot remember where the nodes are", "path=%s err=%s",
			 log_quote(c->config.nodes_path), log_quote(strerror(-r)));
	pthread_mutex_unlock(&c->save_lock);
	buf_done(&b);
}

static void load_line(struct cc *c, const char *text, size_t len)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct cluster_register_node_request *line = NULL;
	struct error e = {0};

	if (wire_json_decode(a, &cluster_shape_register_node_request, text, len, false,
			     (void **)&line, &e) >= 0) {
		pthread_mutex_lock(&c->lock);
		node_register(c, line->node_id, line->url, &e);
		pthread_mutex_unlock(&c->lock);
	}
	if (error_is_set(&e))
		log_warn("a line of the remembered nodes was skipped", "path=%s err=%s",
			 log_quote(c->config.nodes_path), log_quote(e.message));
}

void node_file_load(struct cc *c)
{
	char *text = NULL;
	size_t len = 0;

	if (!c->config.nodes_path || file_read(c->config.nodes_path, MAX_BYTES, &text, &len) < 0)
		return;
	for (const char *p = text; *p;) {
		size_t line = strcspn(p, "\n");

		if (line)
			load_line(c, p, line);
		p += line + (p[line] == '\n');
	}
	free(text);
}
