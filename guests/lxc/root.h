#include <stdbool.h>

/* The root file system of a container with ids of its own. */
struct root {
	const char *clone;         /* the container's folder: delta, work, and lower, where the image is mounted */
	unsigned long base;        /* the host's id of its root, of a range. 0: it has the host's ids, and liblxc mounts its root */
	const char *image;         /* what lies below the delta */
	const char *point;         /* where the monitor sees the root: any folder that everybody may pass through */
	const char *volumes;       /* folder of its volumes; empty: it has none */
	const char *volumes_point; /* where the monitor sees them */
	const char *netns;         /* the one network namespace of the host's that it joins */
};

/*
 * mount_root mounts root and volumes at their points, in a mount namespace of its own that the container's monitor keeps. It says on
 * stderr what failed.
 */
bool mount_root(const struct root *root);
