//go:build kernel

package lxc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/policy"
)

// running starts a guest of an image that was built of a recipe, and waits until ask gets its answer on every one of its addresses.
func running(t *testing.T, image string, volumes []policy.Volume, networks []string, port string, ask func(conn net.Conn, name string) error) *Driver {
	t.Helper()
	ctx := context.Background()
	name := image + "-rs1"
	d := blade(t)
	namespace(t, name)
	id, err := d.Images.Resolve(image, policy.DriverLXC)
	if err != nil {
		t.Fatal(err)
	}
	s := guests.Define(policy.Guest{
		Name: policy.GuestName(name), Driver: policy.DriverLXC, Memory: 256 << 20, CPUs: 1, Inside: policy.Inside{Hostname: name}, Volumes: volumes,
	}, id)
	do(t, "create", func() error { return d.Create(ctx, s) })
	do(t, "start", func() error { return d.Start(ctx, s.Name) })
	do(t, "answer", func() error {
		for _, network := range networks {
			for _, address := range []string{"192.0.2.10", "2001:db8:5::10", "127.0.0.1", "::1"} {
				if err := asked(t, name, network, net.JoinHostPort(address, port), ask); err != nil {
					return err
				}
			}
		}
		return nil
	})
	do(t, "stop", func() error {
		began := time.Now()
		if err := d.Stop(ctx, s.Name, 10*time.Second); err != nil {
			return err
		}
		if took := time.Since(began); took > 9*time.Second {
			return fmt.Errorf("its init does not end by its signal: %v", took)
		}
		return nil
	})
	return d
}

// asked tries until there is an answer from an address, and from no other.
func asked(t *testing.T, name, network, address string, ask func(conn net.Conn, name string) error) error {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := within(t, name, func() error {
			conn, err := net.DialTimeout(network, address, time.Second)
			if err != nil {
				return err
			}
			defer conn.Close()
			return errors.Join(conn.SetDeadline(time.Now().Add(2*time.Second)), ask(conn, name))
		})
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s %s: %w", network, address, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// question is a DNS message (RFC 1035): one name, one type, one class.
func question(name string, kind, class uint16) []byte {
	msg := []byte{0x2a, 0x2b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for _, label := range strings.Split(name, ".") {
		msg = append(append(msg, byte(len(label))), label...)
	}
	msg = append(msg, 0)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(msg, kind), class)
}

// resolve asks one question and wants a text in its answer. Over TCP a length goes before each message.
func resolve(conn net.Conn, msg []byte, want string) error {
	stream := conn.RemoteAddr().Network() == "tcp"
	if stream {
		msg = append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
	}
	if _, err := conn.Write(msg); err != nil {
		return err
	}
	answer := make([]byte, 2048)
	n, err := conn.Read(answer)
	if stream && err == nil && n >= 2 {
		size := 2 + int(binary.BigEndian.Uint16(answer))
		if n < size && size <= len(answer) {
			_, err = io.ReadFull(conn, answer[n:size])
			n = size
		}
		answer, n = answer[2:], n-2
	}
	if err != nil {
		return err
	}
	answer = answer[:n]
	if n < 12 || !bytes.Equal(answer[:2], []byte{0x2a, 0x2b}) || answer[2]&0x80 == 0 || answer[3]&0x0f != 0 || binary.BigEndian.Uint16(answer[6:]) == 0 ||
		!bytes.Contains(answer[12:], []byte(want)) {
		return fmt.Errorf("answer %q, want %q in it", answer, want)
	}
	return nil
}

func TestRecipeDNS(t *testing.T) {
	running(t, "dns", nil, []string{"udp", "tcp"}, "53", func(conn net.Conn, name string) error {
		if err := resolve(conn, question("hostname.bind", 16, 3), name); err != nil { // TXT, class CH
			return err
		}
		if conn.RemoteAddr().Network() == "tcp" {
			return nil // unbound may close after one
		}
		return resolve(conn, question("localhost", 1, 1), "\x7f\x00\x00\x01") // what a service's check asks for
	})
}

func TestRecipeProxy(t *testing.T) {
	running(t, "proxy", nil, []string{"tcp"}, "80", func(conn net.Conn, name string) error {
		for _, ask := range [][2]string{{"/", name + "\n"}, {"/health", "200 OK"}} { // the connection ends with the second
			path, want := ask[0], ask[1]
			if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: vip\r\n\r\n", path); err != nil {
				return err
			}
			answer := make([]byte, 4096)
			n, err := conn.Read(answer)
			if err != nil {
				return err
			}
			if text := string(answer[:n]); !strings.HasPrefix(text, "HTTP/1.") || !strings.Contains(text, " 200 OK\r\n") || !strings.Contains(text, want) {
				return fmt.Errorf("%s: %q, want %q in it", path, text, want)
			}
		}
		return nil
	})
}

// rootDSE asks a directory of itself (RFC 4511): base object "", the attribute namingContexts of what has an objectClass.
var rootDSE = []byte("\x30\x35\x02\x01\x01\x63\x30\x04\x00\x0a\x01\x00\x0a\x01\x00\x02\x01\x00\x02\x01\x00\x01\x01\x00\x87\x0bobjectClass\x30\x10\x04\x0enamingContexts")

func TestRecipeLDAP(t *testing.T) {
	volumes := []policy.Volume{{Name: "data", Path: "/var/lib/ldap"}}
	d := running(t, "ldap", volumes, []string{"tcp"}, "389", func(conn net.Conn, _ string) error {
		if _, err := conn.Write(rootDSE); err != nil {
			return err
		}
		answer := make([]byte, 4096)
		n, err := conn.Read(answer)
		if err != nil {
			return err
		}
		if !bytes.Contains(answer[:n], []byte("dc=example,dc=org")) {
			return fmt.Errorf("answer %q", answer[:n])
		}
		return nil
	})
	if err := d.Volumes.Remove("ldap-rs1"); err != nil {
		t.Fatal(err)
	}
}
