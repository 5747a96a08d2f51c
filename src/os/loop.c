/* SPDX-License-Identifier: Apache-2.0 */
#include "os/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/macros.h"

/*
 * Every source has a descriptor in one epoll set. A source that is removed while a batch of events
 * is being delivered may still be named by a later event of that batch: it is marked dead and freed
 * behind the batch. loop_wake() and loop_stop() set a flag and write to an eventfd, both
 * async-signal-safe.
 */
enum source_kind { SOURCE_FD, SOURCE_TIMER, SOURCE_WAKE, SOURCE_SIGNAL };

struct loop_source {
	struct loop *loop;
	struct loop_source *prev, *next;
	enum source_kind kind;
	bool dead;
	int fd;
	void *ctx;
	union {
		void (*on_fd)(void *ctx, int fd, uint32_t events);
		void (*on_timer)(void *ctx);
	};
};

struct signal_handler {
	void (*fn)(void *ctx, int signo);
	void *ctx;
};

struct loop {
	int epoll_fd, event_fd;
	struct loop_source *sources, *graves;
	bool dispatching;
	atomic_bool stop, wake;
	void (*on_wake)(void *ctx);
	void *wake_ctx;
	struct loop_source *signals; /* made with the first signal */
	sigset_t signal_set;
	struct signal_handler handlers[NSIG];
};

static int source_add(struct loop *l, enum source_kind kind, int fd, uint32_t events,
		      struct loop_source **ret)
{
	struct loop_source *s = calloc(1, sizeof(*s));
	struct epoll_event ev = {.events = events, .data.ptr = s};

	if (!s)
		return -ENOMEM;
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
		int r = -errno;

		free(s);
		return r;
	}
	s->loop = l;
	s->kind = kind;
	s->fd = fd;
	s->next = l->sources;
	if (s->next)
		s->next->prev = s;
	l->sources = s;
	*ret = s;
	return 0;
}

void loop_remove(struct loop_source *s)
{
	struct loop *l;

	if (!s || s->dead)
		return;
	l = s->loop;
	/* The caller may have closed its descriptor already; the kernel then forgot it by itself.
	 */
	epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
	if (s->kind != SOURCE_FD)
		close(s->fd);
	if (s->prev)
		s->prev->next = s->next;
	else
		l->sources = s->next;
	if (s->next)
		s->next->prev = s->prev;
	if (!l->dispatching) {
		free(s);
		return;
	}
	s->dead = true;
	s->next = l->graves;
	l->graves = s;
}

int loop_new(struct loop **ret)
{
	struct loop *l = calloc(1, sizeof(*l));
	struct loop_source *wake;
	int r;

	if (!l)
		return -ENOMEM;
	sigemptyset(&l->signal_set);
	l->event_fd = -1;
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll_fd >= 0)
		l->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = l->event_fd < 0 ? -errno : source_add(l, SOURCE_WAKE, l->event_fd, EPOLLIN, &wake);
	if (r < 0) {
		if (l->event_fd >= 0)
			close(l->event_fd);
		if (l->epoll_fd >= 0)
			close(l->epoll_fd);
		free(l);
		return r;
	}
	*ret = l;
	return 0;
}

static void bury(struct loop *l)
{
	while (l->graves) {
		struct loop_source *next = l->graves->next;

		free(l->graves);
		l->graves = next;
	}
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	while (l->sources)
		loop_remove(l->sources);
	bury(l);
	close(l->epoll_fd);
	free(l);
}

static void deliver_signals(struct loop *l, int fd)
{
	struct signalfd_siginfo info;

	while (read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		struct signal_handler *h = &l->handlers[info.ssi_signo % NSIG];

		if (h->fn)
			h->fn(h->ctx, (int)info.ssi_signo);
	}
}

