package inside

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// sysctls reads many settings of the calling thread's network namespace. It keeps the folders net/ipv4, net/ipv6 and the like open: the kernel
// looks for each by name among those of all namespaces (fs/proc/proc_sysctl.c, proc_sys_compare), and that takes longer than all the rest of a
// read. Nothing waits on these files, so the runtime need not know of them either.
type sysctls struct{ folders map[string]int }

func (s *sysctls) close() {
	for _, fd := range s.folders {
		unix.Close(fd)
	}
}

// read returns what a key's file holds, without white space at its ends.
func (s *sysctls) read(key string) (string, error) {
	path := sysctlPath(key)
	cut := len("net/")
	if i := strings.IndexByte(key[cut:], '/'); i > 0 {
		cut += i
	}
	folder, rest := key[:cut], strings.TrimPrefix(key[cut:], "/")
	at, ok := s.folders[folder]
	if !ok {
		var err error
		if at, err = again(func() (int, error) {
			return unix.Open(sysctlPath(folder), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}); err != nil {
			return "", &fs.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
		}
		if s.folders == nil {
			s.folders = map[string]int{}
		}
		s.folders[folder] = at
	}
	fd, err := again(func() (int, error) { return unix.Openat(at, rest, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var buf [4096]byte // a page is the most that one has
	n, err := again(func() (int, error) { return unix.Read(fd, buf[:]) })
	if err != nil {
		return "", &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return strings.TrimSpace(string(buf[:n])), nil
}

// again repeats what a signal cut short.
func again(do func() (int, error)) (int, error) {
	for {
		if n, err := do(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
