package policy

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const referenceFile = "../docs/policy-reference.md"

// referenceTables are the document types by the names that the reference's markers have for them.
var referenceTables = map[string]reflect.Type{
	"policy": reflect.TypeFor[document](), "network": reflect.TypeFor[networkDoc](), "blade": reflect.TypeFor[bladeDoc](),
	"service": reflect.TypeFor[serviceDoc](), "balance": reflect.TypeFor[balanceDoc](), "check": reflect.TypeFor[checkDoc](),
	"check.tcp": reflect.TypeFor[tcpCheckDoc](), "check.http and check.https": reflect.TypeFor[httpCheckDoc](),
	"check.dns": reflect.TypeFor[dnsCheckDoc](), "check.script": reflect.TypeFor[scriptCheckDoc](), "quorum": reflect.TypeFor[quorumDoc](),
	"director": reflect.TypeFor[directorDoc](), "announce": reflect.TypeFor[announceDoc](), "announce.ospf": reflect.TypeFor[ospfDoc](),
	"announce.bfd": reflect.TypeFor[bfdDoc](), "announce.bgp": reflect.TypeFor[bgpDoc](), "announce.vrrp": reflect.TypeFor[vrrpDoc](), "realserver": reflect.TypeFor[realServerDoc](), "serves": reflect.TypeFor[serveDoc](), "volumes": reflect.TypeFor[volumeDoc](),
	"interface": reflect.TypeFor[interfaceDoc](), "rule": reflect.TypeFor[ruleDoc](), "host": reflect.TypeFor[hostDoc](),
	"alert": reflect.TypeFor[alertDoc](), "alert.mail": reflect.TypeFor[mailDoc](), "expectation": reflect.TypeFor[expectDoc](),
}

var tablePattern = regexp.MustCompile(`(?s)<!-- keys: ([a-z. ]+) -->\n.*?<!-- end -->`)

// withTables puts each type's table between its markers.
func withTables(t *testing.T, text string) string {
	t.Helper()
	seen := map[string]bool{}
	out := tablePattern.ReplaceAllStringFunc(text, func(block string) string {
		name := tablePattern.FindStringSubmatch(block)[1]
		if referenceTables[name] == nil {
			t.Fatalf("no type for the table %q", name)
		}
		seen[name] = true
		return "<!-- keys: " + name + " -->\n" + keyTable(name, referenceTables[name]) + "<!-- end -->"
	})
	for name := range referenceTables {
		if !seen[name] {
			t.Errorf("the reference has no table %q", name)
		}
	}
	return out
}

// keyTable writes one type's keys.
func keyTable(name string, typ reflect.Type) string {
	var b strings.Builder
	shape := shapeOf(typ)
	title := name
	if i := strings.LastIndexByte(name, '.'); i >= 0 && !strings.Contains(name, " ") {
		title = name[i+1:]
	}
	fmt.Fprintf(&b, "| key of %s | default | meaning |\n|---|---|---|\n", title)
	for i, f := range shape.fields {
		def := f.tag.Get("default")
		if f.required {
			def = "**required**"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", shape.names[i], def, strings.ReplaceAll(f.tag.Get("doc"), "|", "\\|"))
	}
	return b.String()
}

func TestReferenceIsUpToDate(t *testing.T) {
	data, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	want := withTables(t, string(data))
	if *update {
		if err := os.WriteFile(referenceFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(data)); diff != "" {
		t.Errorf("%s (-from the types +written): go test ./policy -run Reference -update\n%s", referenceFile, diff)
	}
}

// TestReferenceExamplesLoad loads every example of the reference, together one policy, without a finding.
func TestReferenceExamplesLoad(t *testing.T) {
	data, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	var files []File
	for i, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(data), -1) {
		files = append(files, File{Name: fmt.Sprintf("example-%02d.yaml", i), Data: []byte(m[1])})
	}
	f, ds := Load(files)
	if len(ds) > 0 {
		t.Fatalf("%s", ds)
	}
	if len(files) < 9 || len(f.Services) == 0 || len(f.Rules) == 0 || len(f.Expectations) == 0 {
		t.Errorf("only %d examples", len(files))
	}
}

// TestEveryKeyIsDocumented: a key without a sentence is no key for an operator.
func TestEveryKeyIsDocumented(t *testing.T) {
	for name, typ := range referenceTables {
		shape := shapeOf(typ)
		for i, f := range shape.fields {
			doc := f.tag.Get("doc")
			if !strings.HasSuffix(doc, ".") {
				t.Errorf("%s.%s: doc %q", name, shape.names[i], doc)
			}
			if optional := !f.required && f.tag.Get("default") == ""; optional && !slices.Contains([]string{"policy", "check", "service", "announce", "alert"}, name) {
				t.Errorf("%s.%s: neither required nor with a default", name, shape.names[i])
			}
		}
	}
}
