package policy

import (
	"strings"
	"testing"
)

// switchedOn takes the # away from the lines of a first policy that are policy.
func switchedOn(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if rest, ok := strings.CutPrefix(l, "#"); ok && (!strings.HasPrefix(rest, " ") || strings.HasPrefix(rest, "  ")) && strings.Contains(rest, ":") {
			lines[i] = rest
		}
	}
	return strings.Join(lines, "\n")
}

func TestInitFleet(t *testing.T) {
	cases := []struct {
		nics              []string
		hostname          string
		name              BladeName
		trunk, management string
	}{
		{[]string{"enp1s0", "eno2", "eno3"}, "lame-l1.example.org", "lame-l1", "enp1s0", "eno2"},
		{[]string{"null"}, "My_Host", "my-host", "null", ""},
		{nil, "...", "blade-1", "eno1", ""},
		{[]string{"a#b", "-c"}, strings.Repeat("x", 200), BladeName(strings.Repeat("x", 63)), "a#b", "-c"},
	}
	for _, c := range cases {
		t.Run(c.hostname[:3], func(t *testing.T) {
			file := InitFleet(c.nics, c.hostname)
			f, ds := Load([]File{file})
			if len(ds) > 0 {
				t.Fatalf("as it is written:\n%s", ds)
			}
			b := f.Blade(c.name)
			if b == nil || b.Trunk != c.trunk || b.Management != c.management || len(f.Blades) != 1 {
				t.Errorf("blades %+v", f.Blades)
			}
			on := File{Name: file.Name, Data: []byte(switchedOn(string(file.Data)))}
			f, ds = Load([]File{on})
			if len(ds) > 0 {
				t.Fatalf("switched on:\n%s\n%s", ds, on.Data)
			}
			if len(f.Directors) != 1 || len(f.RealServers) != 1 || len(f.Services) != 1 {
				t.Errorf("switched on there are %d, %d and %d entries", len(f.Directors), len(f.RealServers), len(f.Services))
			}
			formatted, err := Format(file)
			if err != nil || string(formatted.Data) != string(file.Data) {
				t.Errorf("not in canonical style: %v\n%s", err, formatted.Data)
			}
		})
	}
}
