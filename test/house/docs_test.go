package house

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
)

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// TestFirstPolicyLoads reads the policy that the README shows.
func TestFirstPolicyLoads(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := yamlBlock.FindAllSubmatch(text, -1)
	if len(blocks) != 1 {
		t.Fatalf("the README has %d YAML blocks, want one", len(blocks))
	}
	fleet, found := policy.Load([]policy.File{{Name: "README.md", Data: blocks[0][1]}})
	if !found.HasErrors() {
		found = append(found, filter.CheckExpectations(fleet)...)
	}
	if found.HasErrors() {
		t.Errorf("the README's policy has mistakes:\n%s", found)
	}
}

var link = regexp.MustCompile(`\]\(([^)#]+)\)`)

// TestLinksOfTheDocsLead follows the relative links of the pages that people read.
func TestLinksOfTheDocsLead(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join("..", "..", "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, filepath.Join("..", "..", "README.md"), filepath.Join("..", "lab", "README.md")) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllSubmatch(text, -1) {
			target := string(m[1])
			if strings.Contains(target, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), target)); err != nil {
				t.Errorf("%s links to %s: %v", page, target, err)
			}
		}
	}
}
