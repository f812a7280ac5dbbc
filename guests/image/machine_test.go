package image

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestClosure(t *testing.T) {
	const dep = `kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/net/ip-vs.ko.xz: kernel/lib/crc.ko
kernel/lib/crc.ko:
`
	got, err := closure(dep, "kernel/fs/ext4/ext4.ko\n", []string{"virtio_blk", "ext4", "ip_vs", "virtio-ring"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"kernel/drivers/virtio/virtio.ko", "kernel/drivers/virtio/virtio_ring.ko", "kernel/drivers/block/virtio_blk.ko",
		"kernel/lib/crc.ko", "kernel/net/ip-vs.ko.xz",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := closure(dep, "", []string{"ext4", "virtio_blk", "nothing"}); err == nil || strings.Count(err.Error(), "module") != 2 {
		t.Errorf("missing modules: %v", err)
	}
}

func TestArchive(t *testing.T) {
	var a archive
	a.dir("dev")
	a.console("dev/console")
	a.file("init", []byte("#!/bin/sh\n"), 0o755)
	a.file("empty", nil, 0o600)
	type entry struct{ Name, Mode, Device, Text string }
	var got []entry
	rest := a.bytes()
	if len(rest)%4 != 0 {
		t.Errorf("%d bytes", len(rest))
	}
	for len(rest) > 0 {
		if string(rest[:6]) != "070701" {
			t.Fatalf("no header: %q", rest[:6])
		}
		field := func(i int) int {
			n, err := strconv.ParseInt(string(rest[6+8*i:14+8*i]), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
		nameEnd := 110 + field(11)
		name := string(rest[110 : nameEnd-1])
		start := (nameEnd + 3) &^ 3
		end := start + field(6)
		got = append(got, entry{name, strconv.FormatInt(int64(field(1)), 8), fmt.Sprintf("%d:%d", field(9), field(10)), string(rest[start:end])})
		rest = rest[(end+3)&^3:]
	}
	want := []entry{
		{"dev", "40755", "0:0", ""},
		{"dev/console", "20600", "5:1", ""},
		{"init", "100755", "0:0", "#!/bin/sh\n"},
		{"empty", "100600", "0:0", ""},
		{"TRAILER!!!", "0", "0:0", ""},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSelfSigned(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	cert, key, err := selfSigned([]string{"www.example.org", "localhost"}, now)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(cert)
	if block == nil || !bytes.Equal(block.Bytes, pair.Certificate[0]) {
		t.Fatal("no certificate in PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.VerifyHostname("localhost"); err != nil {
		t.Error(err)
	}
	if now.Before(c.NotBefore) || now.AddDate(9, 0, 0).After(c.NotAfter) {
		t.Errorf("valid from %v to %v", c.NotBefore, c.NotAfter)
	}
}

func TestTail(t *testing.T) {
	x := tail{keep: 5}
	for _, s := range []string{"ab", "cdef", "", "g"} {
		if n, err := x.Write([]byte(s)); n != len(s) || err != nil {
			t.Errorf("write %q: %d, %v", s, n, err)
		}
	}
	if x.String() != "cdefg" {
		t.Errorf("kept %q", x.String())
	}
}
