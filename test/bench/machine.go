package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/bench/result"
)

// The two directors of S3. They never run at the same time.
const (
	ourDirector   = policy.GuestName("ours-dir")
	plainDirector = policy.GuestName("plain-dir")
)

// plainUUID is the plain domain's. Ours has one that is made of its name.
const plainUUID = "5d3f7c2a-4a1e-4b0e-9a53-7d1f0c9b8e11"

// plainMachine is a domain that an administrator has in a file, with its disk and its taps made beforehand: what is measured are two commands of
// virsh's.
type plainMachine struct {
	dir, definition string
	image           image.Image
}

// oneDirector is S3: a director from nothing until its helper says hello, beside the same domain by virsh.
func oneDirector(ctx context.Context, o options) (rows []result.Row, err error) {
	s, err := newSpawner(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	img, err := s.takeImage("director", policy.DriverKVM)
	if err != nil {
		return nil, err
	}
	ours := s.ourDirector(ctx)
	p, err := s.newPlainMachine(ctx, img)
	if err != nil {
		return nil, err
	}
	plain := s.alone(p.subject(ctx))
	series, err := result.Interleave(o.rounds, ours, plain)
	if err != nil {
		return nil, err
	}
	row := result.Compare("S3", "director by spawn, until its helper says hello", "virsh define, virsh start of the same domain", "ms", series["ours"], series["plain"])
	return []result.Row{row.Judged(result.AtMost, 1.1).Noted("the peer's disk and taps are made before its time begins, and it has no rules")}, nil
}

// greets waits until a machine's helper says hello.
func greets(ctx context.Context, name policy.GuestName) error {
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		client, err := channel.Dial(ctx, policy.CIDOf(name))
		if err == nil {
			return client.Close()
		}
		if time.Since(begin) > 3*answerLimit {
			return err
		}
	}
}

// ourDirector is a director by spawn, which itself goes on until routers know the director; that is not measured.
func (s *spawner) ourDirector(ctx context.Context) result.Subject {
	spawned := make(chan error, 1)
	return until("ours", func() error {
		go func() { spawned <- s.ctl("spawn", "director", string(ourDirector), "--site", "lombarderie") }()
		return greets(ctx, ourDirector)
	}, func() error { return errors.Join(<-spawned, s.destroy(string(ourDirector)), s.rest()) })
}

// newPlainMachine takes the definition of a director of ours and makes it one of somebody else's: with another name, other identities, disk and taps,
// and without our mark.
func (s *spawner) newPlainMachine(ctx context.Context, img image.Image) (p plainMachine, err error) {
	if err := s.ctl("spawn", "director", string(ourDirector), "--site", "lombarderie"); err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, s.destroy(string(ourDirector)), s.rest()) }()
	text, err := command("", "virsh", "dumpxml", "--inactive", string(ourDirector))
	if err != nil {
		return p, err
	}
	p = plainMachine{dir: filepath.Join(s.dir, string(plainDirector)), definition: filepath.Join(s.dir, "plain.xml"), image: img}
	text = regexp.MustCompile(`(?s)<metadata>.*</metadata>`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`<uuid>[^<]*</uuid>`).ReplaceAllString(text, "<uuid>"+plainUUID+"</uuid>")
	text = strings.NewReplacer(
		filepath.Join(s.dir, "state", "kvm", string(ourDirector)), p.dir,
		string(ourDirector), string(plainDirector),
		policy.MACOf(ourDirector, "eth0").String(), policy.MACOf(plainDirector, "eth0").String(),
		policy.MACOf(ourDirector, "eth1").String(), policy.MACOf(plainDirector, "eth1").String(),
		fmt.Sprint(policy.CIDOf(ourDirector)), fmt.Sprint(policy.CIDOf(plainDirector)),
	).Replace(text)
	return p, errors.Join(os.Mkdir(p.dir, 0o711), os.WriteFile(p.definition, []byte(text), 0o600))
}

// subject has everything that the domain needs made before its time begins.
func (p plainMachine) subject(ctx context.Context) result.Subject {
	timed := until("plain", func() error {
		err := typeAll([]typed{
			{"", []string{"virsh", "-q", "define", p.definition}},
			{"", []string{"virsh", "-q", "start", string(plainDirector)}},
		})
		if err != nil {
			return err
		}
		return greets(ctx, plainDirector)
	}, p.away)
	return result.Subject{Name: timed.Name, Measure: func() (float64, error) {
		if err := p.prepare(); err != nil {
			return 0, err
		}
		return timed.Measure()
	}}
}

func (p plainMachine) prepare() error {
	links := ""
	for iface, bridge := range map[string]string{"eth0": "br111", "eth1": "br120"} {
		port := policy.PortName(plainDirector, iface)
		links += "tuntap add dev " + port + " mode tap vnet_hdr\nlink set " + port + " addrgenmode none master " + bridge + " up\n"
	}
	return typeAll([]typed{
		{"", []string{"qemu-img", "create", "-q", "-f", "qcow2", "-b", p.image.Root(), "-F", "raw", p.disk()}},
		{links, []string{"ip", "-batch", "-"}},
	})
}

func (p plainMachine) disk() string { return filepath.Join(p.dir, "disk.qcow2") }

func (p plainMachine) away() error {
	err := typeAll([]typed{
		{"", []string{"virsh", "-q", "destroy", string(plainDirector)}},
		{"", []string{"virsh", "-q", "undefine", string(plainDirector)}},
		{"", []string{"ip", "link", "del", policy.PortName(plainDirector, "eth0")}},
		{"", []string{"ip", "link", "del", policy.PortName(plainDirector, "eth1")}},
	})
	return errors.Join(err, os.Remove(p.disk()))
}
