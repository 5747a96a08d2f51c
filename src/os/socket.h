/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OS_SOCKET_H
#define MALLEE_OS_SOCKET_H

/*
 * Takes away the unix socket at path if nobody listens there any more, so that its place can be bound to. 0 also when nothing is
 * there; -EADDRINUSE: somebody listens; -EEXIST: it is something else, which stays.
 */
int socket_remove_stale(const char *path);
/*
 * accept4() without the address. When the process or the host has no descriptor or memory left it waits for 100 ms before it says
 * so: who waits in the queue keeps the listener ready, and its caller would come again at once.
 */
int socket_accept(int listen_fd, int flags);

#endif
