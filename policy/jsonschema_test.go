package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bladenet/bladenet/policy/yaml"
)

const schemaFile = "../docs/policy.schema.json"

// TestJSONSchemaIsUpToDate compares the published schema with the types; -update writes it.
func TestJSONSchemaIsUpToDate(t *testing.T) {
	if *update {
		if err := os.WriteFile(schemaFile, JSONSchema(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != string(JSONSchema()) {
		t.Errorf("%s is not what the types say: go test ./policy -run JSONSchema -update", schemaFile)
	}
}

// validate judges a value by the parts of JSON Schema that ours uses, and returns what is wrong.
func validate(s map[string]any, v any, at string) []string {
	var out []string
	wrong := func(format string, args ...any) { out = append(out, at+": "+fmt.Sprintf(format, args...)) }
	for _, key := range slices.Sorted(maps.Keys(s)) {
		switch rule := s[key]; key {
		case "type":
			if !typeOK(rule, v) {
				wrong("%v is no %v", v, rule)
			}
		case "enum":
			if !slices.Contains(rule.([]any), v) {
				wrong("%v is none of %v", v, rule)
			}
		case "const":
			if v != rule {
				wrong("%v is not %v", v, rule)
			}
		case "anyOf":
			if !slices.ContainsFunc(rule.([]any), func(r any) bool { return len(validate(r.(map[string]any), v, at)) == 0 }) {
				wrong("%v fits nothing of %v", v, rule)
			}
		case "properties", "prefixItems", "description", "$schema", "title", "propertyNames":
		default:
			if !ruleOK(key, rule, v) {
				wrong("%v: %s %v", v, key, rule)
			}
		}
	}
	return append(out, validateParts(s, v, at)...)
}

func typeOK(rule, v any) bool {
	if list, ok := rule.([]any); ok {
		return slices.ContainsFunc(list, func(r any) bool { return typeOK(r, v) })
	}
	switch x := v.(type) {
	case map[string]any:
		return rule == "object"
	case []any:
		return rule == "array"
	case string:
		return rule == "string"
	case bool:
		return rule == "boolean"
	case float64:
		return rule == "integer" && x == float64(int64(x))
	}
	return v == nil && rule == "null"
}

func ruleOK(key string, rule, v any) bool {
	switch x := v.(type) {
	case string:
		switch key {
		case "pattern":
			return regexp.MustCompile(rule.(string)).MatchString(x)
		case "format":
			a, err := netip.ParseAddr(x)
			return err == nil && a.Is4() == (rule == "ipv4")
		case "minLength":
			return float64(len(x)) >= rule.(float64)
		case "maxLength":
			return float64(len(x)) <= rule.(float64)
		}
	case float64:
		switch key {
		case "minimum":
			return x >= rule.(float64)
		case "maximum":
			return x <= rule.(float64)
		}
	case []any:
		switch key {
		case "minItems":
			return float64(len(x)) >= rule.(float64)
		case "maxItems":
			return float64(len(x)) <= rule.(float64)
		}
	case map[string]any:
		switch key {
		case "required":
			return !slices.ContainsFunc(rule.([]any), func(r any) bool { _, ok := x[r.(string)]; return !ok })
		case "maxProperties":
			return float64(len(x)) <= rule.(float64)
		case "minProperties":
			return float64(len(x)) >= rule.(float64)
		}
	}
	return slices.Contains([]string{"required", "items", "additionalProperties", "minProperties", "maxProperties", "minItems", "maxItems"}, key)
}

func validateParts(s map[string]any, v any, at string) []string {
	var out []string
	switch x := v.(type) {
	case map[string]any:
		properties, _ := s["properties"].(map[string]any)
		for _, k := range slices.Sorted(maps.Keys(x)) {
			sub := at + "." + k
			if names, ok := s["propertyNames"].(map[string]any); ok {
				out = append(out, validate(names, k, sub)...)
			}
			if p, ok := properties[k].(map[string]any); ok {
				out = append(out, validate(p, x[k], sub)...)
			} else if more, ok := s["additionalProperties"].(map[string]any); ok {
				out = append(out, validate(more, x[k], sub)...)
			} else if s["additionalProperties"] == false {
				out = append(out, sub+": unknown")
			}
		}
	case []any:
		prefix, _ := s["prefixItems"].([]any)
		for i, item := range x {
			sub := at + "[" + strconv.Itoa(i) + "]"
			if i < len(prefix) {
				out = append(out, validate(prefix[i].(map[string]any), item, sub)...)
			} else if items, ok := s["items"].(map[string]any); ok {
				out = append(out, validate(items, item, sub)...)
			}
		}
	}
	return out
}

// asJSON turns a tree into what an editor's YAML library makes of it.
func asJSON(n *yaml.Node) any {
	n = n.Resolve()
	switch {
	case n.Kind == yaml.Mapping:
		m := map[string]any{}
		for _, p := range n.Pairs {
			m[p.Key.Value] = asJSON(p.Value)
		}
		return m
	case n.Kind == yaml.Sequence:
		list := []any{}
		for _, item := range n.Items {
			list = append(list, asJSON(item))
		}
		return list
	case n.IsNull():
		return nil
	case n.Style == yaml.Plain && (n.Value == "true" || n.Value == "false"):
		return n.Value == "true"
	case n.Style == yaml.Plain:
		if x, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
			return float64(x)
		}
	}
	return n.Value
}

func schemaFindings(t *testing.T, text string) []string {
	t.Helper()
	var s map[string]any
	if err := json.Unmarshal(JSONSchema(), &s); err != nil {
		t.Fatal(err)
	}
	tree, errs := yaml.Parse(text, yaml.Options{})
	if len(errs) > 0 {
		t.Fatal(errs[0])
	}
	var out []string
	for _, root := range tree.Documents {
		out = append(out, validate(s, asJSON(root), "")...)
	}
	return out
}

// TestJSONSchemaAccepts validates the reference fleet and the base of the bad policies.
func TestJSONSchemaAccepts(t *testing.T) {
	base, err := os.ReadFile("testdata/base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(read(t, "testdata/fleets/nantes"), File{Name: "base", Data: base}) {
		if wrong := schemaFindings(t, string(file.Data)); len(wrong) > 0 {
			t.Errorf("%s:\n%s", file.Name, strings.Join(wrong, "\n"))
		}
	}
}

// TestJSONSchemaRefuses: a bad key, type or value is seen by an editor too.
func TestJSONSchemaRefuses(t *testing.T) {
	byLoadOnly := []string{ // what a schema cannot say, or says less strictly
		"value-address-prefix", "value-as-range", "value-host-bits", "value-mapped", "value-mapped-prefix", "value-port-backwards", "value-port-zero",
		"value-script-clean", "value-zone-index", "value-url", "value-area",
	}
	entries, err := os.ReadDir("testdata/bad")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".txt")
		kind, _, _ := strings.Cut(name, "-")
		if !slices.Contains([]string{"key", "type", "value"}, kind) || slices.Contains(byLoadOnly, name) || name == "key-twice" {
			continue
		}
		data, err := os.ReadFile("testdata/bad/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		text, _, _ := strings.Cut(string(data), separator)
		if len(schemaFindings(t, text)) == 0 {
			t.Errorf("%s: the schema has nothing to say", name)
		}
	}
}
