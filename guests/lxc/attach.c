/*
 * The short-lived half of Driver.Exec. As in start.c it runs before main, in a process with one thread: liblxc joins the container's
 * namespaces in a fork of it.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lxc/attach_options.h>
#include <lxc/lxccontainer.h>

/* What env(1) says of a command that cannot be run, or is not there; and what it says of itself. */
enum { CANNOT_ATTACH = 125, CANNOT_RUN = 126, NOT_FOUND = 127 };

/* In the container: a session with the client's terminal, if it gave one; it ends with the helper, whatever ends that. */
static int run(void *payload)
{
	char **command = payload;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setsid();
	if (isatty(STDIN_FILENO))
		ioctl(STDIN_FILENO, TIOCSCTTY, 0);
	execvp(command[0], command);
	int status = errno == ENOENT ? NOT_FOUND : CANNOT_RUN;
	fprintf(stderr, "%s: %s\n", command[0], strerror(errno));
	return status;
}

static int attach(const char *dir, const char *name, char *const environment[], char **command)
{
	struct lxc_container *c = lxc_container_new(name, dir);
	lxc_attach_options_t options = LXC_ATTACH_OPTIONS_DEFAULT;
	pid_t pid;
	int status;

	if (!c || !c->is_defined(c)) {
		fprintf(stderr, "bladed: no container %s\n", name);
		return CANNOT_ATTACH;
	}
	options.env_policy = LXC_ATTACH_CLEAR_ENV;
	options.extra_env_vars = (char **)environment;
	options.initial_cwd = (char *)"/";
	if (c->attach(c, run, command, &options, &pid) < 0) {
		fprintf(stderr, "bladed: attach to container %s: it does not run, or refused\n", name);
		return CANNOT_ATTACH;
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return CANNOT_ATTACH;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

__attribute__((constructor)) static void attach_and_exit(int argc, char **argv)
{
	/* program, verb, folder of containers, name, command and its arguments; the environment is the command's */
	if (argc < 5 || strcmp(argv[1], "lxc-attach") != 0)
		return;
	_exit(attach(argv[2], argv[3], environ, argv + 4));
}
