package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAllocate(t *testing.T) {
	cases := []struct {
		name string
		r    SpawnRequest
		want string // the entry's line, or "error: " and the error
	}{
		{"real server of a service", SpawnRequest{Role: RoleRealServer, Name: "www-2", Services: []ServiceName{"www"}}, `  www-2: {blade: lame-c1, image: web, serves: {www: {}}, eth0: {network: pub-return, addresses: [198.51.100.2, "2001:db8:130::2"]}, eth1: {network: pub-service, addresses: [10.12.0.1, "2001:db8:120::1"]}}`},
		{"real server at a site, with a weight", SpawnRequest{Role: RoleRealServer, Name: "n", Site: "lombarderie", Weight: 7, Image: "big", Services: []ServiceName{"dns", "ldap"}}, `  n: {blade: lame-l2, image: big, serves: {dns: {weight: 7}, ldap: {weight: 7}}, eth0: {network: prv-return, addresses: [198.51.100.130, "2001:db8:230::2"]}, eth1: {network: prv-service, addresses: [10.22.0.1, "2001:db8:220::1"]}}`},
		{"real server in a virtual machine", SpawnRequest{Role: RoleRealServer, Name: "n", Blade: "lame-c1", Driver: DriverKVM, Services: []ServiceName{"www"}}, `  n: {blade: lame-c1, image: web, driver: kvm, serves: {www: {}}, eth0`},
		{"unknown driver", SpawnRequest{Role: RoleRealServer, Name: "n", Driver: "xen", Services: []ServiceName{"www"}}, "error: spawn realserver n: there is no driver xen; one of kvm, lxc"},
		{"director in a container", SpawnRequest{Role: RoleDirector, Name: "d", Blade: "lame-l1", Driver: DriverLXC}, "error: spawn director d: a director is a virtual machine: its connection table and its modules are its kernel's"},
		{"real server at a site, privileged", SpawnRequest{Role: RoleRealServer, Name: "n", Site: "lombarderie", Image: "big", Services: []ServiceName{"dns", "ldap"}, Privileged: true}, `  n: {blade: lame-l2, image: big, serves: {dns: {}, ldap: {}}, privileged: true, eth0: {network: prv-return, addresses: [198.51.100.130, "2001:db8:230::2"]}, eth1: {network: prv-service, addresses: [10.22.0.1, "2001:db8:220::1"]}}`},
		{"spare real server", SpawnRequest{Role: RoleRealServer, Name: "n", Blade: "lame-c1", Services: []ServiceName{"www"}, Spare: true}, `serves: {www: {}}, spare: true, eth0`},
		{"spare director", SpawnRequest{Role: RoleDirector, Name: "n", Blade: "lame-l1", Spare: true}, "error: spawn director n: only a real server can be a spare one"},
		{"director on a blade", SpawnRequest{Role: RoleDirector, Name: "d", Blade: "lame-l1"}, `  d: {blade: lame-l1, eth0: {network: pub-uplink-lombarderie, addresses: [192.0.2.3, "2001:db8:111::3"]}, eth1: {network: pub-service, addresses: [10.12.0.1, "2001:db8:120::1"]}, announce: {ospf: {area: 0.0.0.0, hello: 1s, dead: 4s, bfd: true}}}`},
		{"director beside one that speaks BGP", SpawnRequest{Role: RoleDirector, Name: "d", Site: "centre", Zone: "public"}, `announce: {bgp: {as: 64512, peer-as: 64500, bfd: true}}`},
		{"director of a site with two zones", SpawnRequest{Role: RoleDirector, Name: "d", Site: "centre"}, "error: spawn director d: name the zone or the blade: the blades belong to private and public"},
		{"name that is taken", SpawnRequest{Role: RoleRealServer, Name: "www-l1", Services: []ServiceName{"www"}}, "error: spawn realserver www-l1: there is a guest of that name at 30-guests.yaml:12:3"},
		{"bad name", SpawnRequest{Role: RoleRealServer, Name: "WWW"}, `error: spawn realserver WWW: "WWW" is no name (names are lower case: www)`},
		{"no service", SpawnRequest{Role: RoleRealServer, Name: "n"}, "error: spawn realserver n: no service to serve"},
		{"unknown service", SpawnRequest{Role: RoleRealServer, Name: "n", Services: []ServiceName{"x"}}, "error: spawn realserver n: there is no service x"},
		{"services of two zones", SpawnRequest{Role: RoleRealServer, Name: "n", Services: []ServiceName{"www", "dns"}}, "error: spawn realserver n: service dns belongs to zone private, not public"},
		{"blade of another zone", SpawnRequest{Role: RoleRealServer, Name: "n", Blade: "lame-l2", Services: []ServiceName{"www"}}, "error: spawn realserver n: blade lame-l2 belongs to zone private, not public"},
		{"blade at another site", SpawnRequest{Role: RoleRealServer, Name: "n", Blade: "lame-l1", Site: "centre", Services: []ServiceName{"www"}}, "error: spawn realserver n: blade lame-l1 does not stand at site centre"},
	}
	files := read(t, "testdata/fleets/nantes")
	f := nantes(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			file, err := Allocate(f, c.r)
			if err != nil {
				if diff := cmp.Diff(c.want, "error: "+err.Error()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				return
			}
			if !strings.Contains(string(file.Data), c.want) {
				t.Errorf("want %s in:\n%s", c.want, file.Data)
			}
			after, ds := Load(append(slices.Clone(files), file))
			if len(ds) > 0 {
				t.Fatalf("with the new guest:\n%s", ds)
			}
			if g, ok := after.Guest(c.r.Name); !ok || g.Role != c.r.Role {
				t.Errorf("the new guest is not there: %+v", g)
			}
		})
	}
}

