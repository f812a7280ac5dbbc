package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// readArchive lists a cpio archive: name, mode and size of each entry.
func readArchive(t *testing.T, data []byte) []string {
	t.Helper()
	var list []string
	field := func(i int) int {
		n, err := strconv.ParseUint(string(data[6+8*i:14+8*i]), 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		return int(n)
	}
	align := func(n int) int { return (n + 3) &^ 3 }
	for {
		if string(data[:6]) != "070701" {
			t.Fatalf("no header: %q", data[:6])
		}
		mode, size, length := field(1), field(6), field(11)
		name := string(data[110 : 110+length-1])
		if name == "TRAILER!!!" {
			return list
		}
		start := align(110 + length)
		list = append(list, fmt.Sprintf("%s %o %q", name, mode, data[start:start+size]))
		data = data[align(start+size):]
	}
}

func TestArchive(t *testing.T) {
	var b bytes.Buffer
	a := archive{"init": {0o755, []byte("abc")}, "lab/deep/x": {0o600, nil}, "lab/y": {0o644, []byte("12345")}}
	if err := a.encode(&b); err != nil {
		t.Fatal(err)
	}
	want := []string{`lab 40755 ""`, `lab/deep 40755 ""`, `init 100755 "abc"`, `lab/deep/x 100600 ""`, `lab/y 100644 "12345"`}
	if diff := cmp.Diff(want, readArchive(t, b.Bytes())); diff != "" {
		t.Error("(-want +got)\n" + diff)
	}
	if b.Len()%512 != 0 {
		t.Errorf("%d bytes: another archive cannot follow", b.Len())
	}
}

const modulesDep = `kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/block/virtio-blk.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/fs/fuse/fuse.ko:
kernel/fs/virtiofs.ko: kernel/fs/fuse/fuse.ko kernel/drivers/virtio/virtio.ko
`

func TestModuleOrder(t *testing.T) {
	table, err := parseModules(strings.NewReader(modulesDep))
	if err != nil {
		t.Fatal(err)
	}
	got, err := table.order("virtio_blk", "virtiofs")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"kernel/drivers/virtio/virtio.ko", "kernel/drivers/virtio/virtio_ring.ko", "kernel/drivers/block/virtio-blk.ko",
		"kernel/fs/fuse/fuse.ko", "kernel/fs/virtiofs.ko",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("(-want +got)\n" + diff)
	}
	if _, err := table.order("nosuch"); err == nil {
		t.Error("a module that is not there was found")
	}
}

func TestModuleArchiveLeavesOutWhatIsBuiltIn(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{"modules.dep": modulesDep, "modules.builtin": "kernel/fs/ext4/ext4.ko\n"}
	for line := range strings.Lines(modulesDep) {
		name, _, _ := strings.Cut(line, ":")
		files[name] = name
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a, err := moduleArchive(dir, []string{"ext4", "virtio_blk"})
	if err != nil {
		t.Fatal(err)
	}
	const order = "kernel/drivers/virtio/virtio.ko\nkernel/drivers/virtio/virtio_ring.ko\nkernel/drivers/block/virtio-blk.ko\n"
	if got := string(a["modules"].data); got != order {
		t.Errorf("order is %q, want %q", got, order)
	}
	if len(a) != 4 {
		t.Errorf("got %v, want the list and three modules", a.names())
	}
}

func TestPackagesHaveNoDoubles(t *testing.T) {
	names := packages()
	if len(names) < 20 || !slices.Contains(names, "frr") {
		t.Errorf("packages.txt reads as %q", names)
	}
	for i, name := range names {
		if strings.ContainsAny(name, "# ,") || slices.Contains(names[:i], name) {
			t.Errorf("package %q", name)
		}
	}
}

func TestParseForward(t *testing.T) {
	const table = `Hub -1 (control):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[HOST_FORWARD]  14       127.0.0.1 37461       10.0.2.15  7000     0     0
  UDP[236 sec]       15       10.0.2.15    68       10.0.2.2     67     0     0
`
	got, err := parseForward(strings.NewReader(table))
	if got != 37461 || err != nil {
		t.Errorf("got %d and %v, want 37461", got, err)
	}
	if _, err := parseForward(strings.NewReader("nothing\n")); err == nil {
		t.Error("a port was found in nothing")
	}
}
