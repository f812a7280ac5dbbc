// Package config is the text of a container: its definition as a configuration of liblxc, and back. It reads nothing and starts nothing,
// and builds without liblxc.
package config
