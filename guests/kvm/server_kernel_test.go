//go:build kernel

package kvm

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/policy"
)

// machineState is the network of a real server that is alone with its blade on a tap.
func machineState(revision string) channel.Apply {
	a := channel.Apply{Revision: revision, Guest: "www-kvm", Role: policy.RoleRealServer}
	a.Inside = policy.Inside{
		Hostname: "www-kvm",
		Interfaces: []policy.Interface{
			{Name: "eth0", MAC: policy.MAC{2, 0, 0, 0, 77, 0}, Addresses: []netip.Prefix{netip.MustParsePrefix("10.98.0.2/24"), netip.MustParsePrefix("2001:db8:98::2/64")}},
			{Name: "eth1", MAC: policy.MAC{2, 0, 0, 0, 77, 1}, Addresses: []netip.Prefix{netip.MustParsePrefix("10.99.0.2/24"), netip.MustParsePrefix("2001:db8:99::2/64")}},
		},
		VIPs: []policy.VIP{{Address: netip.MustParseAddr("203.0.113.77")}, {Address: netip.MustParseAddr("2001:db8:5::77")}},
		Sysctls: []policy.Sysctl{
			{Key: "net/ipv4/conf/all/arp_ignore", Value: "1"},
			{Key: "net/ipv4/conf/all/arp_announce", Value: "2"},
			{Key: "net/ipv6/conf/eth1/accept_dad", Value: "0"},
		},
	}
	return a
}

// TestRealServer boots a machine of a container's recipe, hands it its network, and asks its server at its VIPs. Its console shows what it
// prints meanwhile, to one at a time, and its server ends in its own way.
func TestRealServer(t *testing.T) {
	ctx := context.Background()
	d := blade(t)
	id, err := store().Resolve("web", policy.DriverKVM)
	if err != nil {
		t.Fatal(err)
	}
	s := wanted(t, "www-kvm", 77)
	s.Image = id
	taps(t, s)
	for _, c := range []string{
		"addr add 10.99.0.1/24 dev kt77.1", "-6 addr add 2001:db8:99::1/64 dev kt77.1 nodad",
		"route add 203.0.113.77 via 10.99.0.2", "-6 route add 2001:db8:5::77 via 2001:db8:99::2",
	} {
		if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", c, err, out)
		}
	}
	do(t, "create", func() error { return d.Create(ctx, s) })
	if err := d.Console(ctx, s.Name, [3]*os.File{}); err == nil || !strings.Contains(err.Error(), "does not run") {
		t.Errorf("console of a machine that does not run: %v", err)
	}
	do(t, "start", func() error { return d.Start(ctx, s.Name) })
	said(t, d, "www-kvm", "bladeguest is init", 1, 3*time.Minute)
	var helper *channel.Client
	do(t, "helper", func() error { helper, err = dialed(ctx, s.CID); return err })
	defer helper.Close()
	leave := joined(t, d, s)
	do(t, "apply", func() error {
		st, err := helper.Apply(ctx, machineState("one"))
		for deadline := time.Now().Add(time.Minute); err == nil && st.Error != "" && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
			st, err = helper.Status(ctx, channel.Query{}) // it may take longer than an apply waits
		}
		if err == nil && st.Error != "" {
			err = fmt.Errorf("it says: %s", st.Error)
		}
		return err
	})
	for _, url := range []string{"http://203.0.113.77/", "http://[2001:db8:5::77]/", "https://203.0.113.77/health"} {
		do(t, url, func() error { return fetched(url, "www-kvm\n", "ok\n") })
	}
	if st, err := helper.Status(ctx, channel.Query{}); err != nil || st.Server == nil || !st.Server.Running || st.Server.Restarts > 0 {
		t.Errorf("status: %+v, %v", st, err)
	}
	if text := leave(); !strings.Contains(text, "service runs") {
		t.Errorf("the console has shown %q, want a word of the service", text)
	}
	do(t, "stop", func() error { return d.Stop(ctx, s.Name, 20*time.Second) })
	said(t, d, "www-kvm", "signal=SIGQUIT", 1, time.Second)
	said(t, d, "www-kvm", "power off", 1, time.Second)
}

// dialed waits for the helper.
func dialed(ctx context.Context, cid uint32) (c *channel.Client, err error) {
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if c, err = channel.Dial(ctx, cid); err == nil {
			return c, nil
		}
	}
	return nil, err
}

// fetched asks until one of the answers comes.
func fetched(url string, want ...string) error {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	var last error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		resp, err := client.Get(url)
		if err != nil {
			last = err
			continue
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
		resp.Body.Close()
		for _, w := range want {
			if err == nil && string(body) == w {
				return nil
			}
		}
		last = fmt.Errorf("answer %q, %v", body, err)
	}
	return last
}

// joined joins the machine's console. leave leaves it and returns what was shown.
func joined(t *testing.T, d *Driver, s guests.Spec) (leave func() string) {
	t.Helper()
	in, keys, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, shown, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done, read := make(chan struct{}), make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(out)
		read <- string(text)
	}()
	go func() {
		defer close(done)
		defer shown.Close()
		for {
			err := d.Console(ctx, s.Name, [3]*os.File{in, shown, shown})
			if err == nil {
				return
			}
			if !strings.Contains(err.Error(), "somebody else has it") { // the look below, whichever comes first
				t.Errorf("console: %v", err)
				return
			}
		}
	}()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		short, end := context.WithTimeout(ctx, 200*time.Millisecond)
		err := d.Console(short, s.Name, [3]*os.File{in, shown, shown})
		end()
		if err != nil && strings.Contains(err.Error(), "somebody else has it") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a second one at the console: %v", err)
		}
	}
	return func() string {
		cancel()
		<-done
		keys.Close()
		in.Close()
		return <-read
	}
}
