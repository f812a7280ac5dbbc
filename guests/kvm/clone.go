package kvm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
)

// The parts of a qcow2 file (QEMU's docs/interop/qcow2.txt, version 3), one cluster each.
const (
	clusterBits = 16
	cluster     = 1 << clusterBits

	refcountTable = 1 * cluster
	refcountBlock = 2 * cluster
	mappingTable  = 3 * cluster
	usedClusters  = 4
)

type qcow2Header struct {
	Magic           uint32
	Version         uint32
	BackingOffset   uint64
	BackingSize     uint32
	ClusterBits     uint32
	Size            uint64
	Crypt           uint32
	L1Size          uint32
	L1Offset        uint64
	RefcountOffset  uint64
	RefcountSize    uint32 // in clusters
	Snapshots       uint32
	SnapshotsOffset uint64
	Incompatible    uint64
	Compatible      uint64
	Autoclear       uint64
	RefcountOrder   uint32 // 4: 16 bits a cluster
	HeaderLength    uint32
}

// clone writes a disk that is wholly its backing file (raw) until the guest writes. It replaces what is at path in one step.
func clone(path, backing string, size int64) error {
	if !filepath.IsAbs(backing) || len(backing) > 1023 {
		return fmt.Errorf("clone disk: backing file %q: not an absolute path of at most 1023 bytes", backing)
	}
	// One entry of the first table maps one cluster of eight-byte entries.
	l1 := (size + cluster*cluster/8 - 1) / (cluster * cluster / 8)
	if size <= 0 || l1 > cluster/8 {
		return fmt.Errorf("clone disk: %d bytes are too many", size)
	}
	h := qcow2Header{
		Magic: 0x514649fb, Version: 3, ClusterBits: clusterBits, Size: uint64(size), L1Size: uint32(l1), L1Offset: mappingTable,
		RefcountOffset: refcountTable, RefcountSize: 1, RefcountOrder: 4, HeaderLength: 104,
	}
	extensions := binary.BigEndian.AppendUint32(nil, 0xe2792aca) // format of the backing file: never probed, a guest could write another one's header
	extensions = binary.BigEndian.AppendUint32(extensions, 3)
	extensions = append(extensions, "raw\x00\x00\x00\x00\x00"...)
	extensions = append(extensions, make([]byte, 8)...) // end of extensions
	h.BackingOffset, h.BackingSize = uint64(104+len(extensions)), uint32(len(backing))

	file := make([]byte, usedClusters*cluster)
	var head bytes.Buffer
	if err := binary.Write(&head, binary.BigEndian, h); err != nil {
		return fmt.Errorf("clone disk: %w", err)
	}
	copy(file, head.Bytes())
	copy(file[104:], extensions)
	copy(file[h.BackingOffset:], backing)
	binary.BigEndian.PutUint64(file[refcountTable:], refcountBlock)
	for i := range usedClusters {
		binary.BigEndian.PutUint16(file[refcountBlock+2*i:], 1)
	}
	if err := os.WriteFile(path+".new", file, 0o600); err != nil {
		return fmt.Errorf("clone disk: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("clone disk: %w", err)
	}
	return nil
}
