package kvm

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The file is read by another hand here: header, table of counts, table of mappings, each where the one before says.
func TestClone(t *testing.T) {
	for _, size := range []int64{1 << 20, 512 << 20, 513 << 20, 64 << 30} {
		path := filepath.Join(t.TempDir(), "disk.qcow2")
		if err := clone(path, "/images/director-0123456789ab/root.ext4", size); err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		be := binary.BigEndian
		if string(file[:4]) != "QFI\xfb" || be.Uint32(file[4:]) != 3 || be.Uint64(file[24:]) != uint64(size) || be.Uint32(file[20:]) != 16 {
			t.Errorf("header: % x", file[:32])
		}
		at, n := be.Uint64(file[8:]), be.Uint32(file[16:])
		if got := string(file[at : at+uint64(n)]); got != "/images/director-0123456789ab/root.ext4" {
			t.Errorf("backing file %q", got)
		}
		if !bytes.Contains(file[104:at], []byte("\xe2\x79\x2a\xca\x00\x00\x00\x03raw")) {
			t.Error("no format of the backing file: it would be probed")
		}
		entries, table := be.Uint32(file[36:]), be.Uint64(file[40:])
		if covered := int64(entries) * 512 << 20; covered < size || covered-size >= 512<<20 {
			t.Errorf("%d entries map %d bytes, the disk has %d", entries, covered, size)
		}
		if !bytes.Equal(file[table:], make([]byte, len(file)-int(table))) {
			t.Error("a fresh clone maps clusters")
		}
		counts := be.Uint64(file[be.Uint64(file[48:]):])
		for i := range len(file) >> 16 {
			if be.Uint16(file[int(counts)+2*i:]) != 1 {
				t.Errorf("cluster %d is not counted", i)
			}
		}
	}
}

func TestCloneBad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	for _, c := range []struct {
		backing string
		size    int64
	}{{"relative", 1 << 20}, {"/" + strings.Repeat("x", 1100), 1 << 20}, {"/a", 0}, {"/a", 1 << 50}} {
		if err := clone(path, c.backing, c.size); err == nil {
			t.Errorf("%.20s, %d bytes: no error", c.backing, c.size)
		}
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a file was written")
	}
}
