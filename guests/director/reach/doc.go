// Package reach owns a director's probes through VIPs: for each real server, VIP and TCP port a SYN by the way of a user's packets, out of eth1 to
// the real server's MAC, whose answer comes back from the VIP by the router to eth0. It tells a real server that is well from one whose VIP is
// missing or filtered, and says nothing of what should follow. A probe never becomes a connection: what is answered is reset at once.
package reach
