package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// batch is a growing netlink transaction: one buffer, appended to and never copied.
type batch struct {
	buf   []byte
	seq   uint32
	notes []string // what each message does, by sequence number
	last  int      // where the last message starts, to ask it for the acknowledgement
}

// Message types below the nftables subsystem (include/uapi/linux/netfilter/nfnetlink.h, nf_tables.h).
const (
	netlinkNFT   = unix.NFNL_SUBSYS_NFTABLES << 8
	headerLength = unix.SizeofNlMsghdr
)

func newBatch() *batch {
	b := &batch{buf: make([]byte, 0, 4<<10)}
	b.edge(unix.NFNL_MSG_BATCH_BEGIN)
	return b
}

// edge writes the begin or the end of a batch; their resource id names the subsystem.
func (b *batch) edge(kind uint16) {
	start := b.header(kind, unix.NLM_F_REQUEST, unix.AF_UNSPEC, "batch")
	binary.BigEndian.PutUint16(b.buf[start+headerLength+2:], unix.NFNL_SUBSYS_NFTABLES)
	b.close(start)
}

// message opens a message of the nftables subsystem; close ends it.
func (b *batch) message(kind int, flags uint16, family byte, note string) int {
	b.last = len(b.buf)
	return b.header(uint16(netlinkNFT|kind), unix.NLM_F_REQUEST|flags, family, note)
}

func (b *batch) header(kind, flags uint16, family byte, note string) int {
	start := len(b.buf)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, 0)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, kind)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, flags)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, b.seq)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, 0)
	b.buf = append(b.buf, family, unix.NFNETLINK_V0, 0, 0)
	b.seq++
	b.notes = append(b.notes, note)
	return start
}

func (b *batch) close(start int) {
	binary.NativeEndian.PutUint32(b.buf[start:], uint32(len(b.buf)-start))
}

// finish asks the last message for an acknowledgement, ends the batch, and returns its bytes and the sequence number to wait for.
func (b *batch) finish() ([]byte, uint32) {
	at := b.buf[b.last+6:]
	binary.NativeEndian.PutUint16(at, binary.NativeEndian.Uint16(at)|unix.NLM_F_ACK)
	acknowledged := b.seq - 1
	b.edge(unix.NFNL_MSG_BATCH_END)
	return b.buf, acknowledged
}

func (b *batch) empty() bool { return b.seq == 1 }

// open starts an attribute whose length is not known yet; shut ends it and pads.
func (b *batch) open(kind int) int {
	start := len(b.buf)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, 0)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, uint16(kind))
	return start
}

func (b *batch) nest(kind int) int { return b.open(kind | unix.NLA_F_NESTED) }

func (b *batch) shut(start int) {
	binary.NativeEndian.PutUint16(b.buf[start:], uint16(len(b.buf)-start))
	for len(b.buf)%4 != 0 {
		b.buf = append(b.buf, 0)
	}
}

func (b *batch) bytes(kind int, value []byte) {
	at := b.open(kind)
	b.buf = append(b.buf, value...)
	b.shut(at)
}

func (b *batch) text(kind int, value string) {
	at := b.open(kind)
	b.buf = append(append(b.buf, value...), 0)
	b.shut(at)
}

func (b *batch) number(kind int, value uint32) {
	at := b.open(kind)
	b.buf = binary.BigEndian.AppendUint32(b.buf, value)
	b.shut(at)
}

func (b *batch) long(kind int, value uint64) {
	at := b.open(kind)
	b.buf = binary.BigEndian.AppendUint64(b.buf, value)
	b.shut(at)
}
