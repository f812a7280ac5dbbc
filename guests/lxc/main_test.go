package lxc

import (
	"os"
	"testing"
)

// TestMain is the program that Start runs again to start a container, as bladed's main is.
func TestMain(m *testing.M) {
	RunHelper(os.Args[1:])
	os.Exit(m.Run())
}
