/*
 * The short-lived half of Driver.Start. It runs before main, so before Go's runtime has made threads: liblxc forks the container's
 * monitor off the calling process, which is safe, and quick, only from a process that does nothing else.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "root.h"

#include <lxc/lxccontainer.h>

/* The agent may be protected from the kernel's out-of-memory killer; its guests must not be. */
static bool reset_oom_score(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	bool done = write(fd, "0", 1) == 1;
	close(fd);
	return done;
}

static int start(const char *dir, const char *name, const struct root *root, char *const command[])
{
	umask(022);
	if (root->base && !mount_root(root))
		return 1;
	if (!reset_oom_score()) {
		fprintf(stderr, "reset oom score: %s\n", strerror(errno));
		return 1;
	}
	struct lxc_container *c = lxc_container_new(name, dir);
	if (!c) {
		fprintf(stderr, "open container: out of memory or %s cannot be read\n", dir);
		return 1;
	}
	if (!c->is_defined(c)) {
		fprintf(stderr, "open container: no configuration in %s\n", dir);
		return 1;
	}
	if (!c->want_daemonize(c, true) || !c->want_close_all_fds(c, true)) {
		fprintf(stderr, "prepare container: %s\n", c->error_string ? c->error_string : "refused");
		return 1;
	}
	return c->start(c, 0, command) ? 0 : 1;
}

__attribute__((constructor)) static void start_and_exit(int argc, char **argv)
{
	/* program, verb, folder of containers, name, as root.h has it: base to netns, command and its arguments */
	if (argc < 11 || strcmp(argv[1], "lxc-start") != 0)
		return;
	char clone[PATH_MAX];
	if (snprintf(clone, sizeof(clone), "%s/%s", argv[2], argv[3]) >= (int)sizeof(clone))
		_exit(1);
	struct root root = {
		.clone = clone,
		.base = strtoul(argv[4], NULL, 10),
		.image = argv[5],
		.point = argv[6],
		.volumes = argv[7],
		.volumes_point = argv[8],
		.netns = argv[9],
	};
	_exit(start(argv[2], argv[3], &root, argv + 10));
}
