package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/hostagent/api"
)

// top asks that loads be counted, and shows the busiest real server of a service first.
func TestTop(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := api.Status{Blade: "lame-l1", Revision: 7, Services: []api.Service{{
		Service: "www", VIP: "203.0.113.10", Protocol: "tcp", Port: 80, Director: "dir-l", Destinations: []api.Destination{
			{Guest: "www-1", Weight: 100, Up: true, Load: api.Load{Active: 1, NewRate: 3}},
			{Guest: "www-2", Reason: "down: refused"},
			{Guest: "www-3", Weight: 50, Up: true, Load: api.Load{Active: 12, Inactive: 40, NewRate: 30, Packets: 250, Bytes: 20000}},
		},
	}}}
	var counted []string
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		counted = append(counted, r.FormValue("count"))
		_ = json.NewEncoder(w).Encode(s)
	})}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	var out bytes.Buffer
	if err := top(context.Background(), &out, api.NewClient(socket), time.Millisecond, 2, "cleared\n"); err != nil {
		t.Fatal(err)
	}
	table := `cleared
blade lame-l1  revision 7
SERVICE  VIP           PORT    DIRECTOR  REAL SERVER  WEIGHT  ACTIVE  INACTIVE  NEW/s  PACKETS/s  BYTES/s  STATE
www      203.0.113.10  80/tcp  dir-l     www-3        50      12      40        30     250        20000    up
www      203.0.113.10  80/tcp  dir-l     www-1        100     1       0         3      0          0        up
www      203.0.113.10  80/tcp  dir-l     www-2        0       0       0         0      0          0        down: refused
`
	if out.String() != table+table {
		t.Errorf("printed\n%s\nwant twice\n%s", &out, table)
	}
	if strings.Join(counted, " ") != "1 1 1" {
		t.Errorf("asked with count %q", counted)
	}
}
