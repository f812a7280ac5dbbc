package api

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// serve answers one handler on a socket of its own.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	return NewClient(socket)
}

func TestAnAbsentDaemonIsASentence(t *testing.T) {
	_, err := NewClient(filepath.Join(t.TempDir(), "none")).Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "systemctl start bladed") {
		t.Errorf("Status = %v, want the remedy", err)
	}
}

func TestARefusalIsTheServersText(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no such guest", http.StatusNotFound) })
	if _, err := c.Plan(t.Context(), PlanRequest{}); err == nil || err.Error() != "no such guest" {
		t.Errorf("Plan = %v, want the server's text", err)
	}
}

func TestStreamEnds(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"well", `{"message":"a"}` + "\n" + `{"done":true}`, ""},
		{"with an error", `{"done":true,"error":"no image"}`, "no image"},
		{"cut off", `{"message":"a"}` + "\n", "before it was done"},
		{"cut in a document", `{"message":"a"}` + "\n" + `{"don`, "before it was done"},
		{"with nonsense", "]", "read events"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, c.body) })
			err := client.Apply(t.Context(), ApplyRequest{}, func(Event) {})
			if got := fmt.Sprint(err); (c.want == "") != (err == nil) || !strings.Contains(got, c.want) {
				t.Errorf("Apply = %v, want %q", err, c.want)
			}
		})
	}
}
