// Package kvm runs machines through libvirt. A domain is ours when its metadata holds our element; every other one is left
// alone. The package makes clone and definition and does not make taps, does not speak with what runs inside, and never waits for
// libvirtd longer than its caller does.
package kvm
