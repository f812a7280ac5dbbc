// Package policy owns what ops wrote and what it means: files become a Fleet (checked), and Derive turns a Fleet into the
// whole wanted state of one blade, as plain data. It never touches a kernel, a clock or the network.
package policy
