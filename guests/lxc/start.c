/*
 * The short-lived half of Driver.Start. It runs before main, so before Go's runtime has made threads: liblxc forks the container's
 * monitor off the calling process, which is safe, and quick, only from a process that does nothing else.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

static int start(const char *dir, const char *name, char *const command[])
{
	umask(022);
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
	/* program, verb, folder of containers, name, command and its arguments */
	if (argc >= 5 && strcmp(argv[1], "lxc-start") == 0)
		_exit(start(argv[2], argv[3], argv + 4));
}
