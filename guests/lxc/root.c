/*
 * The root file system of a container with a user namespace: an overlay of the image, shown with the container's ids by an idmapped mount, and
 * the clone's delta, whose files have these ids on the disk. It is mounted where only the container's monitor sees it, so that it lives as
 * long as the monitor, survives a reboot of the container by itself, and leaves nothing to unmount.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "root.h"

#define RANGE 65536

static bool failed(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	return false;
}

static bool write_map(pid_t pid, const char *file, unsigned long base)
{
	char path[64], map[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	int length = snprintf(map, sizeof(map), "0 %lu %d", base, RANGE);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	bool done = write(fd, map, length) == length;
	close(fd);
	return done;
}

static int wait_for_the_end(void *nothing)
{
	for (;;)
		pause();
}

/* A user namespace with the container's ids, only to say to the kernel how files are shown; -1 and errno if it fails. */
static int ids_of(unsigned long base)
{
	static char stack[16384] __attribute__((aligned(16)));
	char path[64];
	int fd = -1;

	/* It shares our memory: a copy for one system call would cost more than all the rest here. */
	pid_t child = clone(wait_for_the_end, stack + sizeof(stack), CLONE_NEWUSER | CLONE_VM | SIGCHLD, NULL);
	if (child < 0)
		return -1;
	if (write_map(child, "uid_map", base) && write_map(child, "gid_map", base)) {
		snprintf(path, sizeof(path), "/proc/%d/ns/user", child);
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	int why = errno;
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	errno = why;
	return fd;
}

/* Other guests' network namespaces are mounts too. Where what the host unmounts is not unmounted here, they would outlive their guests. */
static bool forget_namespaces(const char *ours)
{
	char line[PATH_MAX + 256], point[PATH_MAX];
	char *others[4096];
	int count = 0;
	FILE *mounts = fopen("/proc/self/mountinfo", "re");

	if (!mounts)
		return false;
	while (fgets(line, sizeof(line), mounts)) {
		/* id, parent, device, root, mount point, options, optional fields (master: it follows the host's), -, type */
		if (strstr(line, " - nsfs ") && !strstr(line, " master:") && sscanf(line, "%*s %*s %*s %*s %4095s", point) == 1 && strcmp(point, ours) != 0 &&
		    count < (int)(sizeof(others) / sizeof(others[0])))
			others[count++] = strdup(point);
	}
	fclose(mounts);
	for (int i = 0; i < count; i++) {
		umount2(others[i], MNT_DETACH); /* one that is gone meanwhile is as wanted */
		free(others[i]);
	}
	return true;
}

/* What is at from, shown at to as the container's. */
static bool show(const char *from, const char *to, int ids, unsigned long long flags)
{
	int tree = open_tree(AT_FDCWD, from, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (tree < 0)
		return failed(from);
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | flags, .userns_fd = ids};
	bool done = mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)) == 0;
	if (!done && errno == EINVAL)
		fprintf(stderr, "%s: its file system cannot show files with other owners: move it, or make the guest privileged\n", from);
	else if (!done || move_mount(tree, "", AT_FDCWD, to, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		done = failed(to);
	close(tree);
	return done;
}

bool mount_root(const struct root *root)
{
	char lower[PATH_MAX], options[3 * PATH_MAX + 64];

	if (snprintf(lower, sizeof(lower), "%s/lower", root->clone) >= (int)sizeof(lower)) {
		errno = ENAMETOOLONG;
		return failed(root->clone);
	}
	int ids = ids_of(root->base);
	if (ids < 0)
		return failed("make user namespace");
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return failed("make mount namespace");
	if (!forget_namespaces(root->netns))
		return failed("read mounts");
	if (!show(root->image, lower, ids, MOUNT_ATTR_RDONLY) || (*root->volumes && !show(root->volumes, root->volumes_point, ids, 0)))
		return false;
	close(ids);
	snprintf(options, sizeof(options), "lowerdir=%s/lower,upperdir=%s/delta,workdir=%s/work", root->clone, root->clone, root->clone);
	/* No devices: a node in an image would be opened with the right of its owner, the container's root. */
	if (mount("overlay", root->point, "overlay", MS_NODEV | MS_NOSUID, options) < 0)
		return failed("mount root");
	return true;
}
