package inside

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// groups are what a guest's namespace is watched for.
const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE

// Watch calls changed once when it listens, and then after every change of an interface, an address or a route in the network
// namespace at the path ns, or in the caller's own if ns is empty, until ctx ends or the kernel drops events, which is an error. It says
// nothing of what changed: that is read back. Changes of sysctls are not told by the kernel. The namespace lives at least as long.
func Watch(ctx context.Context, ns string, changed func()) error {
	fd := -1
	err := enter(ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return fmt.Errorf("watch inside: %w", err)
	}
	events := os.NewFile(uintptr(fd), "rtnetlink")
	defer events.Close()
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return fmt.Errorf("watch inside: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = events.Close() })()
	buf := make([]byte, 512) // the rest of a message is not looked at
	for {
		changed()
		if _, err := events.Read(buf); err != nil {
			changed()
			return fmt.Errorf("watch inside: %w", err)
		}
	}
}
