package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/policy"
)

const hooked = `zones: [public]
alerts:
  - webhook: https://ops:hunter2@alerts.example.org/services/T0/B0/verysecret?a=1&b=2
`

func TestSecretsAreTakenOut(t *testing.T) {
	r := NewRedactor([]policy.File{{Name: "a.yaml", Data: []byte(hooked)}})
	for _, c := range []struct{ in, want string }{
		// What must go.
		{hooked, "zones: [public]\nalerts:\n  - webhook: https://alerts.example.org/REDACTED\n"},
		{`alerts: [{webhook: "https://other.example.org/t/0123"}]`, `alerts: [{webhook: "https://other.example.org/REDACTED"}]`},
		{`{"alerts":["https://other.example.org/t/0123?x=1"]}`, `{"alerts":["https://other.example.org/REDACTED"]}`},
		{`err="Post \"https://ops:***@alerts.example.org/services/T0/B0/verysecret?a=1&b=2\": EOF"`, `err="Post \"https://REDACTED@alerts.example.org/REDACTED\": EOF"`},
		{`{"message":"https://ops:hunter2@alerts.example.org/services/T0/B0/verysecret?a=1\u0026b=2"}`, `{"message":"https://alerts.example.org/REDACTED"}`},
		{"GET /services/T0/B0/verysecret?a=1&b=2 HTTP/1.1", "GET /REDACTED HTTP/1.1"},
		{"url: postgres://u:p@db/x", "url: postgres://REDACTED@db/x"},
		{"password: hunter2", "password: REDACTED"},
		{"bgp: {peer: 192.0.2.1, password: hunter2, as: 1}", "bgp: {peer: 192.0.2.1, password: REDACTED, as: 1}"},
		{"  md5-secret: 'a, b'  # why", "  md5-secret: 'REDACTED'  # why"},
		{`{"api_key": "a\"b", "n": 1}`, `{"api_key": "REDACTED", "n": 1}`},
		{"DB_PASSWORD=hunter2", "DB_PASSWORD=REDACTED"},
		{"Authorization: Bearer abcdefgh.ijkl", "Authorization: Bearer REDACTED"},
		{"secret: |\n  one\n  two\n\nnext: 1\n", "secret: REDACTED\nnext: 1\n"},
		{"  tls-key: |-\n    one\n  cert: x\n", "  tls-key: REDACTED\n  cert: x\n"},
		{"-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nrest", "REDACTED\nrest"},
		{"-----BEGIN PRIVATE KEY-----\nabc and no end", "REDACTED"},
		// What must stay.
		{"https://www.example.org/health?x=1", "https://www.example.org/health?x=1"},
		{"check: {http: {port: 80, path: /health}}", "check: {http: {port: 80, path: /health}}"},
		{"user@example.org and key: value", "user@example.org and key: value"},
		{"basic facts", "basic facts"},
	} {
		if got := string(r.Text([]byte(c.in))); got != c.want {
			t.Errorf("%q\n got %q\nwant %q", c.in, got, c.want)
		}
	}
}

// unpack reads a bundle.
func unpack(t *testing.T, b io.Reader) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(b)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = string(text)
	}
}

func TestABundleIsBounded(t *testing.T) {
	long := append(bytes.Repeat([]byte("x\n"), mostOfOne), "the end"...)
	items := []Item{{Name: "a/none", Err: errors.New("token=hunter2 is wrong")}}
	for i := range mostOfAll/mostOfOne + 2 {
		items = append(items, Item{Name: "long/" + string(rune('a'+i)), Text: long})
	}
	var b bytes.Buffer
	if err := Write(&b, "blade", time.Unix(0, 0), NewRedactor(nil), items); err != nil {
		t.Fatal(err)
	}
	files := unpack(t, &b)
	if got := files["blade/a/none"]; got != "not there: token=REDACTED\n" {
		t.Errorf("an item without a text: %q", got)
	}
	if got := files["blade/long/a"]; len(got) != mostOfOne || !strings.HasPrefix(got, omitted) || !strings.HasSuffix(got, "the end") {
		t.Errorf("a long text: %d bytes, %.40q … %q", len(got), got, got[len(got)-8:])
	}
	all := 0
	for _, text := range files {
		all += len(text)
	}
	if len(files) != len(items) || all > mostOfAll {
		t.Errorf("%d files with %d bytes, want %d with %d at most", len(files), all, len(items), mostOfAll)
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte(hooked))
	f.Add([]byte("secret: |\n x\npassword: 'a"))
	r := NewRedactor([]policy.File{{Name: "a.yaml", Data: []byte(hooked)}})
	f.Fuzz(func(t *testing.T, text []byte) {
		once := r.Text(text)
		if bytes.Contains(once, []byte("verysecret?a=1&b=2")) && bytes.Contains(text, []byte("/services/T0/B0/verysecret?a=1&b=2")) {
			t.Errorf("%q keeps what is known", once)
		}
	})
}
