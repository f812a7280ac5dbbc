package bridges

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// watchBuffer is the receive buffer of the subscription in bytes: room for the events of some hundred links at once.
const watchBuffer = 4 << 20

// Watch calls wake once when it is listening and then whenever a link comes, goes or changes, until the context ends; it returns the
// context's error then. Events that were lost count as a change. wake must not block for long.
func (k *Kernel) Watch(ctx context.Context, wake func()) error {
	for {
		err := k.watchOnce(ctx, wake)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("watch links: %w", err)
		}
		k.log.LogAttrs(ctx, slog.LevelDebug, "link events were lost, subscribing again", slog.String("subsystem", subsystem))
	}
}

func (k *Kernel) watchOnce(ctx context.Context, wake func()) error {
	ns, closeNS, err := openNamespace(k.namespace)
	if err != nil {
		return err
	}
	socket, err := nl.SubscribeAt(ns, netns.None(), unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	closeNS()
	if err != nil {
		return fmt.Errorf("subscribe in %s: %w", where(k.namespace), err)
	}
	defer socket.Close()
	_ = socket.SetReceiveBufferSize(watchBuffer, true) // without CAP_NET_ADMIN the buffer stays small, and events are lost sooner
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer stop()
	// What happened before the subscription stood is seen by the round that this starts.
	wake()
	for {
		if _, _, err := socket.Receive(); err != nil {
			return err
		}
		wake()
	}
}