static void deliver(struct loop_source *s, uint32_t events)
{
	struct loop *l = s->loop;
	uint64_t count;

	switch (s->kind) {
	case SOURCE_FD:
		s->on_fd(s->ctx, s->fd, events);
		break;
	case SOURCE_TIMER:
		if (read(s->fd, &count, sizeof(count)) == (ssize_t)sizeof(count))
			s->on_timer(s->ctx);
		break;
	case SOURCE_WAKE:
		if (read(s->fd, &count, sizeof(count)) < 0)
			return;
		if (atomic_exchange(&l->wake, false) && l->on_wake)
			l->on_wake(l->wake_ctx);
		break;
	case SOURCE_SIGNAL:
		deliver_signals(l, s->fd);
		break;
	}
}

int loop_run(struct loop *l)
{
	while (!atomic_exchange(&l->stop, false)) {
		struct epoll_event events[32];
		int n = epoll_wait(l->epoll_fd, events, ARRAY_SIZE(events), -1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		l->dispatching = true;
		for (int i = 0; i < n; i++) {
			struct loop_source *s = events[i].data.ptr;

			if (!s->dead)
				deliver(s, events[i].events);
		}
		l->dispatching = false;
		bury(l);
	}
	return 0;
}

static void poke(struct loop *l)
{
	int saved = errno;
	uint64_t one = 1;

	/* Only a counter at its limit refuses, and then the loop is awake anyway. */
	if (write(l->event_fd, &one, sizeof(one)) < 0)
		errno = saved;
}

void loop_stop(struct loop *l)
{
	atomic_store(&l->stop, true);
	poke(l);
}

void loop_wake(struct loop *l)
{
	atomic_store(&l->wake, true);
	poke(l);
}

void loop_on_wake(struct loop *l, void (*fn)(void *ctx), void *ctx)
{
	l->on_wake = fn;
	l->wake_ctx = ctx;
}

int loop_add_fd(struct loop *l, int fd, uint32_t epoll_events,
		void (*fn)(void *ctx, int fd, uint32_t events), void *ctx, struct loop_source **ret)
{
	struct loop_source *s;
	int r = source_add(l, SOURCE_FD, fd, epoll_events, &s);

	if (r < 0)
		return r;
	s->on_fd = fn;
	s->ctx = ctx;
	if (ret)
		*ret = s;
	return 0;
}

static struct timespec timespec_ms(int64_t ms)
{
	return (struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
}

int loop_add_timer(struct loop *l, int64_t delay_ms, int64_t period_ms, void (*fn)(void *ctx),
		   void *ctx, struct loop_source **ret)
{
	struct itimerspec when = {.it_value = timespec_ms(MAX_OF(delay_ms, 0)),
				  .it_interval = timespec_ms(MAX_OF(period_ms, 0))};
	struct loop_source *s;
	int fd, r;

	if (delay_ms <= 0)
		when.it_value.tv_nsec = 1; /* all zero would disarm it */
	fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	r = timerfd_settime(fd, 0, &when, NULL) < 0 ? -errno
						    : source_add(l, SOURCE_TIMER, fd, EPOLLIN, &s);
	if (r < 0) {
		close(fd);
		return r;
	}
	s->on_timer = fn;
	s->ctx = ctx;
	if (ret)
		*ret = s;
	return 0;
}

int loop_add_signal(struct loop *l, int signo, void (*fn)(void *ctx, int signo), void *ctx)
{
	sigset_t one;
	int fd, r;

	if (signo <= 0 || signo >= NSIG)
		return -EINVAL;
	sigemptyset(&one);
	sigaddset(&one, signo);
	sigaddset(&l->signal_set, signo);
	l->handlers[signo] = (struct signal_handler){fn, ctx};
	r = pthread_sigmask(SIG_BLOCK, &one, NULL);
	if (r)
		return -r;
	fd = signalfd(l->signals ? l->signals->fd : -1, &l->signal_set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	if (l->signals)
		return 0;
	r = source_add(l, SOURCE_SIGNAL, fd, EPOLLIN, &l->signals);
	if (r < 0)
		close(fd);
	return r;
}
