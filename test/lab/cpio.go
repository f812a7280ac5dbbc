package lab

import (
	"fmt"
	"io"
	"path"
	"sort"
	"strings"
)

// archive is a tree of files for an initramfs, by path without a leading slash.
type archive map[string]archiveFile

// archiveFile is a regular file of an archive; its folders are made as needed.
type archiveFile struct {
	mode uint32 // permission bits
	data []byte
}

// File types of the mode field, as in stat(2).
const (
	cpioRegular   = 0o100000
	cpioDirectory = 0o040000
)

// encode writes the archive in the form that the kernel unpacks (newc, Documentation/driver-api/early-userspace/buffer-format.rst),
// padded to 512 bytes so that another archive can follow.
func (a archive) encode(w io.Writer) error {
	out := &cpioWriter{w: w}
	for _, dir := range a.folders() {
		out.entry(dir, cpioDirectory|0o755, nil)
	}
	for _, name := range a.names() {
		out.entry(name, cpioRegular|a[name].mode, a[name].data)
	}
	out.entry("TRAILER!!!", 0, nil)
	out.pad(512)
	return out.err
}

func (a archive) names() []string {
	names := make([]string, 0, len(a))
	for name := range a {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// folders lists every parent of every file, parents first.
func (a archive) folders() []string {
	set := map[string]bool{}
	for name := range a {
		for dir := path.Dir(name); dir != "." && dir != "/"; dir = path.Dir(dir) {
			set[dir] = true
		}
	}
	dirs := make([]string, 0, len(set))
	for dir := range set {
		dirs = append(dirs, dir)
	}
	sort.Strings(dirs)
	return dirs
}

type cpioWriter struct {
	w       io.Writer
	written int
	inode   int
	err     error
}

func (c *cpioWriter) write(b []byte) {
	if c.err == nil {
		_, c.err = c.w.Write(b)
		c.written += len(b)
	}
}

func (c *cpioWriter) pad(to int) {
	if rest := c.written % to; rest != 0 {
		c.write([]byte(strings.Repeat("\x00", to-rest)))
	}
}

func (c *cpioWriter) entry(name string, mode uint32, data []byte) {
	c.inode++
	header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		c.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	c.write([]byte(header + name + "\x00"))
	c.pad(4)
	c.write(data)
	c.pad(4)
}
