package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/bladenet/bladenet/hostagent/revision"
	"github.com/bladenet/bladenet/policy"
)

func initVerb() verb {
	v := verb{
		name: "init", args: "[DIR]", brief: "Write a commented first policy for this machine's NICs",
		example: "bladectl init /etc/bladenet",
	}
	v.run = func(_ context.Context, e env, args []string) error {
		f := newFlags(e, v)
		words, err := f.parse(args, 0, 1)
		if err != nil {
			return err
		}
		dir := DefaultPolicy
		if len(words) == 1 {
			dir = words[0]
		}
		return initFolder(e, dir)
	}
	return v
}

func initFolder(e env, dir string) error {
	for _, pattern := range []string{"*.yaml", "*.yml"} {
		if found, err := filepath.Glob(filepath.Join(dir, pattern)); err != nil || len(found) > 0 {
			return errors.Join(fmt.Errorf("init %s: there is a policy already %v", dir, found), err)
		}
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("read the host's name: %w", err)
	}
	nics, err := physical("/sys/class/net")
	if err != nil {
		return err
	}
	file := policy.InitFleet(nics, strings.ToLower(strings.SplitN(host, ".", 2)[0]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(dir, file.Name)
	if err := revision.WriteFile(path, file.Data, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	fmt.Fprintf(e.stdout, "%s written: edit it, then `bladectl check %s`\n", path, dir)
	return nil
}

// physical lists the machine's NICs: links with a device below them. One without an address comes first, as the trunk has none.
func physical(class string) ([]string, error) {
	entries, err := os.ReadDir(class)
	if err != nil {
		return nil, fmt.Errorf("list NICs: %w", err)
	}
	var bare, addressed []string
	for _, entry := range entries {
		name := entry.Name()
		if _, err := os.Stat(filepath.Join(class, name, "device")); err != nil {
			continue
		}
		if global(name) {
			addressed = append(addressed, name)
		} else {
			bare = append(bare, name)
		}
	}
	return append(bare, addressed...), nil
}

// global says whether a link has an address that others reach.
func global(name string) bool {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return false
	}
	addrs, err := link.Addrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if p, ok := a.(*net.IPNet); ok && p.IP.IsGlobalUnicast() {
			return true
		}
	}
	return false
}
