// Package announce owns the routing daemons of one director: their configuration, which it renders and never reads back, and
// their processes. A VIP is announced while it is on the loopback, so a change of health needs neither; only the policy's own
// changes do. Nothing but the policy's VIPs can leave through it, and nothing that a neighbour says enters the kernel.
//
// The daemons are FRR's (written for 8.4, Debian 12), or keepalived (2.2) for VRRP, which has no neighbours and cannot see the loopback: it is told of
// each VIP, and puts it on eth0. They die with the process that started them.
package announce
