// Package inside owns what lies inside a guest's network namespace: names and state of its interfaces, their addresses, VIPs on the loopback,
// routes and sysctls. The host uses it for containers by the path of their namespace; in a virtual machine bladeguest uses it for itself.
//
// It never makes or deletes an interface, never touches interfaces that policy.Inside does not name, routes that it did not set, link-local
// addresses or the IPVS table, and never starts a process.
package inside
