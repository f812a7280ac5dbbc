package image

import (
	"bytes"
	"fmt"
)

// archive writes the "newc" cpio format as the kernel reads an initial file system
// (Documentation/driver-api/early-userspace/buffer-format.rst): owners are root, times zero, so the same input gives the same bytes.
type archive struct {
	b     bytes.Buffer
	inode int
}

const (
	modeDir  = 0o040000
	modeChar = 0o020000
	modeFile = 0o100000
)

func (a *archive) dir(name string) { a.entry(name, modeDir|0o755, nil, 0, 0) }

func (a *archive) file(name string, text []byte, perm int) {
	a.entry(name, modeFile|perm, text, 0, 0)
}

// console adds the character device 5:1, which the kernel opens for init before anything is mounted on /dev.
func (a *archive) console(name string) { a.entry(name, modeChar|0o600, nil, 5, 1) }

func (a *archive) entry(name string, mode int, text []byte, major, minor int) {
	a.inode++
	fmt.Fprintf(&a.b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.inode, mode, 0, 0, 1, 0, len(text), 0, 0, major, minor, len(name)+1, 0)
	a.b.WriteString(name)
	a.b.WriteByte(0)
	a.pad()
	a.b.Write(text)
	a.pad()
}

// pad fills up to a multiple of four.
func (a *archive) pad() { a.b.Write(make([]byte, -a.b.Len()&3)) }

// bytes ends the archive.
func (a *archive) bytes() []byte {
	a.entry("TRAILER!!!", 0, nil, 0, 0)
	return a.b.Bytes()
}
