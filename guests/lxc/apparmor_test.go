package lxc

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLoadedProfile(t *testing.T) {
	list := filepath.Join(t.TempDir(), "profiles")
	if got := loadedProfile(list); got != "unconfined" {
		t.Errorf("without AppArmor: %s", got)
	}
	for text, want := range map[string]string{
		"":                               "unconfined",
		"/usr/bin/lxc-start (enforce)\n": "unconfined",
		"lxc-container-default (enforce)\nlxc-container-default-cgns-x (enforce)\n": "unconfined",
		"man_filter (enforce)\nlxc-container-default-cgns (enforce)\n":              ownProfile,
	} {
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := loadedProfile(list); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
