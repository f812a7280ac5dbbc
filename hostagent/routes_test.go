package hostagent

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/test/openapi"
)

func TestTheServerDoesWhatIsListed(t *testing.T) {
	var listed []string
	for _, r := range api.Routes() {
		listed = append(listed, r.Pattern())
	}
	slices.Sort(listed)
	if diff := cmp.Diff(listed, slices.Sorted(maps.Keys((&Agent{}).handlers()))); diff != "" {
		t.Errorf("routes and handlers (-listed +handled):\n%s", diff)
	}
}

// asked says how a test asks a route, where the empty message is no question, and what status it expects.
var asked = map[string]struct {
	path, body string
	status     int
}{
	"GET /v1/revisions/{number}": {path: "/v1/revisions/1"},
	"GET /v1/guests/{name}/log":  {path: "/v1/guests/www-1/log?lines=5", status: http.StatusBadRequest}, // there is no such guest
	"POST /v1/console":           {body: `{"name": "www-1"}`, status: http.StatusBadRequest},
	"POST /v1/exec":              {body: `{"name": "www-1", "command": ["id"]}`, status: http.StatusBadRequest},
	"POST /v1/confirm":           {status: http.StatusInternalServerError}, // nothing waits for it
	"POST /v1/start":             {body: `{"name": "www-1"}`},
	"POST /v1/trace":             {body: `{"target": "nobody"}`},
	"GET /v1/events":             {path: "/v1/events?after=0"},
}

// TestEveryAnswerIsAsDescribed asks the real server everything and holds what it says against the description that it serves.
func TestEveryAnswerIsAsDescribed(t *testing.T) {
	a, _, _ := firstRevision(t, &world{})
	srv := httptest.NewServer(a.Handler())
	t.Cleanup(srv.Close)
	get := func(method, path, body string) (*http.Response, []byte) {
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, text
	}
	_, text := get("GET", "/v1/openapi.json", "")
	doc, err := openapi.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range api.Routes() {
		how := asked[r.Pattern()]
		if how.path == "" {
			how.path = r.Path
		}
		if how.status == 0 {
			how.status = http.StatusOK
		}
		if how.body == "" && r.In != nil {
			how.body = "{}"
		}
		resp, body := get(r.Method, how.path, how.body)
		if resp.StatusCode != how.status {
			t.Errorf("%s: status %d, want %d: %s", r.Pattern(), resp.StatusCode, how.status, body)
		}
		if resp.StatusCode != http.StatusOK {
			continue
		}
		if form := resp.Header.Get("Content-Type"); !strings.HasPrefix(form, string(r.Form)) {
			t.Errorf("%s answers %s, listed is %s", r.Pattern(), form, r.Form)
		}
		if r.Out == nil {
			continue
		}
		schema := doc.At("paths", r.Path, strings.ToLower(r.Method), "responses", "200", "content", string(r.Form), "schema")
		said := 0
		for dec := json.NewDecoder(bytes.NewReader(body)); ; said++ {
			var one json.RawMessage
			if err := dec.Decode(&one); err != nil {
				break
			}
			for _, wrong := range doc.Check(schema, one) {
				t.Errorf("%s: %s", r.Pattern(), wrong)
			}
		}
		if said == 0 {
			t.Errorf("%s says nothing: %q", r.Pattern(), body)
		}
		if r.In == nil {
			continue
		}
		if resp, _ := get(r.Method, how.path, `{"nosuch": 1}`); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s takes a member that it does not know: status %d", r.Pattern(), resp.StatusCode)
		}
	}
}
