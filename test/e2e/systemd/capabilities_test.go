//go:build lab

package systemd

// capability is what bladed may do, by capabilities(7), with its number (linux/capability.h) and what it is for. Containers of the built-in
// recipes get theirs from the same set: what is not here no container of this blade can have.
var capability = map[string]uint{
	"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_DAC_READ_SEARCH": 2, "CAP_FOWNER": 3, "CAP_FSETID": 4, // clones and volumes with their guests' owners
	"CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SETPCAP": 8, "CAP_SETFCAP": 31, // a container's first process, and its user namespace
	"CAP_NET_BIND_SERVICE": 10, "CAP_NET_RAW": 13, // what a container's services have
	"CAP_NET_ADMIN":  12,                                        // links, filter, addresses, routes
	"CAP_SYS_CHROOT": 18, "CAP_SYS_PTRACE": 19, "CAP_MKNOD": 27, // a container's root and devices; /proc/PID of its processes
	"CAP_SYS_ADMIN": 21,                                              // namespaces, mounts, idmapped file systems
	"CAP_IPC_LOCK":  14, "CAP_IPC_OWNER": 15, "CAP_SYS_RESOURCE": 24, // limits of a container
	"CAP_SYS_BOOT": 22, "CAP_SYS_NICE": 23, "CAP_AUDIT_WRITE": 29, // what a container with an init of its own has
	"CAP_BPF": 39, // the device rules of control groups
}
