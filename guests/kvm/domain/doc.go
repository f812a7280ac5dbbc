// Package domain is the text of a machine: its definition as libvirt's domain XML, and back. It reads nothing and starts nothing, and builds
// without libvirt.
package domain
