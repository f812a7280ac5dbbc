/*
 * The short-lived half of Driver.Console. As in start.c it runs before main, in a process with one thread: liblxc has a loop of its own that
 * copies between the container's console and this process's standard files.
 */

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <lxc/lxccontainer.h>

enum { CONSOLE = 0, NO_ESCAPE = 0, CANNOT_JOIN = 125 };

static int join(const char *dir, const char *name)
{
	struct lxc_container *c = lxc_container_new(name, dir);

	if (!c || !c->is_defined(c))
		return CANNOT_JOIN;
	return c->console(c, CONSOLE, STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, NO_ESCAPE) < 0 ? CANNOT_JOIN : 0;
}

__attribute__((constructor)) static void join_and_exit(int argc, char **argv)
{
	/* program, verb, folder of containers, name */
	if (argc != 4 || strcmp(argv[1], "lxc-console") != 0)
		return;
	_exit(join(argv[2], argv[3]));
}
