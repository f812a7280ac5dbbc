// Package bridges owns the links of a blade: the VLAN links on its trunk, the bridges, and the guests' ports on them (taps for KVM, veths for
// LXC) with the named network namespaces that the veths lead into.
//
// It observes links over rtnetlink, plans what has to change, and applies that in three calls, because a port must not join its bridge
// before the filter knows it: Remove, Create, then (when the filter is loaded) Attach.
//
// It never touches a link that it did not make, never creates, renames or deletes the trunk, never configures the inside of a guest's
// namespace, and never starts a process.
package bridges
