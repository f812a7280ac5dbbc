package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy/filter"
)

// Watch calls wake whenever somebody changes our tables, this Kernel's own batches aside, until the context ends. What an
// event says is not trusted: it only wakes. Lost events wake as well.
func (k *Kernel) Watch(ctx context.Context, wake func()) error {
	var file *os.File
	err := within(k.namespace, func() (err error) {
		file, err = listen(unix.NFNLGRP_NFTABLES)
		return err
	})
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	defer file.Close()
	own, err := k.send.port()
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	return watch(ctx, file, own, wake)
}

// listen joins a group of netfilter's events (NFNLGRP_*).
func listen(group int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	// The runtime's poller waits, so that the end of the context can wake a read.
	file := os.NewFile(uintptr(fd), "nftables events")
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (group - 1)})
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("join nftables events: %w", err)
	}
	return file, nil
}

func watch(ctx context.Context, file *os.File, own uint32, wake func()) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := file.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			wake()
			continue
		case err != nil:
			return fmt.Errorf("watch nftables: %w", err)
		}
		if concernsUs(buf[:n], own) {
			wake()
		}
	}
}

// concernsUs says whether any event of a datagram is about one of our tables and by somebody else. Every nftables message but
// the generation's names its table in the attribute of type 1, behind four bytes of header.
func concernsUs(data []byte, own uint32) bool {
	concerns := false
	eachMessage(data, func(m message) {
		if m.kind>>8 != unix.NFNL_SUBSYS_NFTABLES || m.kind&0xff == unix.NFT_MSG_NEWGEN || m.sender == own || len(m.body) < 4 {
			return
		}
		concerns = concerns || isOurs(m.body[0], firstText(m.body[4:], unix.NFTA_TABLE_NAME))
	})
	return concerns
}

func isOurs(fam byte, table string) bool {
	return fam == family(filter.Bridge) && table == filter.BridgeTable || fam == family(filter.Inet) && table == filter.HostTable
}

// firstText reads the text attribute of a type.
func firstText(data []byte, kind uint16) string {
	for len(data) >= 4 {
		length := int(binary.NativeEndian.Uint16(data))
		if length < 4 || length > len(data) {
			return ""
		}
		if binary.NativeEndian.Uint16(data[2:])&^uint16(unix.NLA_F_NESTED) == kind && length > 4 {
			return string(data[4 : length-1])
		}
		data = data[min((length+3)&^3, len(data)):]
	}
	return ""
}

// port is the socket's netlink address, which events of its batches carry.
func (s *socket) port() (uint32, error) {
	a, err := unix.Getsockname(s.fd)
	if err != nil {
		return 0, fmt.Errorf("read socket address: %w", err)
	}
	nl, ok := a.(*unix.SockaddrNetlink)
	if !ok {
		return 0, fmt.Errorf("read socket address: %T", a)
	}
	return nl.Pid, nil
}
