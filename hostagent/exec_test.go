package hostagent

import (
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReceiveFiles(t *testing.T) {
	for _, c := range []struct {
		name  string
		files int
		ok    bool
	}{
		{"three", 3, true},
		{"none", 0, false},
		{"two", 2, false},
		{"four", 4, false},
		{"as many as the kernel takes", 253, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			server, client := socketPair(t)
			before := openFiles(t)
			fds := make([]int, c.files)
			for i := range fds {
				fds[i] = int(os.Stderr.Fd())
			}
			var rights []byte
			if c.files > 0 {
				rights = unix.UnixRights(fds...)
			}
			if _, _, err := client.WriteMsgUnix([]byte{0}, rights, nil); err != nil {
				t.Fatal(err)
			}
			files, err := receiveFiles(server)
			if c.ok != (err == nil) {
				t.Errorf("%v, want ok: %t", err, c.ok)
			}
			if err == nil {
				closeFiles(files[:])
			}
			if after := openFiles(t); after != before {
				t.Errorf("%d files are open after it, %d before", after, before)
			}
		})
	}
	t.Run("hung up", func(t *testing.T) {
		server, client := socketPair(t)
		client.Close()
		if _, err := receiveFiles(server); err == nil || !strings.Contains(err.Error(), "receive files") {
			t.Errorf("error %v", err)
		}
	})
}

func socketPair(t *testing.T) (server, client *net.UnixConn) {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		s.Close()
	})
	return s.(*net.UnixConn), c.(*net.UnixConn)
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