// A new director shares its connections with the others of its site when they all do, under one number.
func TestAllocateDirectorThatShares(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(text string) string
		want   string
	}{
		{"the other one shares", func(text string) string { return strings.Replace(text, "dir-pub-l: {", "dir-pub-l: {sync: 7, ", 1) }, "n: {blade: lame-l1, sync: 7, eth0"},
		{"one of another site does", func(text string) string { return strings.Replace(text, "dir-pub-t: {", "dir-pub-t: {sync: 7, ", 1) }, "n: {blade: lame-l1, eth0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := read(t, "testdata/fleets/nantes")
			for i, f := range files {
				files[i].Data = []byte(c.change(string(f.Data)))
			}
			f, ds := Load(files)
			if ds.HasErrors() {
				t.Fatal(ds)
			}
			file, err := Allocate(f, SpawnRequest{Role: RoleDirector, Name: "n", Blade: "lame-l1"})
			if err != nil || !strings.Contains(string(file.Data), c.want) {
				t.Errorf("%v, want %q in:\n%s", err, c.want, file.Data)
			}
		})
	}
}

// TestAllocateFull spawns until no address is left.
func TestAllocateFull(t *testing.T) {
	files := read(t, "testdata/fleets/nantes")
	for i := range 20 {
		f, ds := Load(files)
		if len(ds) > 0 {
			t.Fatal(ds)
		}
		file, err := Allocate(f, SpawnRequest{Role: RoleDirector, Name: GuestName("d" + string(rune('a'+i))), Blade: "lame-t1"})
		if err != nil {
			if want := "network pub-uplink-tertre: no free address in 192.0.2.16/28"; i != 12 || !strings.Contains(err.Error(), want) {
				t.Fatalf("guest %d: %v, want 12 guests, then %s", i, err, want)
			}
			return
		}
		files = append(files, file)
	}
	t.Fatal("twenty directors in a /28 with a router and a director")
}

func TestRemoveGuest(t *testing.T) {
	files := read(t, "testdata/fleets/nantes")
	f := nantes(t)
	for _, g := range f.Guests() {
		changed, gone, err := RemoveGuest(files, f, g.Name)
		if err != nil || len(changed) != 1 || len(gone) != 0 {
			t.Fatalf("%s: %v %v %v", g.Name, changed, gone, err)
		}
		before := strings.Split(string(files[2].Data), "\n")
		after := strings.Split(string(changed[0].Data), "\n")
		if len(after) != len(before)-1 {
			t.Errorf("%s: %d lines less", g.Name, len(before)-len(after))
		}
		left, _ := Load(replace(files, changed))
		if _, ok := left.Guest(g.Name); ok || len(left.Guests()) != len(f.Guests())-1 {
			t.Errorf("%s: %d guests left", g.Name, len(left.Guests()))
		}
	}
}

func replace(files, changed []File) []File {
	out := slices.Clone(files)
	for i := range out {
		for _, c := range changed {
			if c.Name == out[i].Name {
				out[i] = c
			}
		}
	}
	return out
}

func TestRemoveGuestFromText(t *testing.T) {
	const body = "{blade: b1, image: web, serves: {www: {}}, eth0: {network: ret, addresses: [198.51.100.11]}, eth1: {network: svc, addresses: [10.1.0.11]}}"
	cases := []struct{ name, text, want string }{
		{"only entry", "# spawned\nrealservers:\n  w1: " + body + "\n", "gone"},
		{"comments around", "realservers:\n  # first\n  w1: " + body + " # last\n  # next\n  w2: " + body + "\n", "realservers:\n  # first\n  # next\n  w2: " + body + "\n"},
		{"block entry", "realservers:\n  w1:\n    blade: b1 # here\n    serves:\n      www: {}\n\n  w2: " + body + "\nzones: [a]\n", "realservers:\n\n  w2: " + body + "\nzones: [a]\n"},
		{"last, other section follows", "realservers:\n  w1: " + body + "\nzones: [a]\n", "realservers:\nzones: [a]\n"},
		{"no line end", "zones: [a]\nrealservers:\n  w1: " + body, "zones: [a]\nrealservers:\n"},
		{"flow, first", "realservers: {w1: " + body + ", w2: " + body + "}\n", "realservers: {w2: " + body + "}\n"},
		{"flow, last", "realservers: {w2: " + body + ", w1: " + body + "}\n", "realservers: {w2: " + body + "}\n"},
		{"flow, alone", "zones: [a]\nrealservers: {w1: " + body + ",}\n", "zones: [a]\nrealservers: {}\n"},
		{"JSON", "{\"zones\": [\"a\"],\n\t\"realservers\": {\n\t\t\"w1\": " + body + "\n\t}\n}", "{\"zones\": [\"a\"],\n\t\"realservers\": {\n\t\t}\n}"},
		{"CRLF", "realservers:\r\n  w1: " + body + "\r\n  w2: " + body + "\r\n", "realservers:\r\n  w2: " + body + "\r\n"},
		{"merge", "realservers:\n  <<: {w1: " + body + "}\n", "error: remove guest w1 at a.yaml:2:8: the entry comes in by an alias or a merge key; edit the file by hand"},
		{"anchor that is used", "realservers:\n  w1: &w " + body + "\n  w2: *w\n", "error: remove guest w1 at a.yaml:2:3: without the entry, line 2: alias *w without an anchor &w above it; edit the file by hand"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			files := []File{{Name: "a.yaml", Data: []byte(c.text)}}
			f, _ := Parse(files)
			changed, gone, err := RemoveGuest(files, f, "w1")
			var got string
			switch {
			case err != nil:
				got = "error: " + err.Error()
			case len(gone) == 1 && gone[0] == "a.yaml" && changed == nil:
				got = "gone"
			case len(changed) == 1:
				got = string(changed[0].Data)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
